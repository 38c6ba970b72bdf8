"""vLLM 0.33.0: how it can be spread, what it will hold of each card, and its command line.

Facts are those of the 0.33.0 wheel: `config/parallel.py`, `distributed/utils.py`,
`v1/core/kv_cache_utils.py` (KV tokens = blocks / blocks of one request x its length, the smallest
rank decides).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil, floor

from multigpu import install
from multigpu import memory as m
from multigpu.groups import by_capability
from multigpu.hardware import Gpu, Host
from multigpu.mix import Mix, mix
from multigpu.placement import even, partition
from multigpu.plan import (
    Candidate,
    Check,
    Memory,
    ModelSpec,
    Plan,
    Reason,
    Service,
    Source,
    Strategy,
    Wish,
)
from multigpu.runtimes import vllm_rules
from multigpu.runtimes.candidates import groups_of, sizes, tensor_parallel_teams, whole
from multigpu.runtimes.rendering import merged, replica_services
from multigpu.runtimes.signs import REDEPLOY, equal, last

NAME = "vllm"
VERSION = "0.33.0"


def candidates(host: Host, model: ModelSpec, wish: Wish) -> tuple[Candidate, ...]:
    """Every way worth asking the rules about, with layers and memory filled in."""
    found = dict.fromkeys(_spread(host, model, wish))
    return tuple(sized(candidate, host, model, wish) for candidate in found)


def _spread(host: Host, model: ModelSpec, wish: Wish) -> Iterator[Candidate]:
    for candidate in whole(NAME, host, wish):
        yield _ordered(candidate, host, wish)
    for n in sizes(host, wish):
        for gpus in groups_of(host, wish, n):
            one = Candidate(NAME, Strategy.TENSOR_PARALLEL, gpus, tensor_parallel_size=n)
            yield _ordered(one, host, wish)
            yield from _pipelines(host, model, wish, gpus)
    for group, gpus, size, count in tensor_parallel_teams(host, wish):
        if count == len(group) // size:
            yield Candidate(
                NAME, Strategy.REPLICAS, gpus, tensor_parallel_size=size, replicas=count
            )
        yield Candidate(
            NAME,
            Strategy.PIPELINE_PARALLEL,
            gpus,
            tensor_parallel_size=size,
            pipeline_parallel_size=count,
            layers=_pinned_layers(wish, count) or even(model.num_hidden_layers, count),
        )


def _ordered(candidate: Candidate, host: Host, wish: Wish) -> Candidate:
    """Lowest compute capability first, unless the operator gave an order."""
    if wish.gpus is not None and len(wish.gpus) == len(candidate.gpus):
        return replace(candidate, gpus=wish.gpus)
    return replace(candidate, gpus=by_capability(host, candidate.gpus))


def _pinned_layers(wish: Wish, stages: int) -> tuple[int, ...] | None:
    return wish.layers if wish.layers is not None and len(wish.layers) == stages else None


def _pipelines(
    host: Host, model: ModelSpec, wish: Wish, gpus: tuple[int, ...]
) -> Iterator[Candidate]:
    """The even pipeline, and one partitioned by memory where the cards are not alike."""
    n = len(gpus)
    base = _ordered(
        Candidate(NAME, Strategy.PIPELINE_PARALLEL, gpus, pipeline_parallel_size=n), host, wish
    )
    pinned = _pinned_layers(wish, n)
    if pinned is not None:
        yield replace(base, layers=pinned)
        return
    yield replace(base, layers=even(model.num_hidden_layers, n))
    if mix(tuple(host.gpu(i) for i in gpus)) is not Mix.MATCHED or _unequal(host, base, wish):
        layers = _partitioned(base, host, model, wish)
        if layers is not None:
            yield replace(base, layers=layers)


def _unequal(host: Host, candidate: Candidate, wish: Wish) -> bool:
    free = [m.free_mib(host.gpu(index), wish) for index in candidate.gpus]
    return min(free) < 0.9 * max(free)


def _partitioned(
    candidate: Candidate, host: Host, model: ModelSpec, wish: Wish
) -> tuple[int, ...] | None:
    """Counts that keep the worst share of a card's budget smallest."""
    wanted = m.engine_concurrency(candidate, wish)
    gpus = [host.gpu(index) for index in candidate.gpus]
    fraction = m.utilization(host, candidate, wish)
    units = [
        weights + wanted * _request(model, (i, i + 1), candidate, gpus[0], wish)
        for i, weights in enumerate(model.layers_mib)
    ]
    budgets = [
        m.cuda_total_mib(gpu) * fraction - sum(_fixed(candidate, model, gpu, wish)) for gpu in gpus
    ]
    tail = model.output_mib + (model.embedding_mib if model.tie_word_embeddings else 0.0)
    return partition(units, budgets, first=model.embedding_mib, last=tail)


def sized(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Candidate:
    """The candidate with memory per card, KV tokens of one engine and the utilization."""
    stages = _stages(candidate, model)
    if stages is None:
        return candidate
    fraction = m.utilization(host, candidate, wish)
    gpus = [host.gpu(index) for index in candidate.gpus]
    wanted = m.engine_concurrency(candidate, wish)
    rows = []
    for gpu, stage in zip(gpus, stages, strict=True):
        held = ceil(m.vllm_weights_mib(model, stage, candidate.tensor_parallel_size))
        activations, overhead = _fixed(candidate, model, gpu, wish)
        capacity = floor(m.cuda_total_mib(gpu) * fraction)
        request = _request(model, stage, candidate, gpu, wish)
        rows.append((held, activations, overhead, capacity, request))
    pools = [(r[3] - r[0] - r[1] - r[2]) / r[4] for r in rows if r[4] > 0]
    requests = min(pools, default=float(wanted))
    memory = tuple(_row(r, max(requests, wanted)) for r in rows)
    tokens = max(0, floor(requests * wish.context))
    return replace(candidate, memory=memory, kv_tokens=tokens, gpu_memory_utilization=fraction)


def _row(row: tuple[float, ...], requests: float) -> Memory:
    """vLLM takes what is left as KV cache, cut to the blocks of the rank that has the fewest."""
    held, activations, overhead, capacity, request = row
    return m.memory(held, floor(requests * request), activations, overhead, capacity)


def _stages(candidate: Candidate, model: ModelSpec) -> list[tuple[int, int]] | None:
    """The blocks [start, end) of every rank, aligned with `gpus`; None when they do not add up."""
    whole_model = [(0, model.num_hidden_layers)]
    if candidate.pipeline_parallel_size == 1:
        return whole_model * len(candidate.gpus)
    layers = candidate.layers or ()
    if sum(layers) != model.num_hidden_layers or min(layers, default=0) < 1:
        return None
    ends = [sum(layers[: i + 1]) for i in range(len(layers))]
    stages = zip([0, *ends], ends, strict=False)
    return [stage for stage in stages for _ in range(candidate.tensor_parallel_size)]


def _request(
    model: ModelSpec, stage: tuple[int, int], candidate: Candidate, gpu: Gpu, wish: Wish
) -> float:
    return m.request_mib(
        model.layers[stage[0] : stage[1]],
        wish.context,
        kv_bytes=m.vllm_kv_bytes(wish.flags),
        tensor_parallel_size=candidate.tensor_parallel_size,
        in_flight=m.batched_tokens(gpu, wish.flags),
    )


def _fixed(candidate: Candidate, model: ModelSpec, gpu: Gpu, wish: Wish) -> tuple[int, int]:
    """(activations, overhead) of one rank."""
    seqs = wish.concurrency
    tp, world = candidate.tensor_parallel_size, len(candidate.gpus) // candidate.replicas
    activations = m.vllm_activations_mib(model, tp, m.batched_tokens(gpu, wish.flags), seqs)
    overhead = m.VLLM_CONTEXT_MIB + (m.NCCL_MIB if world > 1 else 0)
    graphs = 0.0 if "--enforce-eager" in wish.flags else m.graphs_mib(seqs)
    return ceil(activations), ceil(overhead + graphs)


def objections(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    """What stands against serving this candidate with vLLM."""
    yield from vllm_rules.objections(candidate, host, model, wish)


def cautions(candidate: Candidate, host: Host, model: ModelSpec) -> Iterator[Reason]:
    """What works but is slower than the operator may expect."""
    yield from vllm_rules.cautions(candidate, host, model)


def render(plan: Plan, executable: str, model_path: str) -> tuple[Service, ...]:
    """One service per replica. `executable` is `vllm`'s path, `model_path` a path or hub id."""
    return replica_services(
        plan, lambda port: _argv(plan, executable, model_path, port), health_path="/health"
    )


def _argv(plan: Plan, executable: str, model_path: str, port: int) -> tuple[str, ...]:
    flags = merged(_flags(plan, port), plan.wish.flags)
    return (executable, "serve", model_path, *flags)


def _flags(plan: Plan, port: int) -> dict[str, str | None]:
    wish, chosen, model = plan.wish, plan.chosen, plan.model
    flags: dict[str, str | None] = {
        "--host": wish.bind,
        "--port": str(port),
        "--served-model-name": wish.served_model_name or wish.name,
        "--tensor-parallel-size": str(chosen.tensor_parallel_size),
        "--pipeline-parallel-size": str(chosen.pipeline_parallel_size),
        "--max-model-len": str(wish.context),
        "--max-num-seqs": str(_max_num_seqs(plan)),
        "--gpu-memory-utilization": str(chosen.gpu_memory_utilization or m.GPU_MEMORY_UTILIZATION),
    }
    if model.source is Source.HUB and model.revision:
        flags["--revision"] = model.revision
    if chosen.tensor_parallel_size > 1 and _peer_off(plan):
        # vLLM's own kernel trusts the driver's grant, whatever NCCL was told.
        flags["--disable-custom-all-reduce"] = None
    return flags


def _max_num_seqs(plan: Plan) -> int:
    """A replica's share of the requests, or more where its cache holds more of full length."""
    held = (plan.chosen.kv_tokens or 0) // plan.wish.context
    return max(m.engine_concurrency(plan.chosen, plan.wish), min(plan.wish.concurrency, held))


def _peer_off(plan: Plan) -> bool:
    return any(s.name == "NCCL_P2P_DISABLE" and s.value == "1" for s in plan.environment)


def recipe(host: Host, wish: Wish, files: install.Files) -> install.Recipe:
    """From PyPI by the hashed lock. Raises MultigpuError when the host's Python is too old."""
    return install.vllm(host, VERSION, files.requirements(f"vllm-{VERSION}"))


WORLD_SIZE = r"world_size=(\d+)"
KV_TOKENS = r"GPU KV cache size: ([\d,]+) tokens"
LOG_PATTERNS = (WORLD_SIZE, KV_TOKENS, r"Custom allreduce is disabled", r"Model loading took")


def signs(plan: Plan, lines: Sequence[str]) -> Iterator[Check]:
    """As many ranks as planned, and a KV cache that holds the wished context."""
    chosen = plan.chosen
    ranks = chosen.tensor_parallel_size * chosen.pipeline_parallel_size
    yield from equal("ranks", "world size", WORLD_SIZE, lines, str(ranks))
    match = last(KV_TOKENS, lines)
    if match is not None:
        tokens = int(match[1].replace(",", ""))
        found = f"KV cache of {tokens:,} tokens ({chosen.kv_tokens or 0:,} predicted)"
        expected = f"at least one context of {plan.wish.context:,}"
        yield Check("KV cache", tokens >= plan.wish.context, found, expected, REDEPLOY)
