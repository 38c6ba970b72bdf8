"""What is possible, what was chosen and what lost: the values of planning.

vLLM flag names are kept for parallel sizes. Every decision carries its `Reason`s. Values of models,
wishes and predictions have rooms of their own and are given on here.
"""

from __future__ import annotations

from dataclasses import dataclass

from multigpu.backend import Backend
from multigpu.model_spec import LayerCache, ModelFile, ModelSpec, Source
from multigpu.predicted import Estimate, Memory, Prediction
from multigpu.progress import UNKNOWN, Progress
from multigpu.wish_values import Objective, Strategy, Wish, Workload

__all__ = [
    "Candidate",
    "Check",
    "Credential",
    "Estimate",
    "Justification",
    "LayerCache",
    "Memory",
    "ModelFile",
    "ModelSize",
    "ModelSpec",
    "Objective",
    "Plan",
    "Prediction",
    "Progress",
    "Reason",
    "Rejected",
    "Service",
    "Setting",
    "Source",
    "Strategy",
    "Wish",
    "Workload",
]


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


USUAL = Workload(Objective.LATENCY, 8192, 1, 1024, 256)


@dataclass(frozen=True)
class Plan:
    """What `serve` applies to one host for one service, and why.

    `gpu_uuids` and `gpu_names` (`NVIDIA GeForce RTX 3090`; empty where nobody filled them in) align
    with `chosen.gpus`. `pinned` names the wish keys that the operator fixed.
    `backend` is what the processes reach the cards by, whatever the runtime (`hip` is ROCm).
    `gpu_addresses` are PCI addresses that align with `chosen.gpus`, where a process may open the
    device files of its own cards only.
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
    workload: Workload = USUAL
    assumptions: tuple[str, ...] = ()
    justification: Justification | None = None
    gpu_names: tuple[str | None, ...] = ()
    backend: Backend = Backend.CUDA
    gpu_addresses: tuple[str, ...] = ()

    def explain(self) -> str:
        """The page of this plan, plain text of at most 80 columns."""
        from multigpu.explain import explain

        return explain(self)


@dataclass(frozen=True)
class Credential:
    """A secret that a process gets by LoadCredential=. `source_path` is its file on the controller.

    The supervisor hands it to the engine as the environment variable `variable`, or as `config_key`
    of a configuration file; where both are None the command line names its path.
    """

    name: str
    source_path: str
    variable: str | None = None
    config_key: str | None = None


@dataclass(frozen=True)
class Service:
    """One process to run: one per replica, else one.

    `argv[0]` is the runtime's executable; `gpus` the NVML indices it must feed, in device order;
    `progress` says which of its metrics show that it works, `credentials` the secrets it gets.
    """

    name: str
    argv: tuple[str, ...]
    environment: tuple[Setting, ...]
    port: int
    health_path: str
    gpus: tuple[int, ...]
    progress: Progress = UNKNOWN
    credentials: tuple[Credential, ...] = ()


@dataclass(frozen=True)
class Check:
    """One line of a verification. When `ok` is False, `hint` says what to do."""

    name: str
    ok: bool
    found: str
    expected: str
    hint: str | None = None
