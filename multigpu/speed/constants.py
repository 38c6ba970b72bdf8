"""What was calibrated: shares of the data sheet that engines reach, overheads, latencies.

`python -m benchmarks.calibrate` fits `ENGINES` and `LINKS` and prints them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Engine:
    """One runtime. Shares are of the data sheet's figure.

    `bandwidth` while a decode step reads weights, `experts` while it reads routed experts,
    `cache` while it reads cached keys and values; `arithmetic` in matrix products of many tokens,
    times `dequantized` where weights are not stored in the type that is multiplied (vLLM: 16 bit,
    llama.cpp: int8) and `routed` where experts split them. `layer_us` per block and step, `routing_us` more where a block routes, `step_us` per step,
    `sequence_us` per running sequence and step.
    """

    bandwidth: float
    experts: float
    cache: float
    arithmetic: float
    dequantized: float
    routed: float
    layer_us: float
    routing_us: float
    step_us: float
    sequence_us: float


@dataclass(frozen=True)
class Links:
    """Latency of one all-reduce in microseconds by class of link, and what of the rate is reached.

    `nvlink_us` grows with the logarithm of the ranks, `peer_us` (PCIe with peer access) and
    `staged_us` (through the host's memory) are per further rank. `share` is the part of a link's
    nominal rate that reduces reach, `staged` that without peer access. `hop_us` is one border
    between pipeline stages.
    """

    nvlink_us: float
    peer_us: float
    staged_us: float
    share: float
    staged: float
    hop_us: float


@dataclass(frozen=True)
class Slower:
    """A vendor's stack against NVIDIA's on the same data sheet: shares and overheads times this."""

    memory: float
    arithmetic: float
    overhead: float

    def engine(self, of: Engine) -> Engine:
        """That engine on this stack."""
        return Engine(
            of.bandwidth * self.memory,
            of.experts * self.memory,
            of.cache * self.memory,
            of.arithmetic * self.arithmetic,
            of.dequantized,
            of.routed,
            of.layer_us * self.overhead,
            of.routing_us * self.overhead,
            of.step_us * self.overhead,
            of.sequence_us * self.overhead,
        )


VLLM = Engine(0.8, 0.6, 0.6, 0.6, 0.8, 0.6, 10.0, 40.0, 1000.0, 20.0)
LLAMA_CPP = Engine(0.8, 0.6, 0.8, 0.55, 0.36, 0.5, 30.0, 40.0, 300.0, 50.0)
ROCM = Slower(0.7, 0.5, 2.0)
LINKS = Links(10.0, 15.0, 30.0, 0.7, 0.4, 30.0)
ENGINES = {"vllm": VLLM, "llama.cpp": LLAMA_CPP, "vllm-amd": ROCM.engine(VLLM)}
