"""Two hundred thousand broken texts over all readers: `make fuzz` does the same, and prints it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from random import Random

import pytest

from multigpu.parse import kinds
from multigpu.parse.shape import ABSENT
from tests.fuzz.corpus import corpus
from tests.fuzz.machines import check_machine
from tests.fuzz.run import check, fuzz, fuzz_all

COUNT = 200_000
SECONDS = 600


@pytest.mark.fuzz
def test_every_format_is_among_the_texts_that_are_broken() -> None:
    assert {name for name, _ in corpus()} == {kind.name for kind in kinds.KINDS}


@pytest.mark.fuzz
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


@pytest.mark.parametrize("seed", range(40))
def test_a_machine_with_broken_parts_is_a_machine(seed: int) -> None:
    check_machine(Random(seed))


@pytest.mark.fuzz
def test_no_broken_text_makes_a_reader_raise_or_hang() -> None:
    total = fuzz_all(COUNT, SECONDS, seed=20261123, workers=os.cpu_count() or 1)
    assert total.failures == []
    assert total.inputs.total() >= COUNT


# "None" is a value of nvidia-smi's recovery action, "none" of systemd-detect-virt and of ours.
REAL_NONES = {"recovery_action", "virtualization", "kind"}


def said(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a value, with the name of its field."""
    if isinstance(value, str):
        yield name, value
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from said(getattr(value, field.name), field.name)
    elif isinstance(value, Mapping | tuple | list):
        entries = value.values() if isinstance(value, Mapping) else value
        for entry in entries:
            yield from said(entry, name)


@pytest.mark.fuzz
def test_no_reader_passes_on_a_word_for_unknown() -> None:
    found = {
        (kind, field, text)
        for kind, printed in corpus()
        for field, text in said(kinds.kind(kind).read(printed).value)
        if text.strip("[] ").lower() in {*ABSENT, "none", "nan", "null"}
    }
    assert {entry for entry in found if entry[1] not in REAL_NONES} == set()
