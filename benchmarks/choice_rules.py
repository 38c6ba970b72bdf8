"""What other tools would choose: fixed rules over the arms of a question.

All cards in one tensor parallel group, the smallest group repeated, the fewest cards, and
llama.cpp's default (layers over all cards).
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.choice_questions import Arm, Question
from multigpu.plan import Strategy

Rule = Callable[[Question], Arm | None]


def max_tp(question: Question) -> Arm:
    """One tensor parallel group over as many cards as there are."""
    return max(question.arms, key=lambda a: (a.candidate.tensor_parallel_size, a.gpus))


def min_tp(question: Question) -> Arm:
    """The smallest group, as often as the cards allow."""
    one = [
        (a.candidate.tensor_parallel_size * a.candidate.pipeline_parallel_size, -a.gpus)
        for a in question.arms
    ]
    return question.arms[one.index(min(one))]


def fewest(question: Question) -> Arm:
    """As few cards as hold the model, the others idle."""
    return min(question.arms, key=lambda a: (len(a.candidate.gpus), a.gpus))


def layers(question: Question) -> Arm | None:
    """llama.cpp's default where it was measured: layers over all cards, or stages of a pipeline."""
    kinds = (Strategy.LAYER_SPLIT, Strategy.PIPELINE_PARALLEL)
    return next((a for a in question.arms if a.candidate.strategy in kinds), None)


RULES: dict[str, Rule] = {
    "max TP": max_tp,
    "min TP": min_tp,
    "fewest GPUs": fewest,
    "layer split": layers,
}
