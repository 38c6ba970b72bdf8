"""llama.cpp's llama-server, as llama-cpp-python 0.3.36 ships it (0.5.0-dev, 0c1e57098).

Layer counts are ours and are given as `--tensor-split` with `--fit off`; llama.cpp's own fitting
and given counts exclude each other. Everything must be on the cards (`--gpu-layers all`) unless the
wish allows weights in the host's memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from multigpu import install
from multigpu.groups import pool
from multigpu.hardware import Host
from multigpu.memo import changed
from multigpu.plan import (
    Candidate,
    Check,
    ModelSpec,
    Plan,
    Reason,
    Service,
    Strategy,
    Wish,
)
from multigpu.progress import Progress
from multigpu.runtimes import llama_cpp_backends as backends
from multigpu.runtimes import llama_cpp_memory as memory
from multigpu.runtimes import llama_cpp_remote as remote_devices
from multigpu.runtimes import llama_cpp_tensor as tensor
from multigpu.runtimes.candidates import groups_of, sizes, whole
from multigpu.runtimes.llama_cpp_rules import cache_types, shared_cache
from multigpu.runtimes.llama_cpp_settings import padded
from multigpu.runtimes.rendering import merged, replica_services
from multigpu.runtimes.signs import equal, last

NAME = "llama.cpp"
VERSION = "0.3.36"
MAX_DEVICES = 16


def candidates(host: Host, model: ModelSpec, wish: Wish) -> tuple[Candidate, ...]:
    """One card, one copy per card, and a layer split over every group of cards.

    Of a model that is no GGUF one unsized candidate, for the reason against it.
    """
    if model.format != "gguf":
        first = pool(host, wish.gpus)[:1]
        return tuple(Candidate(NAME, Strategy.SINGLE, (gpu.index,)) for gpu in first)
    found = {(c.strategy, c.gpus, c.layers): c for c in _spread(host, model, wish)}
    return tuple([memory.sized(candidate, host, model, wish) for candidate in found.values()])


def _spread(host: Host, model: ModelSpec, wish: Wish) -> Iterator[Candidate]:
    yield from whole(NAME, host, wish)
    for n in sizes(host, wish):
        for gpus in groups_of(host, wish, n):
            split = Candidate(NAME, Strategy.LAYER_SPLIT, gpus)
            pinned = wish.layers if wish.layers and len(wish.layers) == n else None
            yield changed(split, layers=pinned or memory.layers(split, host, model, wish))
    yield from tensor.ways(NAME, host, model, wish)


def objections(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    """What stands against serving this candidate with llama.cpp."""
    if model.format != "gguf":
        found = f"the model is in {model.format}"
        hint = "name a .gguf file, or serve it with vLLM"
        yield Reason("model-format", found, "a GGUF for llama.cpp", hint)
        return
    if len(candidate.gpus) // candidate.replicas > MAX_DEVICES:
        hint = "pin fewer gpus"
        yield Reason("device-count", f"{len(candidate.gpus)} cards", f"at most {MAX_DEVICES}", hint)
    if candidate.strategy is Strategy.LAYER_SPLIT and memory.spans(candidate, model) is None:
        units = model.num_hidden_layers + 1
        found = f"counts {'+'.join(str(n) for n in candidate.layers or ()) or 'none that fit'}"
        needed = f"at least 1 per card, {units} together (blocks and the output layer)"
        hint = "take fewer cards, or free memory on them"
        yield Reason("layer-counts", found, needed, hint)
    yield from backends.objections(candidate, host, wish)
    yield from shared_cache(candidate, model)
    yield from cache_types(model, memory.settings(wish))
    if candidate.strategy is Strategy.TENSOR_SPLIT:
        yield from tensor.objections(model, wish, len(candidate.gpus))


def cautions(candidate: Candidate, host: Host, model: ModelSpec) -> Iterator[Reason]:
    """Nothing beyond the common ones."""
    yield from ()


def render(plan: Plan, executable: str, model_path: str) -> tuple[Service, ...]:
    """One service per replica. `executable` is the path of llama-server, `model_path` a GGUF."""

    def argv(port: int) -> tuple[str, ...]:
        wished = {name: value for name, value in plan.wish.flags.items() if name != "--rpc"}
        return executable, *merged(_flags(plan, model_path, port), wished)

    return replica_services(plan, argv, health_path="/health", progress=progress(plan))


def progress(plan: Plan) -> Progress:
    """With `--metrics`; guarded by the API key where one is set.

    The counters of tokens move only when a request ends (`tools/server/server-task.cpp`), and a
    device that hangs leaves every path answering 200: decode calls are what moves.
    """
    busy = ("llamacpp:requests_processing", "llamacpp:requests_deferred")
    return Progress("/metrics", busy, ("llamacpp:n_decode_total",))


SEATS = (1, 2, 4, 8, 16, 32, 64)
BENCHMARKED = (
    "--rpc",
    "--split-mode",
    "--device",
    "--gpu-layers",
    "--fit",
    "--flash-attn",
    "--tensor-split",
    "--n-cpu-moe",
    "--cache-type-k",
    "--cache-type-v",
)
"""Flags of the service that change its speed and that llama-batched-bench has too."""


def benchmark(plan: Plan, url: str, model_path: str) -> tuple[str, ...]:
    """`llama-batched-bench`: it loads the model itself, so the service must be stopped first.

    `url` is not used. It runs on the cards and with the split of the plan, with as many requests
    at a time as are planned for and its cache holds.
    """
    load, chosen = plan.workload, plan.chosen
    tokens = chosen.kv_tokens or load.request_tokens
    held = max(1, tokens // load.request_tokens)
    seats = [n for n in SEATS if n <= min(held, max(load.concurrency, chosen.max_num_seqs or 1))]
    ours = _flags(plan, model_path, plan.wish.port)
    return (
        "llama-batched-bench",
        *("--model", model_path, "--ctx-size", str(tokens)),
        *merged({name: ours[name] for name in BENCHMARKED if name in ours}, {}),
        *("-npp", str(load.input_tokens), "-ntg", str(load.output_tokens)),
        *("-npl", ",".join(str(n) for n in seats), "--output-format", "jsonl"),
    )


SPLIT_MODES = {Strategy.LAYER_SPLIT: "layer", Strategy.TENSOR_SPLIT: "tensor"}


def _flags(plan: Plan, model_path: str, port: int) -> dict[str, str | None]:
    wish, chosen = plan.wish, plan.chosen
    mode = SPLIT_MODES.get(chosen.strategy, "none")
    # --device is checked while it is read: names of --rpc must be known by then.
    remote, names = remote_devices.own(plan, backends.names(plan, port - wish.port))
    flags: dict[str, str | None] = {
        **remote,
        "--model": model_path,
        "--host": wish.bind,
        "--port": str(port),
        "--alias": wish.served_model_name or wish.name,
        **_shared(plan),
        "--split-mode": mode,
        "--device": ",".join(names),
        "--gpu-layers": "all" if chosen.gpu_layers is None else str(chosen.gpu_layers),
        "--fit": "off",
        "--flash-attn": "on" if mode == "tensor" else "auto",
        "--metrics": None,
        "--verbosity": "4",
        "--no-ui": None,
    }
    if mode != "none":
        flags["--tensor-split"] = ",".join(str(n) for n in chosen.layers or ())
    if chosen.cpu_moe_layers:
        flags["--n-cpu-moe"] = str(chosen.cpu_moe_layers)
    return flags


def _shared(plan: Plan) -> dict[str, str | None]:
    """The context, who shares it, and its type.

    Slots have caches of their own unless there are more of them than full requests that fit.
    """
    wish, chosen = plan.wish, plan.chosen
    count, tokens = chosen.max_num_seqs or 1, chosen.kv_tokens or 0
    own = tokens >= count * padded(chosen.max_model_len or tokens)
    flags: dict[str, str | None] = {
        "--ctx-size": str(tokens),
        "--parallel": str(count),
        ("--no-kv-unified" if own else "--kv-unified"): None,
    }
    if wish.kv_cache_dtype is not None:
        flags |= {"--cache-type-k": wish.kv_cache_dtype, "--cache-type-v": wish.kv_cache_dtype}
    return flags


def recipe(host: Host, wish: Wish, files: install.Files) -> install.Recipe:
    """From the wheel of the wish, else built for the host's cards. Raises MultigpuError."""
    return install.llama_cpp(host, wish, files, version=VERSION)


# The buffer lines need --verbosity 4; without a line `offloaded` the model is served by the CPU.
OFFLOADED = r"offloaded (\d+)/(\d+) layers to GPU"
LOG_PATTERNS = (OFFLOADED, r"model buffer size", r"KV buffer size", r"failed to fit params")


def signs(plan: Plan, lines: Sequence[str]) -> Iterator[Check]:
    """All layers, the output layer included, are on the cards, or as many as were planned."""
    units = plan.model.num_hidden_layers + 1
    planned = plan.chosen.gpu_layers or units
    if last(OFFLOADED, lines) is None:
        hint = "--verbosity 4 prints it; without it the CPU may be serving"
        found = "llama-server says nothing of offloaded layers"
        yield Check("offloaded", False, found, f"offloaded {planned}/{units}", hint)
    yield from equal("offloaded", "layers offloaded", OFFLOADED, lines, f"{planned}/{units}")
