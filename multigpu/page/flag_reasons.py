"""Why each flag of a rendered command has its value in this plan, one sentence each.

Flags mean the same in all runtimes that have them. What a flag does is stated by the runtimes' own
help (vLLM 0.33.0, SGLang 0.5.23, llama-server of llama-cpp-python 0.3.36).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import takewhile

from multigpu.backend import Backend
from multigpu.cautions.caution import TENANT_MIB
from multigpu.labels import cards, counted
from multigpu.listening import address, wanted
from multigpu.plan import Plan, Setting, Strategy

INVENTORY = "set in the inventory"
UNEXPLAINED = "the runtime asks for it"


def explained(plan: Plan, argv: tuple[str, ...]) -> tuple[Setting, ...]:
    """The flags of a command in order, each with its value ("" where it takes none) and reason.

    `argv` begins with the executable; words before the first flag are skipped.
    """
    return tuple(
        Setting(name, value, why(plan, name)) for name, value in _pairs(argv, plan.wish.flags)
    )


def _pairs(argv: tuple[str, ...], wished: Mapping[str, str | None]) -> list[tuple[str, str]]:
    """Values follow their flag; one that looks like a flag is known by the wish that set it."""
    pairs: list[tuple[str, str]] = []
    place = next((n for n, word in enumerate(argv) if word.startswith("--")), len(argv))
    while place < len(argv):
        name, rest = argv[place], argv[place + 1 :]
        if name in wished:
            values = rest[: wished[name] is not None]
        else:
            values = tuple(takewhile(lambda word: not word.startswith("--"), rest))
        pairs.append((name, " ".join(values)))
        place += 1 + len(values)
    return pairs


def why(plan: Plan, flag: str) -> str:
    """One sentence; of a flag that nobody explained, that it is the runtime's own business."""
    if flag in plan.wish.flags:
        return INVENTORY
    known = REASONS.get(flag)
    if known is None:
        return UNEXPLAINED
    return known if isinstance(known, str) else known(plan)


def _tensor(plan: Plan) -> str:
    n = plan.chosen.tensor_parallel_size
    if n == 1:
        return "no layer is divided between cards"
    pinned = ", as pinned" if plan.wish.tensor_parallel_size else ""
    return f"{n} cards divide every layer: each reads its share of the weights per token{pinned}"


def _pipeline(plan: Plan) -> str:
    n = plan.chosen.pipeline_parallel_size
    if n == 1:
        return "all layers are computed in one stage"
    pinned = ", as pinned" if plan.wish.pipeline_parallel_size else ""
    return f"the layers are divided into {n} stages, which exchange little{pinned}"


def _context(plan: Plan) -> str:
    if plan.wish.context is None:
        return "the default length of the longest request: set context to change it"
    return "the longest request that was asked for"


def _slots(plan: Plan) -> str:
    chosen, wished = plan.chosen, plan.wish.concurrency
    if wished is None:
        return "requests at a time that the memory was planned for: set concurrency to change it"
    if chosen.replicas > 1:
        return f"{wished} requests at a time over {chosen.replicas} engines"
    return f"{counted(wished, 'request')} at a time, as asked for"


def _cache_tokens(plan: Plan) -> str:
    chosen = plan.chosen
    slots = counted(chosen.max_num_seqs or 1, "slot")
    if chosen.kv_tokens == chosen.max_model_len:
        return f"tokens of the KV cache of {slots}: one request of full length may fill it"
    return f"tokens of the KV cache of {slots}, {chosen.max_model_len or 0:,} for each"


def _on_cards(plan: Plan) -> str:
    if plan.chosen.gpu_layers is not None:
        return "as wished: so many layers on the cards, the others in the host's memory"
    if plan.chosen.cpu_moe_layers or plan.chosen.cpu_offload_mib:
        return "all layers on the cards, but for the weights that are wished into host memory"
    return "nothing may be served from the processor unnoticed"


def _flash_attention(plan: Plan) -> str:
    if plan.chosen.strategy is Strategy.TENSOR_SPLIT:
        return "llama.cpp divides layers with flash attention only"
    return "on wherever the cards and the model can"


def _share(plan: Plan) -> str:
    if plan.wish.gpu_memory_utilization is not None:
        return "pinned: the share of every card that the engine may hold"
    if any(memory.other_mib >= TENANT_MIB for memory in plan.chosen.memory):
        return "the share of every card that is free: one fraction holds for all of them"
    return "the share of every card that the engine may hold; the rest stays free"


def _split_mode(plan: Plan) -> str:
    return {
        Strategy.LAYER_SPLIT: "whole layers go to each card, which work in turn",
        Strategy.TENSOR_SPLIT: "every layer is divided between the cards",
    }.get(plan.chosen.strategy, "one card holds everything")


def _tensor_split(plan: Plan) -> str:
    layers = plan.chosen.layers
    if plan.chosen.strategy is Strategy.TENSOR_SPLIT or layers is None:
        return "the share of every layer that each card takes"
    pinned = "as pinned" if plan.wish.layers else "so that each card holds what it has room for"
    return f"layers per card, the output layer counted on the last, {pinned}"


def _devices(plan: Plan) -> str:
    if plan.wish.devices is not None:
        return "pinned names of the runtime's own devices, in the planned order"
    if plan.backend is Backend.VULKAN and len(plan.chosen.gpus) > plan.chosen.replicas:
        return "these cards are alike, so the order in which Vulkan counts them does not matter"
    if plan.chosen.replicas > 1:
        return "the card that this process sees"
    return f"{cards(plan.chosen.gpus)} as the process numbers them, in the planned order"


def _bind(plan: Plan) -> str:
    if wanted(plan):
        return "only the endpoint reaches it"
    if plan.wish.bind.startswith("127.") or plan.wish.bind in ("localhost", "::1"):
        return "only this host reaches it: put a proxy in front, or set bind"
    return "the address to listen on, as set in the inventory"


def _port(plan: Plan) -> str:
    n = plan.chosen.replicas
    if wanted(plan):
        return f"behind the endpoint at port {address(plan)[1]}"
    return f"the first of {n} ports, one a process" if n > 1 else "the port of this service"


def _cache_type(plan: Plan) -> str:
    if plan.wish.kv_cache_dtype is None:
        return "the type of the KV cache that the memory was planned with"
    return "pinned: the type of the KV cache"


def _experts(plan: Plan) -> str:
    return "whole experts are divided between the cards instead of each expert"


def _offload(plan: Plan) -> str:
    return "as wished: so many GiB of weights per card stay in the host's memory"


NAME = "the name that clients ask for"
REASONS: Mapping[str, str | Callable[[Plan], str]] = {
    "--api-key-file": "where systemd puts the key of api_key_file for this process alone",
    "--config": "the supervisor writes the key of api_key_file there, for this process alone",
    "--alias": NAME,
    "--batch-size": "tokens that one call may hold; the memory was planned with it",
    "--cache-type-k": _cache_type,
    "--cache-type-v": _cache_type,
    "--chunked-prefill-size": "prompt tokens of one step; the memory was planned with it",
    "--context-length": _context,
    "--cpu-moe": "as wished: the experts stay in the host's memory",
    "--cpu-offload-gb": _offload,
    "--cuda-graph-max-bs": "the largest batch with a captured graph; memory was planned with it",
    "--ctx-size": _cache_tokens,
    "--device": _devices,
    "--dist-timeout": "ranks wait this long for each other, as long as loading may take",
    "--disable-custom-all-reduce": "peer access is off, and the engine's own kernel would not ask",
    "--dtype": "the type that the model computes in on these cards",
    "--enable-expert-parallel": _experts,
    "--enable-metrics": "verification and monitoring read the metrics",
    "--ep-size": _experts,
    "--fit": "the counts are planned here; llama.cpp's own fitting would fight them",
    "--flash-attn": _flash_attention,
    "--flash_attn": "off by default there, and slower and larger without",
    "--gpu-layers": _on_cards,
    "--gpu-memory-utilization": _share,
    "--host": _bind,
    "--interrupt_requests": "a new request waits, instead of ending the stream that runs",
    "--kv-cache-dtype": _cache_type,
    "--kv-unified": "slots share one cache, so that one request may use all of it",
    "--no-kv-unified": "every slot has a cache of its own, as long as the longest request",
    "--logits_all": "scores of the last token only: those of all take memory and time",
    "--main-gpu": "the card of a model that is not split",
    "--main_gpu": "the first card that this process sees, for a model that is not split",
    "--max-model-len": _context,
    "--max-num-batched-tokens": "tokens of one step; the memory was planned with it",
    "--max-num-seqs": _slots,
    "--max-running-requests": _slots,
    "--max-total-tokens": "the KV cache that was planned",
    "--mem-fraction-static": _share,
    "--metrics": "verification and monitoring read the metrics",
    "--model": "the file that was planned with",
    "--model_alias": NAME,
    "--model-path": "the model that was planned with",
    "--n-cpu-moe": "as wished: experts of so many layers stay in the host's memory",
    "--n_ctx": _context,
    "--n_gpu_layers": "none by default there: all layers go on the cards",
    "--no-ui": "an interface for programs; it needs no web page",
    "--override-tensor": "as wished: these tensors stay in the host's memory",
    "--parallel": _slots,
    "--pipeline-parallel-size": _pipeline,
    "--port": _port,
    "--pp-size": _pipeline,
    "--quantization": "the format of the weights",
    "--trust-remote-code": "asked for: the model runs code of its repository",
    "--rpc": "where the devices of other processes listen; read before --device",
    "--schedule-policy": "waiting prompts are read in the order of what the cache holds of them",
    "--served-model-name": NAME,
    "--split-mode": _split_mode,
    "--split_mode": _split_mode,
    "--tensor-parallel-size": _tensor,
    "--tensor-split": _tensor_split,
    "--tensor_split": _tensor_split,
    "--tp-size": _tensor,
    "--type_k": _cache_type,
    "--type_v": _cache_type,
    "--ubatch-size": "tokens of one step; the compute buffers were planned with it",
    "--watchdog-timeout": "a scheduler that hangs for so many seconds ends the server",
    "--use_mlock": "the weights are on the cards: nothing is locked in the host's memory",
    "--verbose": "prints the buffers of each card, which verification reads",
    "--verbosity": "prints the buffers of each card, which verification reads",
}
