"""What is wished, what is possible, what was chosen and what lost: the values of planning.

Hugging Face configuration names are kept for models, vLLM flag names for parallel sizes. Memory is
in MiB per GPU. Every decision carries its `Reason`s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


class Strategy(StrEnum):
    """How one service uses the cards of one host."""

    SINGLE = "single"
    REPLICAS = "replicas"
    TENSOR_PARALLEL = "tensor-parallel"
    PIPELINE_PARALLEL = "pipeline-parallel"
    LAYER_SPLIT = "layer-split"


class Objective(StrEnum):
    """The workload a plan is made for; there is no right split without one."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"
    CONTEXT = "context"


class Source(StrEnum):
    """Where the model's files lie."""

    HUB = "hub"
    HOST = "host"
    CONTROLLER = "controller"


@dataclass(frozen=True)
class LayerCache:
    """What one transformer block keeps per token or per sequence.

    `kind`: full | sliding | mla | state | none. For full and sliding, one token takes
    `2 * num_key_value_heads * head_dim` elements; for mla `elements` (kv_lora_rank +
    qk_rope_head_dim, not divided by tensor parallel); for state `elements` per sequence.
    `element_bytes` is None where the cache has the type of the KV cache (2 unless it is quantized).
    """

    kind: str = "full"
    num_key_value_heads: int = 0
    head_dim: int = 0
    window: int | None = None
    elements: int = 0
    element_bytes: int | None = None


@dataclass(frozen=True)
class ModelSpec:
    """Facts of one model, from config.json or a GGUF header.

    `layers_mib` holds the weights of each block in order; `embedding_mib` the input embedding,
    `output_mib` the final norm and lm_head (0 when tied). Their sum is `weights_mib`.
    """

    name: str
    source: Source
    path: str
    format: str
    model_type: str
    quantization: str | None
    dtype: str
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    hidden_size: int
    intermediate_size: int | None
    vocab_size: int
    max_position_embeddings: int | None
    layers: tuple[LayerCache, ...]
    layers_mib: tuple[float, ...]
    embedding_mib: float
    output_mib: float
    num_experts: int | None = None
    num_experts_per_tok: int | None = None
    moe_intermediate_size: int | None = None
    group_size: int | None = None
    tie_word_embeddings: bool = False
    revision: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None

    @property
    def weights_mib(self) -> float:
        """All weights, in MiB."""
        return sum(self.layers_mib) + self.embedding_mib + self.output_mib


@dataclass(frozen=True)
class Wish:
    """What the operator asks of one service. Only `name` and `model` are required.

    Pins (`None` = free): runtime, strategy, gpus (NVML indices), tensor_parallel_size,
    pipeline_parallel_size, layers (per card), gpu_memory_utilization. `flags` and `env` are passed
    on after a check against the runtime's own parser. `devices` are the runtime's own device names
    in the order of the planned cards (llama.cpp: CUDA0, RPC0, Vulkan0). `executable` names a
    runtime that is already on the host, `wheel` a wheel on the controller to install.
    """

    name: str
    model: str
    objective: Objective = Objective.LATENCY
    context: int = 8192
    concurrency: int = 4
    runtime: str | None = None
    strategy: Strategy | None = None
    gpus: tuple[int, ...] | None = None
    tensor_parallel_size: int | None = None
    pipeline_parallel_size: int | None = None
    layers: tuple[int, ...] | None = None
    gpu_memory_utilization: float | None = None
    port: int = 8000
    bind: str = "127.0.0.1"
    served_model_name: str | None = None
    devices: tuple[str, ...] | None = None
    flags: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    executable: str | None = None
    wheel: str | None = None
    start_s: int = 600


@dataclass(frozen=True)
class Memory:
    """Predicted use of one GPU, in MiB. `capacity_mib` is what the runtime may use of the card."""

    weights_mib: float
    kv_cache_mib: float
    activations_mib: float
    overhead_mib: float
    capacity_mib: float

    @property
    def total_mib(self) -> float:
        """Everything the runtime will hold on this card."""
        return self.weights_mib + self.kv_cache_mib + self.activations_mib + self.overhead_mib

    @property
    def fits(self) -> bool:
        """True when the sum stays within the capacity."""
        return self.total_mib <= self.capacity_mib


@dataclass(frozen=True)
class Reason:
    """One rule that spoke. `rule` is a stable kebab-case id; `hint` says what to do."""

    rule: str
    found: str
    needed: str | None = None
    hint: str | None = None


@dataclass(frozen=True)
class Candidate:
    """One way to serve. `gpus` are NVML indices in device order; `layers`, `memory` align with it.

    `layers` counts blocks per pipeline stage (vLLM) or llama.cpp units per card (the output layer
    counted on the last card), None when the strategy does not split by layer. `kv_tokens` is the
    predicted capacity of one engine's KV cache. `gpu_memory_utilization` is vLLM's one fraction for
    all cards, None where the runtime has no such setting.
    """

    runtime: str
    strategy: Strategy
    gpus: tuple[int, ...]
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    replicas: int = 1
    layers: tuple[int, ...] | None = None
    memory: tuple[Memory, ...] = ()
    kv_tokens: int | None = None
    gpu_memory_utilization: float | None = None


@dataclass(frozen=True)
class Rejected:
    """A candidate that lost, with every reason."""

    candidate: Candidate
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Setting:
    """One environment variable and why it is set; the reason becomes a comment in the file."""

    name: str
    value: str
    why: str


@dataclass(frozen=True)
class Plan:
    """What `serve` applies to one host for one service, and why.

    `gpu_uuids` align with `chosen.gpus`. `pinned` names the wish keys that the operator fixed.
    """

    host: str
    wish: Wish
    model: ModelSpec
    chosen: Candidate
    gpu_uuids: tuple[str | None, ...]
    reasons: tuple[Reason, ...]
    rejected: tuple[Rejected, ...]
    warnings: tuple[Reason, ...]
    environment: tuple[Setting, ...]
    pinned: tuple[str, ...] = ()
    simulated: bool = False


@dataclass(frozen=True)
class Service:
    """One process to run: one per replica, else one.

    `argv[0]` is the runtime's executable; `gpus` the NVML indices it must feed, in device order.
    """

    name: str
    argv: tuple[str, ...]
    environment: tuple[Setting, ...]
    port: int
    health_path: str
    gpus: tuple[int, ...]


@dataclass(frozen=True)
class Check:
    """One line of a verification. When `ok` is False, `hint` says what to do."""

    name: str
    ok: bool
    found: str
    expected: str
    hint: str | None = None
