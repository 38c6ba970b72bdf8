"""Values for programs: what JSON can hold, whatever ours are."""

from __future__ import annotations

import json

import pytest

from multigpu.as_json import as_json
from multigpu.hardware import Gpu, GpuPair, Host, Path
from multigpu.parse.capture import read
from tests.hosts import NAMES, captured


@pytest.mark.parametrize("name", NAMES)
def test_a_machine_is_json_that_reads_back_as_it_was_written(name: str) -> None:
    value = as_json(read(captured(name), name))
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["gpus"] == [as_json(gpu) for gpu in read(captured(name), name).gpus]


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_a_number_that_json_has_no_word_for_is_unknown(number: float) -> None:
    assert as_json(Gpu(0, power_draw_w=number))["power_draw_w"] is None


def test_a_pair_of_cards_is_a_key_and_an_enumeration_its_word() -> None:
    assert as_json({(0, 1): Path.PIX, Path.SYS: frozenset({1})}) == {"0-1": "PIX", "SYS": [1]}
    assert as_json(Host("rig", pairs=(GpuPair(0, 1, Path.PHB),)))["pairs"][0]["path"] == "PHB"
