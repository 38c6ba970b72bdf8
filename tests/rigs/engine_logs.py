"""Start-up logs as vLLM, SGLang and llama.cpp of a given release print them; all of it simulated.

Formats: vLLM `v1/worker/gpu_worker.py`, `v1/core/kv_cache_utils.py`, `logger.py`; SGLang
`model_executor/model_runner.py`, `mem_cache/memory_pool.py`; llama.cpp `src/llama-model.cpp`,
`src/llama-context.cpp`, `src/llama-kv-cache.cpp`, `ggml-cuda.cu` and the ik_llama.cpp fork.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

VLLM = ("0.8.5.post1", "0.9.2", "0.10.2", "0.11.0", "0.13.0", "0.17.1", "0.25.1", "0.33.0")
LLAMA_CPP = ("old", "fork", "new")


@dataclass(frozen=True)
class Style:
    """How the log came here: through journald, or pasted where runs of blanks shrink to one."""

    journal: bool = False
    pasted: bool = False
    colour: bool = False


@dataclass(frozen=True)
class Rank:
    """One device: GiB for vLLM and SGLang, MiB for llama.cpp."""

    weights: float
    kv_cache: float
    graph: float
    name: str = "NVIDIA GeForce RTX 3090"


@dataclass(frozen=True)
class Start:
    """One start of an engine; `refused` is why there is no custom all-reduce.

    `host` is what llama.cpp left in host memory, in several buffers; `draft` what a draft model
    takes on each rank. `oom` ends the start with an allocation of that size.
    """

    model: str
    architecture: str
    context: int
    ranks: tuple[Rank, ...]
    kv_tokens: int
    concurrency: float
    pipeline_parallel_size: int = 1
    seconds: float = 12.5
    refused: str | None = None
    host: tuple[float, ...] = ()
    draft: Rank | None = None
    oom: float | None = None
    copies: int = 1

    @property
    def tensor_parallel_size(self) -> int:
        """Ranks of one stage."""
        return len(self.ranks) // self.pipeline_parallel_size


def finish(lines: Iterator[str] | list[str], style: Style, tool: str) -> str:
    """The lines as they arrive."""
    made = list(lines)
    if style.pasted:
        made = [" ".join(line.split()) for line in made]
    if style.journal:
        made = [f"May 15 08:57:36 simulated-host {tool}[123]: {line}" for line in made]
    return "\n".join(made) + "\n"


def vllm(start: Start, version: str, style: Style) -> str:
    """`vllm serve` from its first line to "startup complete", or to the error."""
    minor = int(version.split(".")[1])
    return finish(_vllm(start, version, minor, style), style, "vllm")


def _vllm(start: Start, version: str, minor: int, style: Style) -> Iterator[str]:
    api = _tag("APIServer", minor, style)
    core = _tag("EngineCore_DP0" if minor < 17 else "EngineCore", minor, style)
    options = f"{{'model': '{start.model}', 'tensor_parallel_size': {start.tensor_parallel_size}}}"
    if minor < 17:
        yield f"{api}INFO 01-15 22:38:00 [api_server.py:1351] vLLM API server version {version}"
    else:
        yield f"{api}INFO 08-05 12:12:24 [utils.py:345]  ▄▄ ▄█ █     █ ▀▄▀ █  version {version}"
        yield f"{api}INFO 08-05 12:12:24 [utils.py:345]   █▄█▀ █     █     █     █  model   m"
    yield f"{api}INFO 01-15 22:38:00 [utils.py:253] non-default args: {options}"
    yield f"{core}INFO 01-15 22:38:07 [core.py:93] {_engine(start, version)}"
    if len(start.ranks) > 1:
        yield from _parallel(start, minor, style)
    yield from _ranks(start, minor, style)
    if start.oom is not None:
        yield f"{core}ERROR 01-15 22:38:37 [core.py:708] EngineCore failed to start."
        yield (
            f"{core}ERROR 01-15 22:38:37 [core.py:708] torch.OutOfMemoryError: CUDA out of memory. "
            f"Tried to allocate {start.oom:.2f} GiB. GPU 0 has a total capacity of 23.53 GiB of "
            "which 1.25 GiB is free. Including non-PyTorch memory, this process has 22.1 GiB"
        )
        return
    yield from (f"{core}INFO 01-15 22:38:37 {line}" for line in _capacity(start, minor))
    yield (
        f"{core}INFO 01-15 22:38:41 [core.py:259] init engine (profile, create kv cache, warmup "
        f"model) took {start.seconds + 20:.2f} {'seconds' if minor < 20 else 's'}"
    )
    yield f"{api}INFO:     Application startup complete."
    yield f"{api}INFO 01-15 22:38:43 [loggers.py:111] Engine 000: GPU KV cache usage: 12.5%"


def _engine(start: Start, version: str) -> str:
    draft = "SpeculativeConfig(method='eagle', model='org/draft', num_spec_tokens=3)"
    return (
        f"Initializing a V1 LLM engine (v{version}) with config: model='{start.model}', "
        f"speculative_config={draft if start.draft else None}, tokenizer='{start.model}', "
        f"dtype=torch.bfloat16, max_seq_len={start.context}, "
        f"tensor_parallel_size={start.tensor_parallel_size}, "
        f"pipeline_parallel_size={start.pipeline_parallel_size}, data_parallel_size=1, "
        "disable_custom_all_reduce=False, quantization=None, kv_cache_dtype=auto, "
    )


def _tag(name: str, minor: int, style: Style) -> str:
    """Processes name themselves since 0.10, in colour on a terminal before 0.17."""
    if minor < 10:
        return ""
    tag = f"({name} pid=4711)"
    return f"\x1b[0;36m{tag}\x1b[0;0m " if style.colour and minor < 17 else f"{tag} "


def _worker(start: Start, index: int, minor: int, style: Style) -> str:
    pp, tp = divmod(index, start.tensor_parallel_size)
    if len(start.ranks) == 1:
        return _tag("EngineCore_DP0" if minor < 17 else "EngineCore", minor, style)
    if minor < 10:
        return f"(VllmWorker rank={index} pid={900 + index}) "
    stage = f"_PP{pp}" if start.pipeline_parallel_size > 1 else ""
    return _tag(f"Worker{stage}_TP{tp}", minor, style)


def _parallel(start: Start, minor: int, style: Style) -> Iterator[str]:
    size = len(start.ranks)
    for index in reversed(range(size)):
        pp, tp = divmod(index, start.tensor_parallel_size)
        yield (
            f"INFO 01-15 22:38:16 [parallel_state.py:1411] rank {index} in world size {size} is "
            f"assigned as DP rank 0, PP rank {pp}, {'PCP rank 0, ' if minor > 12 else ''}"
            f"TP rank {tp}, EP rank {tp}"
        )
    yield "INFO 01-15 22:38:15 [pynccl.py:111] vLLM is using nccl==2.27.5"
    for index in range(size):
        worker = _worker(start, index, minor, style)
        if start.refused:
            yield (
                f"{worker}WARNING 01-15 22:38:16 [custom_all_reduce.py:144] Custom allreduce is "
                f"disabled because {start.refused}. To silence this warning, specify "
                "disable_custom_all_reduce=True explicitly."
            )
        elif start.oom is None:
            yield (
                f"{worker}INFO 01-15 22:38:40 [custom_all_reduce.py:216] "
                "Registering 6630 cuda graph addresses"
            )


def told(start: Start, version: str) -> int:
    """How many ranks tell their memory: all, and from 0.13 on only rank 0."""
    return len(start.ranks) if int(version.split(".")[1]) < 13 else 1


def _ranks(start: Start, minor: int, style: Style) -> Iterator[str]:
    word = " memory" if minor >= 11 else ""
    for index, rank in list(enumerate(start.ranks))[: told(start, f"0.{minor}")]:
        at = f"{_worker(start, index, minor, style)}INFO 01-15 22:38:19 "
        yield f"{at}[cuda.py:351] Using FLASH_ATTN attention backend out of potential backends: []"
        yield (
            f"{at}[gpu_model_runner.py:3659] Model loading took {rank.weights:.4f} GiB{word} and "
            f"{start.seconds:.6f} seconds"
        )
        if start.oom is None and minor >= 10:
            yield f"{at}[gpu_worker.py:375] Available KV cache memory: {rank.kv_cache:.2f} GiB"
        if start.oom is None:
            yield (
                f"{at}[gpu_model_runner.py:4587] Graph capturing finished in 5 secs, took "
                f"{rank.graph:.2f} GiB"
            )


def _capacity(start: Start, minor: int) -> Iterator[str]:
    size = f"GPU KV cache size: {start.kv_tokens:,} tokens"
    most = f"Maximum concurrency for {start.context:,} tokens per request: {start.concurrency:.2f}x"
    if minor >= 30:
        yield f"[kv_cache_utils.py:2300] {size}, {most}"
    else:
        yield f"[kv_cache_utils.py:1291] {size}"
        yield f"[kv_cache_utils.py:1296] {most}"


def sglang(start: Start, style: Style) -> str:
    """`sglang serve`; the draft model prints the lines of the target again."""
    return finish(_sglang(start), style, "sglang")


def _sglang(start: Start) -> Iterator[str]:
    draft = "'org/draft'" if start.draft else "None"
    yield (
        f"[2026-08-01 23:37:40] server_args=ServerArgs(model_path='{start.model}', "
        f"tokenizer_path='{start.model}', context_length={start.context}, dtype='auto', "
        f"quantization=None, kv_cache_dtype='auto', mem_fraction_static=0.85, "
        f"tp_size={start.tensor_parallel_size}, pp_size={start.pipeline_parallel_size}, dp_size=1, "
        f"attention_backend='fa3', speculative_draft_model_path={draft}, "
        "disable_custom_all_reduce=False)"
    )
    for index, rank in enumerate(start.ranks):
        at = _sglang_at(start, index)
        yield f"{at} Load weight begin. avail mem=78.50 GB"
        yield _loaded(at, start.architecture, rank.weights, start.seconds)
        if start.draft:
            yield _loaded(at, "DraftForCausalLM", start.draft.weights, 1.0)
        if start.oom is None:
            yield from _sglang_pools(start, rank, at)
    if start.oom is not None:
        yield (
            f"[2026-08-01 23:40:01] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate "
            f"{start.oom:.2f} GiB. GPU 0 has a total capacity of 23.53 GiB of which 1.25 GiB is "
            "free."
        )
        yield "[2026-08-01 23:40:01] SIGQUIT received. It usually means one child failed."
        return
    yield (
        f"[2026-08-01 23:43:42] max_total_num_tokens={start.kv_tokens}, chunked_prefill_size=8192, "
        f"max_running_requests=48, context_len={start.context}, available_gpu_mem=6.22 GB"
    )
    yield "[2026-08-01 23:43:47] The server is fired up and ready to roll!"
    yield "[2026-08-01 23:50:47] SIGTERM received. Draining requests and shutting down..."
    yield "[2026-08-01 23:50:48] SIGQUIT received. It usually means one child failed."


def _sglang_at(start: Start, index: int) -> str:
    pp, tp = divmod(index, start.tensor_parallel_size)
    stage = f" PP{pp}" if start.pipeline_parallel_size > 1 else ""
    label = f"{stage} TP{tp}" if len(start.ranks) > 1 else ""
    return f"[2026-08-01 23:37:50{label}]"


def _loaded(at: str, architecture: str, gib: float, seconds: float) -> str:
    return (
        f"{at} Load weight end. elapsed={seconds:.2f} s, type={architecture}, avail mem=47.80 GB, "
        f"mem usage={gib:.2f} GB."
    )


def _sglang_pools(start: Start, rank: Rank, at: str) -> Iterator[str]:
    pools = [(rank, start.kv_tokens)] + ([(start.draft, start.kv_tokens)] if start.draft else [])
    for owner, tokens in pools:
        half = f"{owner.kv_cache / 2:.2f} GB"
        yield (
            f"{at} KV Cache is allocated. dtype: torch.bfloat16, #tokens: {tokens}, "
            f"K size: {half}, V size: {half}"
        )
        yield f"{at} Memory pool end. avail mem=17.73 GB"
    yield (
        f"{at} Capture target decode CUDA graph end. elapsed=3.00 s, "
        f"mem usage={rank.graph:.2f} GB, avail mem=6.67 GB."
    )


def llama_cpp(start: Start, release: str, style: Style) -> str:
    """llama-server: `old` is build 2824, `fork` ik_llama.cpp, `new` 0.5.0 with --verbosity 4."""
    return finish(_llama_cpp(start, release), style, "llama-server")


def _llama_cpp(start: Start, release: str) -> Iterator[str]:
    new, layers = release == "new", 32
    tensors = "load_tensors" if new else "llm_load_tensors"
    yield f"ggml_cuda_init: found {len(start.ranks)} CUDA devices:"
    for index, rank in enumerate(start.ranks):
        vram = ", VRAM: 24124 MiB" if new else ""
        yield f"  Device {index}: {rank.name}, compute capability 8.6, VMM: yes{vram}"
    yield (
        "llama_model_loader: loaded meta data with 21 key-value pairs and 291 tensors from "
        f"{start.model} (version GGUF V3 (latest))"
    )
    yield from print_meta(start.architecture, layers, new)
    yield f"{tensors}: offloaded {layers + 1}/{layers + 1} layers to GPU"
    word = "model buffer" if new else "buffer"
    for size in start.host:
        yield f"{tensors}: {'CPU':>12} {word} size = {size:8.2f} MiB"
    for index, rank in enumerate(start.ranks):
        yield f"{tensors}: {f'CUDA{index}':>12} {word} size = {rank.weights:8.2f} MiB"
    yield from _llama_context(start, new)
    if start.oom is not None:
        yield (
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating "
            f"{start.oom:.2f} MiB on device 0: cudaMalloc failed: out of memory"
        )
        size = round(start.oom * 1024**2)
        yield f"ggml_gallocr_reserve_n: failed to allocate CUDA0 buffer of size {size}"
        yield f"error: failed to create context with model '{start.model}'"
        return
    yield from _llama_compute(start, new)
    if new:
        yield "srv  main: server is listening on http://127.0.0.1:8080"
    else:
        yield "INFO [                    main] HTTP server listening | port=8080"


def _llama_context(start: Start, new: bool) -> Iterator[str]:
    context = "llama_context" if new else "llama_new_context_with_model"
    cache = "llama_kv_cache" if new else "llama_kv_cache_init"
    yield f"{context}: n_ctx      = {start.context}"
    yield f"{context}: n_batch    = 2048"
    yield f"{context}: n_ubatch   = 512"
    yield f"{context}: flash_attn = {'enabled' if new else 1}"
    for index, rank in enumerate(start.ranks):
        yield f"{cache}: {f'CUDA{index}':>10} KV buffer size = {rank.kv_cache:8.2f} MiB"
    total = sum(rank.kv_cache for rank in start.ranks)
    halves = f"K (q8_0): {total / 2:7.2f} MiB, V (q8_0): {total / 2:7.2f} MiB"
    cells = f"({start.kv_tokens:6d} cells,  32 layers,  1/1 seqs)"
    label = f"llama_kv_cache: size = {total:7.2f} MiB {cells}"
    yield f"{label}, {halves}" if new else f"{context}: KV self size  = {total:7.2f} MiB, {halves}"
    if not new:
        yield f"{context}: pipeline parallelism enabled (n_copies={start.copies})"


def _llama_compute(start: Start, new: bool) -> Iterator[str]:
    at = "sched_reserve" if new else "llama_new_context_with_model"
    for index, rank in enumerate(start.ranks):
        yield f"{at}: {f'CUDA{index}':>10} compute buffer size = {rank.graph:8.2f} MiB"
    if new:
        yield f"sched_reserve: reserve took 51.05 ms, sched copies = {start.copies}"


def print_meta(architecture: str, layers: int, new: bool) -> Iterator[str]:
    """The block of llama.cpp about a model of 235.094 B parameters and 106.83 GiB."""
    at = "print_info" if new else "llm_load_print_meta"
    params = "235.09 B" if new else "235.094 B"
    size = (
        f"{at}: file size   = 106.83 GiB (3.90 BPW) "
        if new
        else f"{at}: model size       = 106.830 GiB (3.903 BPW) "
    )
    heads = "[4, 4, 0, 4]" if new else "4"
    yield f"{at}: arch             = {architecture}"
    yield f"{at}: n_ctx_train      = 40960"
    yield f"{at}: n_layer          = {layers}"
    yield f"{at}: n_head           = 64"
    yield f"{at}: n_head_kv        = {heads}"
    yield f"{at}: n_expert         = 0"
    yield f"{at}: model type       = ?B"
    yield f"{at}: model params     = {params}"
    yield size
    yield f"{at}: general.name     = Simulated model"


def config_json(sizes: dict[str, object], nested: bool, spelling: str) -> str:
    """A config.json; `nested` puts the text model under text_config, `spelling` names the dtype."""
    text = {**sizes, spelling: "bfloat16"}
    outer = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    whole = {**outer, "text_config": text, "vision_config": {"hidden_size": 7}}
    return json.dumps(whole if nested else {**outer, **text}, indent=2)
