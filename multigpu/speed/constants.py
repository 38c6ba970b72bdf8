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
    llama.cpp: int8) and `routed` where experts split them. `layer_us` per block and step,
    `routing_us` more where a block routes, `step_us` per step, `sequence_us` per running sequence
    and step.
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
    `staged_us` (through the host's memory) are per further rank. `nvlink`, `peer` and `staged` are
    the part of a link's nominal rate that reduces reach. `hop_us` is one border between pipeline
    stages, `bubble` the share of a step that is lost with each of them while all are busy.
    """

    nvlink_us: float
    peer_us: float
    staged_us: float
    nvlink: float
    peer: float
    staged: float
    hop_us: float
    bubble: float


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


# Fitted to 142 published measurements of 20 rigs (vLLM 0.11 to 0.26 on compute capability 8.0 to
# 12.0 and gfx1201: 97 rows, SGLang as vLLM: 8, llama.cpp: 22); TensorRT-LLM's 15 were kept out.
VLLM = Engine(0.863, 0.97, 0.532, 0.635, 0.794, 0.748, 11.1, 49.2, 1050.0, 25.8)
LLAMA_CPP = Engine(0.913, 0.72, 0.755, 0.542, 0.355, 0.531, 34.7, 47.7, 286.0, 49.6)
# One rig (2x Radeon AI PRO R9700, vLLM 0.11 to 0.19): 32 rows.
ROCM = Slower(0.788, 0.514, 3.06)
LINKS = Links(8.05, 15.9, 20.9, 0.654, 0.299, 0.293, 29.7, 0.0718)
ENGINES = {"vllm": VLLM, "llama.cpp": LLAMA_CPP, "vllm-amd": ROCM.engine(VLLM)}


@dataclass(frozen=True)
class Spread:
    """Measured over predicted for the middle 80 % of rows whose rig the fit had not seen."""

    low: float
    high: float


# Of 73, 32 and 22 rows; `benchmarks.calibrate` prints them.
DECODE = {
    "vllm": Spread(0.77, 1.25),
    "vllm-amd": Spread(0.75, 1.35),
    "llama.cpp": Spread(0.78, 1.25),
}
# llama-bench prompts of 17 rows; vLLM's prefill is seen through the time to the first token alone,
# which scatters with how a benchmark lets requests arrive (48 rows).
PREFILL = {
    "vllm": Spread(0.6, 1.6),
    "vllm-amd": Spread(0.5, 1.8),
    "llama.cpp": Spread(0.76, 1.3),
}
TTFT = Spread(0.5, 3.0)
# Cards, runtimes and ways without a row: low and high are this much further away.
EXTRAPOLATED = 1.5
CALIBRATED = frozenset({(8, 0), (8, 6), (8, 9), (9, 0), (12, 0)})
CALIBRATED_GFX = frozenset({"gfx1201"})
