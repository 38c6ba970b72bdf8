"""How fast a candidate will be: prefill and decode of the whole service under a workload.

`predict` is the only door. Where a number has no basis it is None, with the reason in `unknown`.
"""

from __future__ import annotations

from multigpu.hardware import Host
from multigpu.plan import Candidate, ModelSpec, Prediction, Workload


def predict(candidate: Candidate, host: Host, model: ModelSpec, load: Workload) -> Prediction:
    """The speed of a candidate that fits."""
    return Prediction(unknown=("no cost model",))
