"""`python -m llama_cpp.server` of llama-cpp-python 0.3.36: for a single user who asks for it.

Not for production, and planned only where it is wished by name: one request at a time, no /health,
no /metrics, defaults that leave the cards idle. Facts are those of the 0.3.36 wheel,
`llama_cpp/server/{settings,app,__main__}.py` and `llama_cpp/llama.py`, and of runs on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from multigpu import install
from multigpu.groups import pool
from multigpu.hardware import Host
from multigpu.memo import changed, memo
from multigpu.plan import Candidate, Check, ModelSpec, Plan, Reason, Service, Strategy, Wish
from multigpu.progress import UNKNOWN, Progress
from multigpu.runtimes import llama_cpp
from multigpu.runtimes import llama_cpp_server_rules as rules
from multigpu.runtimes.llama_cpp_server_rules import STRATEGIES
from multigpu.runtimes.rendering import merged, replica_services
from multigpu.runtimes.signs import last

NAME = rules.NAME
VERSION = llama_cpp.VERSION

GGML_TYPES = {
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "q8_0": 8,
    "iq4_nl": 20,
    "bf16": 30,
}
"""`enum ggml_type` of ggml/include/ggml.h, by the words of llama-server's --cache-type-k."""
SPLIT_NONE, SPLIT_LAYER = 0, 1
ITS_FLAGS = (("--swa-full", None), ("--flash-attn", "on"))
"""Flags of llama-server with which it holds what the bindings hold."""


def candidates(host: Host, model: ModelSpec, wish: Wish) -> tuple[Candidate, ...]:
    """One card, or whole layers over several, as llama-server has them; nothing unless wished.

    Of what it cannot do at all one unsized candidate, for the reason against it.
    """
    if wish.runtime != NAME:
        return ()
    if model.format != "gguf" or wish.strategy not in (None, *STRATEGIES):
        strategy = wish.strategy or Strategy.SINGLE
        first = pool(host, wish.gpus)[:1]
        return tuple(Candidate(NAME, strategy, (gpu.index,)) for gpu in first)
    ways = llama_cpp.candidates(host, model, as_llama_server(wish))
    return tuple(changed(way, runtime=NAME) for way in ways if way.strategy in STRATEGIES)


def as_llama_server(wish: Wish) -> Wish:
    """The wish whose memory is the same in llama-server: one slot, its words for the flags.

    The bindings keep the whole context for sliding windows too (`swa_full` of llama.h's defaults).
    """
    known = memo(wish)
    if NAME not in known:
        flags: dict[str, str | None] = dict(ITS_FLAGS)
        for ours, theirs in (("--n_ubatch", "--ubatch-size"), ("--n_batch", "--batch-size")):
            flags[theirs] = wish.flags.get(ours) or "512"
        known[NAME] = replace(
            wish, concurrency=1, cpu_offload_gib=None, flags=MappingProxyType(flags)
        )
    found: Wish = known[NAME]
    return found


objections = rules.objections


def cautions(candidate: Candidate, host: Host, model: ModelSpec) -> Iterator[Reason]:
    """What a single user gives up for it."""
    found = "llama_cpp.server serves one request at a time, and others wait for its end"
    yield Reason("single-user", found, None, "llama-server of the same wheel serves several")
    found = "it has no /health and no /metrics: a hang cannot be told from a long answer"
    yield Reason("no-progress", found, None, "llama-server counts what it decodes")
    found = "its usage may count a token more than it gave"
    yield Reason("token-count", found, None, "count the tokens of a stream where it matters")


def render(plan: Plan, executable: str, model_path: str) -> tuple[Service, ...]:
    """One service. `executable` is the Python of its virtual environment, `model_path` a GGUF.

    Ready is when /openapi.json answers, which happens after the model was loaded: /v1/models wants
    the API key (401 without) and waits for the request that runs.
    """

    def argv(port: int) -> tuple[str, ...]:
        flags = merged(_flags(plan, model_path, port), plan.wish.flags)
        return (executable, "-m", "llama_cpp.server", *flags, *_split(plan))

    return replica_services(plan, argv, health_path="/openapi.json", progress=progress(plan))


def _flags(plan: Plan, model_path: str, port: int) -> Mapping[str, str | None]:
    wish, chosen = plan.wish, plan.chosen
    split = SPLIT_LAYER if chosen.strategy is Strategy.LAYER_SPLIT else SPLIT_NONE
    flags: dict[str, str | None] = {
        "--model": model_path,
        "--model_alias": wish.served_model_name or wish.name,
        "--host": wish.bind,
        "--port": str(port),
        "--n_ctx": str(chosen.kv_tokens or chosen.max_model_len),
        "--n_gpu_layers": "-1",
        "--split_mode": str(split),
        "--main_gpu": "0",
        "--flash_attn": "true",
        "--logits_all": "false",
        "--use_mlock": "false",
        "--interrupt_requests": "false",
        "--verbose": "true",
    }
    if wish.kv_cache_dtype is not None:
        number = str(GGML_TYPES[wish.kv_cache_dtype])
        flags |= {"--type_k": number, "--type_v": number}
    return flags


def _split(plan: Plan) -> tuple[str, ...]:
    """Units per card, in the order of CUDA_VISIBLE_DEVICES: one flag, as many values."""
    if plan.chosen.strategy is not Strategy.LAYER_SPLIT:
        return ()
    return ("--tensor_split", *(str(n) for n in plan.chosen.layers or ()))


def progress(plan: Plan) -> Progress:
    """It publishes nothing."""
    return UNKNOWN


def benchmark(plan: Plan, url: str, model_path: str) -> tuple[str, ...]:
    """None of its own; one that loads any OpenAI server does."""
    return ()


def recipe(host: Host, wish: Wish, files: install.Files) -> install.Recipe:
    """The wheel of llama.cpp with what its server needs. Raises MultigpuError."""
    return install.llama_cpp(host, wish, files, version=VERSION, server=True)


DEVICE = r"load_tensors: +(\S+) model buffer size"
OFFLOADED = llama_cpp.OFFLOADED
LOG_PATTERNS = (OFFLOADED, DEVICE, r"KV buffer size")
HOST_BUFFERS = ("CPU", "CUDA_Host", "ROCm_Host", "Vulkan_Host")


def signs(plan: Plan, lines: Sequence[str]) -> Iterator[Check]:
    """As llama-server's, and a card that holds weights: a wheel without CUDA says `offloaded` too.

    Seen with a wheel that was built for the CPU alone: `offloaded 13/13 layers to GPU`.
    """
    yield from llama_cpp.signs(plan, lines)
    if last(DEVICE, lines) is None:
        return
    held = [match[1] for line in lines if (match := last(DEVICE, (line,)))]
    cards = sorted({name for name in held if not name.startswith(HOST_BUFFERS)})
    found = f"weights on {', '.join(cards) or 'the processor alone'}"
    hint = "the wheel has no backend for these cards: leave wheel out, or build it for them"
    yield Check("devices", bool(cards), found, "weights on the planned cards", hint)
