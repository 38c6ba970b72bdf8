"""Pages that a person looked at, and what holds for any page."""

from __future__ import annotations

import pytest
from hypothesis import given

from multigpu.errors import NoPlan
from multigpu.explain import explain, explain_refusal
from multigpu.plan import Plan
from tests.pages import CASES, HERE, page
from tests.random_plans import plans, refusals


@pytest.mark.parametrize("name", CASES)
def test_a_page_is_the_one_that_a_person_looked_at(name: str) -> None:
    written = (HERE / f"{name}.txt").read_text(encoding="utf-8")
    assert page(name) == written, "python -m tests.pages writes them anew: look at the difference"


def test_every_page_has_its_case() -> None:
    assert {path.stem for path in HERE.glob("*.txt")} == set(CASES)


def fits(text: str) -> bool:
    lines = text.splitlines()
    return all(len(line) <= 80 and line.isprintable() for line in lines)


@given(plans())
def test_any_page_is_plain_text_of_eighty_columns_that_names_every_rule(made: Plan) -> None:
    text = explain(made)
    assert fits(text) and text.endswith("\n")
    spoken = [*made.reasons, *made.warnings]
    spoken += [reason for item in made.rejected for reason in item.reasons]
    words = "".join(text.split())
    assert [reason.rule for reason in spoken if f"[{reason.rule}]" not in words] == []


@given(refusals())
def test_any_page_of_a_refusal_fits_and_names_every_rule(made: Plan) -> None:
    error = NoPlan("no plan", made.rejected, "chat", model=made.model, wish=made.wish)
    text = explain_refusal(error, made.host)
    words = "".join(text.split())
    assert fits(text)
    assert all(f"[{reason.rule}]" in words for item in made.rejected for reason in item.reasons)
