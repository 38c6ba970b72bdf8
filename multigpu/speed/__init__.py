"""How fast a candidate will be: prefill and decode of the whole service under a workload.

`predict` is the only door. Where a number has no basis it is None, with the reason in `unknown`.
The model is physics with calibrated shares (`constants.py`): bytes over bandwidth, operations over
arithmetic, all-reduces over links (`steps.py`), and a closed loop of requests (`service.py`).
"""

from __future__ import annotations

from functools import lru_cache

from multigpu.hardware import Host
from multigpu.plan import Candidate, Estimate, ModelSpec, Prediction, Workload
from multigpu.speed.basis import basis, doubts, reach
from multigpu.speed.constants import DECODE, PREFILL, TTFT, Spread
from multigpu.speed.service import Rates, engine_name, rates

__all__ = ["Rates", "predict"]


def predict(candidate: Candidate, host: Host, model: ModelSpec, load: Workload) -> Prediction:
    """The speed of a candidate that fits, with the range that 80 % of such rigs fall into.

    At a concurrency of one `decode_tokens_per_s` is the rate between first and last token, as
    benchmarks of a single stream state it. Above, it is the output of the whole service while every
    answer is followed by the next request, so that prompts take their share of the time.
    """
    against = doubts(candidate, host, model)
    found = None if against else rates(candidate, host, model, load)
    if found is None:
        return Prediction(unknown=against or ("no GPU data for a card of this candidate",))
    return _told(found, engine_name(candidate, _amd(candidate, host)), reach(candidate, host))


@lru_cache(maxsize=512)
def _told(found: Rates, engine: str, wide: float) -> Prediction:
    """Rates with their ranges, `wide` times as wide as measured."""
    decode, prefill = DECODE[engine], PREFILL[engine]
    slow = Spread(1 / decode.high, 1 / decode.low)
    return Prediction(
        decode_tokens_per_s=_range(found.decode_tokens_per_s, decode, wide),
        prefill_tokens_per_s=_range(found.prefill_tokens_per_s, prefill, wide),
        ttft_ms=_first(found, wide),
        tpot_ms=_range(found.tpot_ms, slow, wide),
        running=found.running,
        basis=basis(engine, wide),
    )


def _amd(candidate: Candidate, host: Host) -> bool:
    return host.gpu(candidate.gpus[0]).vendor == "amd"


def _first(found: Rates, wide: float) -> Estimate:
    """From arrivals spread by chance to all requests at once, each with its own error."""
    low = min(found.ttft_ms, found.ttft_low_ms * TTFT.low) / wide
    return Estimate(found.ttft_ms, low, max(found.ttft_ms, found.ttft_high_ms * TTFT.high) * wide)


def _range(value: float, spread: Spread, wide: float) -> Estimate:
    return Estimate(value, value * spread.low / wide, value * spread.high * wide)
