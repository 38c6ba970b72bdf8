"""What is wished, what is possible, what was chosen and what lost: the values of planning.

Hugging Face configuration names are kept for models, vLLM flag names for parallel sizes. Memory is
in MiB per GPU. Every decision carries its `Reason`s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from multigpu.gguf_facts import GgufFacts


class Strategy(StrEnum):
    """How one service uses the cards of one host."""

    SINGLE = "single"
    REPLICAS = "replicas"
    TENSOR_PARALLEL = "tensor_parallel"
    PIPELINE_PARALLEL = "pipeline_parallel"
    TENSOR_PIPELINE_PARALLEL = "tensor_pipeline_parallel"
    LAYER_SPLIT = "layer_split"
    TENSOR_SPLIT = "tensor_split"


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
    `sequence_bytes` is kept once per sequence beside what grows with its tokens: the state of a
    layer that runs a recurrence and attention (Falcon-H1, Zamba2; divided by tensor parallel), the
    window and compressor of DeepSeek V4 (kind mla; not divided).
    """

    kind: str = "full"
    num_key_value_heads: int = 0
    head_dim: int = 0
    window: int | None = None
    elements: int = 0
    element_bytes: int | None = None
    sequence_bytes: int = 0


@dataclass(frozen=True)
class ModelSpec:
    """Facts of one model, from config.json or a GGUF header.

    `layers_mib` holds the weights of each block in order; `embedding_mib` the input embedding,
    `output_mib` the final norm and lm_head (0 when tied), `vision_mib` towers and projectors of
    other modalities. Their sum is `weights_mib`. `draft_mib` (layers of multi-token prediction,
    loaded for speculative decoding only) is not part of it. Of each block, `experts_mib` is what
    its routed experts take and `replicated_mib` what every tensor parallel rank keeps whole (norms,
    routers, latent projections of MLA); both are parts of `layers_mib`, empty where unknown.
    `num_parameters` counts what `weights_mib` holds. `weights_exact` says that sizes come from
    tensor headers or file sizes and not from shapes; `lower_bound` names what is known to be
    missing from the counts, one phrase each. `active_parameters` are those that one token is
    multiplied with (routed experts by their share, the output matrix, no input embedding).
    `kv_cache_dtype` is the type the checkpoint asks for (fp8, nvfp4), None where it says nothing.
    `gguf` is what llama.cpp's buffers depend on, None for what is no GGUF.
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
    experts_mib: tuple[float, ...] = ()
    replicated_mib: tuple[float, ...] = ()
    vision_mib: float = 0.0
    draft_mib: float = 0.0
    num_parameters: int | None = None
    num_experts: int | None = None
    num_experts_per_tok: int | None = None
    moe_intermediate_size: int | None = None
    group_size: int | None = None
    tie_word_embeddings: bool = False
    revision: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    weights_exact: bool = False
    lower_bound: tuple[str, ...] = ()
    gguf: GgufFacts | None = None
    active_parameters: int | None = None
    kv_cache_dtype: str | None = None

    @property
    def weights_mib(self) -> float:
        """All weights that serving loads, in MiB."""
        return sum(self.layers_mib) + self.embedding_mib + self.output_mib + self.vision_mib


@dataclass(frozen=True)
class Wish:
    """What the operator asks of one service. Only `name` and `model` are required.

    `context` is the longest request in tokens (`--max-model-len`), `concurrency` the requests at a
    time over all engines, `input_tokens` and `output_tokens` a typical request; where they are None
    `multigpu.workload` says what is planned for. `ttft_ms` and `tpot_ms` are upper bounds of the
    time to the first token and per output token. `cpu_offload_gib` allows that many GiB of weights
    in the host's memory; without it nothing is offloaded.

    Pins (`None` = free): runtime, strategy, gpus (NVML indices), tensor_parallel_size,
    pipeline_parallel_size, layers (per card), gpu_memory_utilization, kv_cache_dtype (the runtime's
    own word), expert_parallel. `flags` and `env` are passed
    on after a check against the runtime's own parser. `devices` are the runtime's own device names
    in the order of the planned cards (llama.cpp: CUDA0, RPC0, Vulkan0). `executable` names a
    runtime that is already on the host, `wheel` a wheel on the controller to install.
    """

    name: str
    model: str
    objective: Objective = Objective.LATENCY
    context: int | None = None
    concurrency: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    runtime: str | None = None
    strategy: Strategy | None = None
    gpus: tuple[int, ...] | None = None
    tensor_parallel_size: int | None = None
    pipeline_parallel_size: int | None = None
    layers: tuple[int, ...] | None = None
    gpu_memory_utilization: float | None = None
    kv_cache_dtype: str | None = None
    expert_parallel: bool | None = None
    cpu_offload_gib: float | None = None
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
class Workload:
    """What a plan is sized and timed for: the wish with defaults filled in for one model.

    `context` is the longest request, `input_tokens` and `output_tokens` a typical one, all in
    tokens; `concurrency` counts requests at a time over all engines of the service.
    `kv_cache_dtype` is the type of cached elements in the runtime's own word, None for 16 bit.
    """

    objective: Objective
    context: int
    concurrency: int
    input_tokens: int
    output_tokens: int
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    kv_cache_dtype: str | None = None

    @property
    def request_tokens(self) -> int:
        """Tokens of a typical request at its end."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True)
class Memory:
    """Predicted use of one GPU, in MiB. `capacity_mib` is what the runtime may use of the card.

    `activations_mib` is the peak of a step (llama.cpp: compute buffer), `graphs_mib` captured CUDA
    graphs, `overhead_mib` context and communicator. `other_mib` is what other programs (a desktop)
    hold already; it is outside of `capacity_mib`.
    """

    weights_mib: float
    kv_cache_mib: float
    activations_mib: float
    overhead_mib: float
    capacity_mib: float
    graphs_mib: float = 0.0
    other_mib: float = 0.0

    @property
    def total_mib(self) -> float:
        """Everything the runtime will hold on this card."""
        fixed = self.activations_mib + self.graphs_mib + self.overhead_mib
        return self.weights_mib + self.kv_cache_mib + fixed

    @property
    def fits(self) -> bool:
        """True when the sum stays within the capacity."""
        return self.total_mib <= self.capacity_mib


@dataclass(frozen=True)
class Estimate:
    """A number with the range that it is expected in; a measured one has its own spread."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Prediction:
    """Speed of the whole service under its workload; None is unknown, with the reason in `unknown`.

    `decode_tokens_per_s` counts output tokens of all requests and engines, `prefill_tokens_per_s`
    prompt tokens of all engines while they do nothing else; `tpot_ms` and `ttft_ms` are those of
    one request. `running` is how many requests of the workload run at a time, the others wait.
    `basis` says what the numbers rest on; `measured` is True when they were measured on this rig.
    """

    decode_tokens_per_s: Estimate | None = None
    prefill_tokens_per_s: Estimate | None = None
    ttft_ms: Estimate | None = None
    tpot_ms: Estimate | None = None
    running: int | None = None
    basis: str = ""
    measured: bool = False
    unknown: tuple[str, ...] = ()


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
    predicted capacity of one engine's KV cache and `kv_sequences` how many requests of
    `max_model_len` tokens that is (hybrid models keep state per request). `max_model_len` is the
    context it is started with, `context_limit` the largest that would fit, `max_num_seqs` the
    requests one engine runs at a time, `max_num_batched_tokens` the tokens of one step where the
    runtime's own default leaves no room (None: the default holds). `gpu_memory_utilization` is
    vLLM's one fraction for all cards (SGLang: mem-fraction-static), None where the runtime has no
    such setting. `cpu_offload_mib` are weights in the host's memory, over all ranks: llama.cpp's
    are the experts of the first `cpu_moe_layers` blocks, or all units but the last `gpu_layers`
    (None: all are on the cards). `predicted` is the speed under the workload, None before it was
    asked for.
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
    kv_sequences: int | None = None
    max_model_len: int | None = None
    context_limit: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    expert_parallel: bool = False
    cpu_offload_mib: float = 0.0
    cpu_moe_layers: int = 0
    gpu_layers: int | None = None
    predicted: Prediction | None = None


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
class ModelSize:
    """The largest model that cards could carry with so many bits per weight, in 1e9 parameters.

    `billions` is for one engine over all cards, `per_card_billions` for one copy on every card.
    """

    bits: int
    billions: float
    per_card_billions: float


@dataclass(frozen=True)
class Justification:
    """Does the model justify the cards beyond the first?

    `verdict`: needed (no single card holds the wish), worth-it (the objective gains at least a
    tenth), not-worth-it, or unknown (no speed was predicted). `gpus` counts the cards that the plan
    uses, `usable` those of the host. The comparison is of `label`, the plan's own way or, where it
    stays on one card, the best way over several, with `one_card`, the best way on one; each ratio
    is the first over the second, above 1 in favour of several cards, None where unknown:
    `throughput_ratio` of output tokens per second at `concurrency` requests, `latency_ratio` how
    many times shorter a request takes, `context_ratio` of the longest request that fits. `sizes`
    says what all usable cards could carry instead. `sentences` say it all, the verdict first.
    """

    verdict: str
    gpus: int
    usable: int
    concurrency: int
    label: str | None = None
    one_card: str | None = None
    throughput_ratio: float | None = None
    latency_ratio: float | None = None
    context_ratio: float | None = None
    sizes: tuple[ModelSize, ...] = ()
    sentences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What `serve` applies to one host for one service, and why.

    `gpu_uuids` and `gpu_names` (`NVIDIA GeForce RTX 3090`; empty where nobody filled them in) align
    with `chosen.gpus`. `pinned` names the wish keys that the operator fixed.
    `assumptions` are sentences that the numbers rest on. `justification` compares with one card, on
    hosts with two or more.
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
    workload: Workload = Workload(Objective.LATENCY, 8192, 1, 1024, 256)
    assumptions: tuple[str, ...] = ()
    justification: Justification | None = None
    gpu_names: tuple[str | None, ...] = ()

    def explain(self) -> str:
        """The page of this plan, plain text of at most 80 columns."""
        from multigpu.explain import explain

        return explain(self)


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
