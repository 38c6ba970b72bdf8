"""What is wished of a service, and the workload that follows from it for one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


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


class Balance(StrEnum):
    """How an endpoint chooses between engines."""

    LEAST_CONNECTIONS = "least_connections"
    PREFIX_HASH = "prefix_hash"


@dataclass(frozen=True)
class Endpoint:
    """One address in front of the engines of a service; `multigpu.endpoint` says what it does.

    `port` and `bind` are where clients reach it, None: the service's own. `certificate` is a PEM
    file on the controller with certificate and private key. `on` is False where replicas are to be
    reached one by one.
    """

    port: int | None = None
    bind: str | None = None
    balance: Balance = Balance.LEAST_CONNECTIONS
    certificate: str | None = None
    on: bool = True


@dataclass(frozen=True)
class Wish:
    """What the operator asks of one service. Only `name` and `model` are required.

    `context` is the longest request in tokens (`--max-model-len`), `concurrency` the requests at a
    time over all engines, `input_tokens` and `output_tokens` a typical request; where they are None
    `multigpu.workload` says what is planned for. `ttft_ms` and `tpot_ms` are upper bounds of the
    time to the first token and per output token. `cpu_offload_gib` allows that many GiB of weights
    in the host's memory; without it nothing is offloaded.

    `shared_prefix_tokens` are tokens that the prompts of requests begin with alike (the system
    prompt and tools of an agent), part of `input_tokens`. `switch_runtime` lets a service that has
    been in use for less than a week go over to another runtime.

    `api_key_file` and `hf_token_file` are paths on the controller of files that hold a secret,
    never the secret itself. `revision` is a commit, tag or branch of a hub repository, `sha256`
    what a downloaded GGUF must be (one hash for each shard), and with `trust_remote_code` Python
    files of the repository are fetched and run. `stall_s` is the time without progress after which
    an engine is restarted (None: the supervisor's own).

    Pins (`None` = free): runtime, strategy, gpus (NVML indices), tensor_parallel_size,
    pipeline_parallel_size, layers (per card), gpu_memory_utilization, kv_cache_dtype (the runtime's
    own word), expert_parallel. `flags` and `env` are passed
    on after a check against the runtime's own parser. `devices` are the runtime's own device names
    in the order of the planned cards (llama.cpp: CUDA0, RPC0, Vulkan0). `endpoint` None: one where
    there are replicas. `executable` names a
    runtime that is already on the host, `wheel` a wheel on the controller to install,
    `runtime_version` a release that has a lock in templates/requirements. `backend` is
    llama.cpp's: cuda, hip, vulkan or cpu.
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
    runtime_version: str | None = None
    backend: str | None = None
    start_s: int = 600
    stall_s: int | None = None
    endpoint: Endpoint | None = None
    shared_prefix_tokens: int | None = None
    switch_runtime: bool | None = None
    api_key_file: str | None = None
    hf_token_file: str | None = None
    revision: str | None = None
    sha256: tuple[str, ...] | None = None
    trust_remote_code: bool | None = None


@dataclass(frozen=True)
class Workload:
    """What a plan is sized and timed for: the wish with defaults filled in for one model.

    `context` is the longest request, `input_tokens` and `output_tokens` a typical one, all in
    tokens; `concurrency` counts requests at a time over all engines of the service.
    `kv_cache_dtype` is the type of cached elements in the runtime's own word, None for 16 bit.
    `shared_prefix_tokens` are those of the input that all requests begin with, 0 where none is
    known.
    """

    objective: Objective
    context: int
    concurrency: int
    input_tokens: int
    output_tokens: int
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    kv_cache_dtype: str | None = None
    shared_prefix_tokens: int = 0

    @property
    def request_tokens(self) -> int:
        """Tokens of a typical request at its end."""
        return self.input_tokens + self.output_tokens
