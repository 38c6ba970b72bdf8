"""llama.cpp's llama-server, as llama-cpp-python 0.3.36 ships it (0.5.0-dev, 0c1e57098).

Layer counts are ours and are given as `--tensor-split` with `--fit off`; llama.cpp's own fitting
and given counts exclude each other. Everything must be on the cards: `--gpu-layers all`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from multigpu import install
from multigpu import memory as m
from multigpu.errors import WishError
from multigpu.hardware import Gpu, Host
from multigpu.placement import partition
from multigpu.plan import (
    Candidate,
    Check,
    Memory,
    ModelSpec,
    Plan,
    Reason,
    Service,
    Strategy,
    Wish,
)
from multigpu.runtimes.candidates import groups_of, sizes, whole
from multigpu.runtimes.rendering import merged, replica_services
from multigpu.runtimes.signs import equal, last

NAME = "llama.cpp"
VERSION = "0.3.36"
MAX_DEVICES = 16


def candidates(host: Host, model: ModelSpec, wish: Wish) -> tuple[Candidate, ...]:
    """One card, one copy per card, and a layer split over every group of cards."""
    found = dict.fromkeys(_spread(host, model, wish))
    return tuple(sized(candidate, host, model, wish) for candidate in found)


def _spread(host: Host, model: ModelSpec, wish: Wish) -> Iterator[Candidate]:
    yield from whole(NAME, host, wish)
    for n in sizes(host, wish):
        for gpus in groups_of(host, wish, n):
            split = Candidate(NAME, Strategy.LAYER_SPLIT, gpus)
            pinned = wish.layers if wish.layers and len(wish.layers) == n else None
            yield replace(split, layers=pinned or _layers(split, host, model, wish))


def _units(candidate: Candidate, model: ModelSpec, wish: Wish) -> list[float]:
    """Size of each block with its KV cache, then of the output layer."""
    blocks = [
        weights + _kv(model, (i, i + 1), candidate, wish)
        for i, weights in enumerate(model.layers_mib)
    ]
    return [*blocks, output_mib(model)]


def output_mib(model: ModelSpec) -> float:
    """The output layer; a tied model keeps a second copy of the embedding on the last card."""
    return model.output_mib + (model.embedding_mib if model.tie_word_embeddings else 0.0)


def _layers(
    candidate: Candidate, host: Host, model: ModelSpec, wish: Wish
) -> tuple[int, ...] | None:
    """Unit counts that keep the worst share of a card's budget smallest."""
    n = len(candidate.gpus)
    budgets = [
        _capacity(host.gpu(index), wish) - m.GGML_CONTEXT_MIB - _compute(model, wish, n, i == n - 1)
        for i, index in enumerate(candidate.gpus)
    ]
    return partition(_units(candidate, model, wish), budgets)


def _capacity(gpu: Gpu, wish: Wish) -> float:
    return m.free_mib(gpu, wish) - m.FREE_MARGIN_MIB


def _kv(model: ModelSpec, blocks: tuple[int, int], candidate: Candidate, wish: Wish) -> float:
    """llama-server gives every slot its own cache of `context` tokens, padded to 256."""
    one = m.request_mib(
        model.layers[blocks[0] : blocks[1]],
        wish.context,
        kv_bytes=m.llama_cpp_kv_bytes(wish.flags),
        in_flight=m.GGML_UBATCH,
        pad=m.GGML_KV_PAD,
    )
    return one * m.engine_concurrency(candidate, wish)


def _compute(model: ModelSpec, wish: Wish, cards: int, last: bool) -> float:
    """Compute buffer of one card at --ubatch-size 512 with flash attention.

    The larger of a block's vectors and, on the last card, the logits; the attention mask once per
    copy of pipeline parallelism.
    """
    ubatch = _ubatch(wish)
    block = 6 * model.hidden_size + 3 * m.ffn_size(model)
    logits = model.vocab_size + model.hidden_size if last else 0
    copies = m.GGML_COPIES if cards > 1 else 1
    return ubatch * 4 * (max(block, logits) + wish.context * copies) / m.MIB


def _ubatch(wish: Wish) -> int:
    """Tokens per physical batch. Raises WishError when the wished one is no number."""
    text = wish.flags.get("--ubatch-size") or str(m.GGML_UBATCH)
    if not text.isdecimal() or int(text) < 1:
        raise WishError(f"{wish.name}: flags: --ubatch-size {text}, needs a whole number above 0")
    return int(text)


def sized(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Candidate:
    """The candidate with memory per card and the KV tokens that it is started with."""
    spans = _spans(candidate, model)
    if spans is None:
        return candidate
    per_engine = len(candidate.gpus) // candidate.replicas
    memory = tuple(
        _memory(candidate, host.gpu(index), model, wish, span, per_engine)
        for index, span in zip(candidate.gpus, spans, strict=True)
    )
    tokens = wish.context * m.engine_concurrency(candidate, wish)
    return replace(candidate, memory=memory, kv_tokens=tokens)


def _spans(candidate: Candidate, model: ModelSpec) -> list[tuple[int, int]] | None:
    """The units [start, end) of every card, aligned with `gpus`; None when they do not add up."""
    n = model.num_hidden_layers + 1
    if candidate.strategy is not Strategy.LAYER_SPLIT:
        return [(0, n)] * len(candidate.gpus)
    layers = candidate.layers or ()
    if len(layers) != len(candidate.gpus) or sum(layers) != n or min(layers) < 1:
        return None
    ends = [sum(layers[: i + 1]) for i in range(len(layers))]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _memory(
    candidate: Candidate, gpu: Gpu, model: ModelSpec, wish: Wish, span: tuple[int, int], cards: int
) -> Memory:
    last = span[1] == model.num_hidden_layers + 1
    held = sum(model.layers_mib[span[0] : span[1]]) + (output_mib(model) if last else 0.0)
    return m.memory(
        held,
        _kv(model, span, candidate, wish),
        _compute(model, wish, cards, last),
        m.GGML_CONTEXT_MIB,
        _capacity(gpu, wish),
    )


def objections(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    """What stands against serving this candidate with llama.cpp."""
    if model.format != "gguf":
        found = f"the model is in {model.format}"
        hint = "name a .gguf file, or serve it with vLLM"
        yield Reason("model-format", found, "a GGUF for llama.cpp", hint)
    if len(candidate.gpus) // candidate.replicas > MAX_DEVICES:
        hint = "pin fewer gpus"
        yield Reason("device-count", f"{len(candidate.gpus)} cards", f"at most {MAX_DEVICES}", hint)
    if candidate.strategy is Strategy.LAYER_SPLIT and _spans(candidate, model) is None:
        units = model.num_hidden_layers + 1
        found = f"counts {'+'.join(str(n) for n in candidate.layers or ()) or 'none that fit'}"
        needed = f"at least 1 per card, {units} together (blocks and the output layer)"
        hint = "take fewer cards, or free memory on them"
        yield Reason("layer-counts", found, needed, hint)


def cautions(candidate: Candidate, host: Host, model: ModelSpec) -> Iterator[Reason]:
    """Nothing beyond the common ones."""
    yield from ()


def render(plan: Plan, executable: str, model_path: str) -> tuple[Service, ...]:
    """One service per replica. `executable` is the path of llama-server, `model_path` a GGUF."""

    def argv(port: int) -> tuple[str, ...]:
        return executable, *merged(_flags(plan, model_path, port), plan.wish.flags)

    return replica_services(plan, argv, health_path="/health")


def _flags(plan: Plan, model_path: str, port: int) -> dict[str, str | None]:
    wish, chosen = plan.wish, plan.chosen
    seqs = m.engine_concurrency(chosen, wish)
    split = chosen.strategy is Strategy.LAYER_SPLIT
    # --device is checked while it is read: names of --rpc must be known by then.
    remote = {"--rpc": wish.flags["--rpc"]} if "--rpc" in wish.flags else {}
    flags: dict[str, str | None] = {
        **remote,
        "--model": model_path,
        "--host": wish.bind,
        "--port": str(port),
        "--alias": wish.served_model_name or wish.name,
        "--ctx-size": str(wish.context * seqs),
        "--parallel": str(seqs),
        "--split-mode": "layer" if split else "none",
        "--device": ",".join(_devices(plan, port - wish.port)),
        "--gpu-layers": "all",
        "--fit": "off",
        "--flash-attn": "auto",
        "--metrics": None,
        "--verbosity": "4",
        "--no-ui": None,
    }
    if split:
        flags["--tensor-split"] = ",".join(str(n) for n in chosen.layers or ())
    return flags


def _devices(plan: Plan, replica: int) -> Sequence[str]:
    """Names in the order of the planned cards: the pinned ones, else CUDA0.. or ROCm0.. .

    The names count the cards that the process sees, so they start at 0 in every replica.
    """
    size = len(plan.chosen.gpus) // plan.chosen.replicas
    if plan.wish.devices is not None:
        return plan.wish.devices[replica * size : (replica + 1) * size]
    amd = any(s.name == "HIP_VISIBLE_DEVICES" for s in plan.environment)
    return [f"{'ROCm' if amd else 'CUDA'}{i}" for i in range(size)]


def recipe(host: Host, wish: Wish, files: install.Files) -> install.Recipe:
    """From the wheel of the wish, else built on the host. Raises MultigpuError."""
    if wish.wheel is not None:
        return install.llama_cpp_wheel(VERSION, wish.wheel, *files.identity(wish.wheel))
    return install.llama_cpp_source(VERSION, files.requirements(f"llama-cpp-python-{VERSION}"))


# The buffer lines need --verbosity 4; without a line `offloaded` the model is served by the CPU.
OFFLOADED = r"offloaded (\d+)/(\d+) layers to GPU"
LOG_PATTERNS = (OFFLOADED, r"model buffer size", r"KV buffer size", r"failed to fit params")


def signs(plan: Plan, lines: Sequence[str]) -> Iterator[Check]:
    """All layers, the output layer included, are on the cards."""
    units = plan.model.num_hidden_layers + 1
    if last(OFFLOADED, lines) is None:
        hint = "--verbosity 4 prints it; without it the CPU may be serving"
        found = "llama-server says nothing of offloaded layers"
        yield Check("offloaded", False, found, f"offloaded {units}/{units}", hint)
    yield from equal("offloaded", "layers offloaded", OFFLOADED, lines, f"{units}/{units}")
