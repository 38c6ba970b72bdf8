"""Outputs of real machines, read in place: every file of the index, what is true of it.

Skipped where the folder does not lie beside the checkout.
"""

from __future__ import annotations

import csv
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

import pytest

import tests.truth

RIGS = Path(__file__).parents[1] / "../shared/rigs"
INDEX = RIGS / "INDEX.tsv"


def truths() -> dict[str, Callable[[Path], None]]:
    """File of the index -> the function that asserts what is known of it."""
    found: dict[str, Callable[[Path], None]] = {}
    for module in pkgutil.iter_modules(tests.truth.__path__):
        found.update(importlib.import_module(f"tests.truth.{module.name}").TRUTH)
    return found


def indexed() -> list[str]:
    """Files of the index, none where the folder is absent."""
    if not INDEX.exists():
        return []
    with INDEX.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [row["file"] for row in rows]


@pytest.mark.skipif(not INDEX.exists(), reason="no captured outputs beside the checkout")
def test_every_file_of_the_index_has_its_truth() -> None:
    assert sorted(truths()) == sorted(indexed())
    assert len(indexed()) >= 99


@pytest.mark.parametrize("file", indexed())
def test_a_captured_output_is_read_as_what_it_is(file: str) -> None:
    truths()[file](RIGS / file)
