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
    times `dequantized` where weights are widened to 16 bit first. `layer_us` per block and step,
    `step_us` per step, `sequence_us` per running sequence and step.
    """

    bandwidth: float
    experts: float
    cache: float
    arithmetic: float
    dequantized: float
    routed: float
    layer_us: float
    step_us: float
    sequence_us: float


@dataclass(frozen=True)
class Links:
    """Latency of one all-reduce of two cards in microseconds by class of link, and bandwidths.

    `share` is the part of a link's nominal rate that reduces reach, `staged` that without peer
    access, where every byte crosses the host's memory.
    """

    nvlink_us: float
    peer_us: float
    staged_us: float
    share: float
    staged: float
    hop_us: float


ENGINES = {
    "vllm": Engine(0.80, 0.60, 0.60, 0.60, 0.80, 0.60, 10.0, 1000.0, 20.0),
    "vllm-amd": Engine(0.60, 0.40, 0.40, 0.30, 0.70, 0.60, 20.0, 2000.0, 40.0),
    "llama.cpp": Engine(0.70, 0.50, 0.40, 0.40, 0.80, 0.40, 25.0, 300.0, 50.0),
}
LINKS = Links(10.0, 15.0, 30.0, 0.7, 0.4, 30.0)
