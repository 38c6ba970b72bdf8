"""Two hundred thousand broken texts over all readers: `make fuzz` does the same, and prints it."""

from __future__ import annotations

import os

import pytest

from multigpu.parse import kinds
from tests.fuzz.corpus import corpus
from tests.fuzz.run import check, fuzz, fuzz_all

COUNT = 200_000
SECONDS = 600


def test_every_format_is_among_the_texts_that_are_broken() -> None:
    assert {name for name, _ in corpus()} == {kind.name for kind in kinds.KINDS}


def test_every_text_is_guessed_to_be_what_it_is() -> None:
    wrong = [(name, found) for name, text in corpus() if (found := guessed(text)) != name]
    assert wrong == []


def guessed(text: str) -> str | None:
    kind = kinds.guess(text)
    return kind.name if kind else None


def test_a_reader_that_raises_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, text: str, *, thorough: bool) -> None:
        raise IndexError("as a reader would")

    monkeypatch.setattr("tests.fuzz.run.check", broken)
    assert len(fuzz(seed=1, count=3, until=float("inf")).failures) == 3


@pytest.mark.parametrize("text", ["", "\0", "\n" * 500, "\ud800", "{", "<", "a" * 100_000])
@pytest.mark.parametrize("name", [kind.name for kind in kinds.KINDS])
def test_odd_texts_are_readings_too(name: str, text: str) -> None:
    check(name, text, thorough=True)


@pytest.mark.fuzz
def test_no_broken_text_makes_a_reader_raise_or_hang() -> None:
    total = fuzz_all(COUNT, SECONDS, seed=20261123, workers=os.cpu_count() or 1)
    assert total.failures == []
    assert total.inputs.total() >= COUNT
