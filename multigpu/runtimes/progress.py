"""The value that `progress(plan)` of a runtime gives; it lives beside the plan's other values."""

from multigpu.progress import UNKNOWN, Progress

__all__ = ["UNKNOWN", "Progress"]
