"""What is predicted of a candidate: memory of a card in MiB, speeds with their range."""

from __future__ import annotations

from dataclasses import dataclass


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
        fixed = self.activations_mib + self.graphs_mib + self.overhead_mib
        return self.weights_mib + self.kv_cache_mib + fixed <= self.capacity_mib


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
