"""What an inference engine said while it started: one value for vLLM, SGLang and llama.cpp.

All memory is in MiB, as in the plan: vLLM prints GiB, and what SGLang calls GB is GiB too
(`free_gpu_memory / (1 << 30)`, `GB = 1024**3` in its memory pools), so the printed number times
1024 is the value here, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

from multigpu.parse.engines.gguf_metadata import GgufMetadata


@dataclass(frozen=True)
class EngineDevice:
    """What one device or rank holds.

    `device` is llama.cpp's own name (CUDA0, ROCm0, CPU, CUDA_Host, `RPC0[host:port]`), else the
    rank: `TP1`, `PP1 TP0`, `DP1 TP0` (a zero is left out, TP's never), or `pid 180` for a worker
    that printed nothing else. `weights_mib` is what loading took, `compute_mib` llama.cpp's compute
    buffer, `cuda_graph_mib` may be negative (a difference that vLLM measured). A draft model is
    counted apart. `layers` are those that llama.cpp put on the device. `unified_memory` is what
    Vulkan says: True for integrated graphics, which no plan counts on.
    """

    device: str
    name: str | None = None
    pci_bus_id: str | None = None
    compute_capability: tuple[int, int] | None = None
    gfx: str | None = None
    total_mib: float | None = None
    free_mib: float | None = None
    weights_mib: float | None = None
    kv_cache_mib: float | None = None
    state_cache_mib: float | None = None
    compute_mib: float | None = None
    output_mib: float | None = None
    activation_mib: float | None = None
    cuda_graph_mib: float | None = None
    draft_weights_mib: float | None = None
    draft_kv_cache_mib: float | None = None
    layers: int | None = None
    unified_memory: bool | None = None

    @property
    def host(self) -> bool:
        """True for memory of the host (CPU, CPU_Mapped, CUDA_Host), False for a card's."""
        return self.device.startswith("CPU") or self.device.endswith("_Host")


@dataclass(frozen=True)
class KvPool:
    """One "KV Cache is allocated" of SGLang: full and sliding-window pools, or the draft's."""

    device: str
    tokens: int | None = None
    k_mib: float | None = None
    v_mib: float | None = None
    kv_mib: float | None = None
    dtype: str | None = None
    draft: bool = False

    @property
    def mib(self) -> float | None:
        """Keys and values together."""
        parts = [part for part in (self.k_mib, self.v_mib, self.kv_mib) if part is not None]
        return sum(parts) if parts else None


@dataclass(frozen=True)
class EngineError:
    """Something that went wrong, once, however many ranks said it.

    `kind` is oom, kv-cache (no room for the KV cache), memory (not enough free before the start),
    worker (a process died), collective (NCCL and its watchdog), abort, load, traceback (its last
    line). `device_index` is the engine's own index.
    """

    kind: str
    text: str
    requested_mib: float | None = None
    device_index: int | None = None
    free_mib: float | None = None
    total_mib: float | None = None


@dataclass(frozen=True)
class LlamaCppFacts:
    """What only llama.cpp says. `layers_total` counts the output layer as one.

    `n_copies` multiplies the compute buffers; `fit_failed` is why `-fit` gave up, a warning.
    """

    layers_offloaded: int | None = None
    layers_total: int | None = None
    n_copies: int | None = None
    pipeline_parallel: bool | None = None
    tensor_split: tuple[float, ...] | None = None
    flash_attn: str | None = None
    n_ctx_seq: int | None = None
    n_batch: int | None = None
    n_ubatch: int | None = None
    n_seq_max: int | None = None
    kv_self_mib: float | None = None
    fit_failed: str | None = None
    metadata: GgufMetadata | None = None


@dataclass(frozen=True)
class EngineLog:
    """A start-up log. `engine` is vllm, sglang or llama.cpp.

    `max_model_len` is the context (llama.cpp: n_ctx, shared by the slots). `kv_tokens` is what the
    engine's KV cache holds in all, `max_concurrency` how many requests of `concurrency_context`
    tokens; with several engines in one log it is the smallest. `custom_all_reduce` is False with a
    reason, which is normal above two PCIe cards. `dtype` and `kv_cache_dtype` may be "auto".
    `ready` is True when the engine said that it serves, False when it gave up before, None when the
    log ends before either.
    """

    engine: str
    version: str | None = None
    model: str | None = None
    architecture: str | None = None
    draft_model: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    tensor_parallel_size: int | None = None
    pipeline_parallel_size: int | None = None
    data_parallel_size: int | None = None
    world_size: int | None = None
    gpu_memory_utilization: float | None = None
    devices: tuple[EngineDevice, ...] = ()
    kv_tokens: int | None = None
    kv_blocks: int | None = None
    kv_pools: tuple[KvPool, ...] = ()
    concurrency_context: int | None = None
    max_concurrency: float | None = None
    estimated_max_model_len: int | None = None
    load_seconds: float | None = None
    init_seconds: float | None = None
    custom_all_reduce: bool | None = None
    custom_all_reduce_reason: str | None = None
    nccl_version: str | None = None
    attention_backend: str | None = None
    errors: tuple[EngineError, ...] = ()
    ready: bool | None = None
    llama_cpp: LlamaCppFacts | None = None

    def device(self, name: str) -> EngineDevice | None:
        """The device or rank of that name."""
        return next((device for device in self.devices if device.device == name), None)
