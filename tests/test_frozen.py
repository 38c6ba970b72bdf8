"""Values that are made quickly behave as the dataclasses they are."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict, dataclass, field, replace

import pytest

from multigpu.frozen import quick
from multigpu.plan import Candidate, Memory, Reason, Strategy


def test_it_takes_fields_by_place_and_by_name_and_fills_in_defaults() -> None:
    made = Candidate("vllm", Strategy.SINGLE, gpus=(0,), replicas=2)
    assert (made.gpus, made.replicas, made.tensor_parallel_size, made.memory) == ((0,), 2, 1, ())
    assert replace(made, replicas=3) == Candidate("vllm", Strategy.SINGLE, (0,), replicas=3)
    assert asdict(Reason("a", "b")) == {"rule": "a", "found": "b", "needed": None, "hint": None}


def test_it_stays_frozen_and_equal_by_value() -> None:
    one, other = Memory(1.0, 2.0, 3.0, 4.0, 5.0), Memory(1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0)
    assert one == other
    assert hash(one) == hash(other)
    with pytest.raises(FrozenInstanceError):
        one.weights_mib = 2.0  # type: ignore[misc]


def test_a_missing_field_and_an_unknown_one_are_errors() -> None:
    with pytest.raises(TypeError, match="found"):
        Reason("rule")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="colour"):
        Reason("rule", "found", colour="red")  # type: ignore[call-arg]


def test_a_class_with_a_factory_is_refused() -> None:
    @dataclass(frozen=True)
    class Listed:
        names: list[str] = field(default_factory=list)

    with pytest.raises(TypeError, match="Listed"):
        quick(Listed)
