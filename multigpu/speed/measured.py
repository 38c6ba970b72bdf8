"""Results of a benchmark on a rig of ours: what replaces a prediction, and when it may.

`judged` gives the speed of a candidate: measured where the same cards, model, runtime, way of
serving and workload were measured, predicted elsewhere. `multigpu/speed/measured_file.py` reads and
writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from multigpu.hardware import GpuPair, Host
from multigpu.plan import Candidate, Estimate, ModelSpec, Prediction, Strategy, Workload
from multigpu.speed import predict

LENGTH_TOLERANCE = 0.25
"""How far prompt and answer may be from the measured ones. A quarter more history or prompt moves
the time of a decode step by less than the cost model's own spread; concurrency must be equal."""


@dataclass(frozen=True)
class Measurement:
    """One run of a benchmark. Names are those of the driver, of the runtime and of the model.

    `gpus` are the names of the cards in device order, `links` what joins them (`links_of`), empty
    where it was not seen. Sizes are those of `Candidate`, lengths in tokens. Rates and times are as
    in `Prediction`, each with its own spread; None was not measured. `when` is an ISO 8601 date or
    time, `tool` the program and its version.
    """

    gpus: tuple[str, ...]
    runtime: str
    model: str
    strategy: Strategy
    concurrency: int
    input_tokens: int
    output_tokens: int
    when: str
    tool: str
    links: tuple[str, ...] = ()
    driver: str | None = None
    runtime_version: str | None = None
    quantization: str | None = None
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    replicas: int = 1
    layers: tuple[int, ...] | None = None
    decode_tokens_per_s: Estimate | None = None
    prefill_tokens_per_s: Estimate | None = None
    ttft_ms: Estimate | None = None
    tpot_ms: Estimate | None = None
    note: str | None = None


def gpus_of(candidate: Candidate, host: Host) -> tuple[str, ...]:
    """Names of a candidate's cards in device order."""
    return tuple(host.gpu(index).name or "unnamed" for index in candidate.gpus)


def links_of(candidate: Candidate, host: Host) -> tuple[str, ...]:
    """What joins a candidate's cards: a lane per card and a way per pair, sorted.

    `lane gen4 x8` and `pair NV4`, `pair PHB peer`: positions do not count, so that a measurement
    holds for any cards of the host that are joined alike.
    """
    lanes = [host.gpu(index).pcie for index in candidate.gpus]
    spoken = [f"lane gen{link.gen_max} x{link.width_current}" for link in lanes]
    chosen = set(candidate.gpus)
    ways = [_way(pair) for pair in host.pairs if pair.a in chosen and pair.b in chosen]
    return tuple(sorted([*spoken, *ways]))


def _way(pair: GpuPair) -> str:
    if pair.nvlinks:
        return f"pair NV{pair.nvlinks}"
    if pair.xgmi_links:
        return f"pair XGMI{pair.xgmi_links}"
    peer = " peer" if pair.p2p_read == "OK" else ""
    return f"pair {pair.path or 'unseen'}{peer}"


def matching(
    measured: Iterable[Measurement],
    candidate: Candidate,
    host: Host,
    model: ModelSpec,
    load: Workload,
) -> tuple[Measurement, ...]:
    """The measurements of exactly this way of serving this model, the newest first."""
    if load.shared_prefix_tokens:  # benchmarks were run with prompts that share nothing
        return ()
    key = _key_of(candidate, model, load)
    alike = [m for m in measured if _key(m) == key and _lengths(m, load)]
    if not alike:
        return ()
    gpus, links = sorted(gpus_of(candidate, host)), links_of(candidate, host)
    same = [m for m in alike if sorted(m.gpus) == gpus and m.links in ((), links)]
    return tuple(sorted(same, key=lambda m: m.when, reverse=True))


def _key_of(candidate: Candidate, model: ModelSpec, load: Workload) -> tuple[object, ...]:
    sizes = (candidate.tensor_parallel_size, candidate.pipeline_parallel_size, candidate.replicas)
    way = (candidate.runtime, candidate.strategy, *sizes, candidate.layers)
    return (*way, model.name, model.quantization, load.concurrency)


def _key(m: Measurement) -> tuple[object, ...]:
    sizes = (m.tensor_parallel_size, m.pipeline_parallel_size, m.replicas)
    way = (m.runtime, m.strategy, *sizes, m.layers)
    return (*way, m.model, m.quantization, m.concurrency)


def _lengths(m: Measurement, load: Workload) -> bool:
    pairs = ((m.input_tokens, load.input_tokens), (m.output_tokens, load.output_tokens))
    return all(abs(asked - was) <= LENGTH_TOLERANCE * was for was, asked in pairs)


def judged(
    candidate: Candidate,
    host: Host,
    model: ModelSpec,
    load: Workload,
    measured: Sequence[Measurement] = (),
) -> Prediction:
    """The speed of a candidate: measured where it was, else predicted.

    What a benchmark left out is predicted even then, and `basis` says which figures those are.
    """
    predicted = predict(candidate, host, model, load)
    found = matching(measured, candidate, host, model, load) if measured else ()
    return _measured(found[0], predicted) if found else predicted


def _measured(m: Measurement, predicted: Prediction) -> Prediction:
    version = f" {m.runtime_version}" if m.runtime_version else ""
    basis = (
        f"{m.tool}, {m.when}, {m.runtime}{version}, {m.concurrency} at a time, "
        f"{m.input_tokens} tokens in and {m.output_tokens} out"
    )
    figures = {
        "decode_tokens_per_s": m.decode_tokens_per_s,
        "prefill_tokens_per_s": m.prefill_tokens_per_s,
        "ttft_ms": m.ttft_ms,
        "tpot_ms": m.tpot_ms,
    }
    left = [name for name, value in figures.items() if value is None]
    if left:
        basis += f"; not measured, predicted: {', '.join(left)}"
    return Prediction(
        decode_tokens_per_s=m.decode_tokens_per_s or predicted.decode_tokens_per_s,
        prefill_tokens_per_s=m.prefill_tokens_per_s or predicted.prefill_tokens_per_s,
        ttft_ms=m.ttft_ms or predicted.ttft_ms,
        tpot_ms=m.tpot_ms or predicted.tpot_ms,
        running=predicted.running,
        basis=basis,
        measured=True,
    )
