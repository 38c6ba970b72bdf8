"""SGLang before vLLM where requests share most of their prompts, as far as speeds leave it open.

Both keep prefixes, and the cost model takes both for equally fast, so the numbers do not tell them
apart. What does: SGLang reads waiting prompts in the order of what its cache holds of them
(`--schedule-policy lpm`, `managers/schedule_policy.py`) and finds single tokens again; vLLM takes
them as they come (`v1/core/sched/request_queue.py`: fcfs or priority) and finds whole blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from multigpu.plan import Candidate, Reason, Workload
from multigpu.prefixes import pays

if TYPE_CHECKING:
    from multigpu.choice.ranking import Standing

UNSURE = 0.15
"""Predictions that differ by less may change places when both are measured (`choice.losers`)."""


def preferred(lead: Standing, known: Sequence[Standing], load: Workload) -> Standing:
    """SGLang's same way, where it stands no worse but for what predictions miss."""
    if lead.candidate.runtime != "vllm" or not pays(load):
        return lead
    most = lead.cost * (1 + UNSURE)
    twins = (
        s
        for s in known
        if _twins(s.candidate, lead.candidate)
        and s.cost <= most
        and s.missed <= lead.missed
        and s.waits <= lead.waits
    )
    return next(twins, lead)


def _twins(found: Candidate, lead: Candidate) -> bool:
    """SGLang over the same cards in the same way."""
    a, b = found, lead
    return found.runtime == "sglang" and (
        a.strategy,
        a.gpus,
        a.tensor_parallel_size,
        a.pipeline_parallel_size,
        a.expert_parallel,
    ) == (b.strategy, b.gpus, b.tensor_parallel_size, b.pipeline_parallel_size, b.expert_parallel)


def reason(chosen: Candidate, load: Workload) -> Reason | None:
    """Why SGLang although vLLM keeps prefixes too; None where that did not decide."""
    if chosen.runtime != "sglang" or not pays(load):
        return None
    found = (
        f"{load.shared_prefix_tokens:,} of {load.input_tokens:,} input tokens are shared: "
        "RadixAttention keeps them by single tokens and reads waiting prompts by what is cached"
    )
    hint = "vLLM keeps prefixes too, by blocks of 16: measure both, or pin runtime = 'vllm'"
    return Reason("shared-prefix", found, None, hint)
