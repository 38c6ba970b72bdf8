"""How fast a candidate will be: prefill and decode of the whole service under a workload.

`predict` is the only door. Where a number has no basis it is None, with the reason in `unknown`.
"""

from __future__ import annotations

from multigpu.hardware import Host
from multigpu.plan import Candidate, Estimate, ModelSpec, Prediction, Workload
from multigpu.speed.service import rates


def predict(candidate: Candidate, host: Host, model: ModelSpec, load: Workload) -> Prediction:
    """The speed of a candidate that fits."""
    found = rates(candidate, host, model, load)
    if found is None:
        return Prediction(unknown=("no GPU data for a card of this candidate",))
    return Prediction(
        decode_tokens_per_s=_around(found.decode_tokens_per_s),
        prefill_tokens_per_s=_around(found.prefill_tokens_per_s),
        ttft_ms=_around(found.ttft_ms),
        tpot_ms=_around(found.tpot_ms),
        running=found.running,
        basis="cost model, not calibrated yet",
    )


def _around(value: float) -> Estimate:
    return Estimate(value, value / 2, value * 2)
