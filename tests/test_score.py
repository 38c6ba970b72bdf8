"""`make score`: goals beside figures, and what cannot be measured is said to be skipped."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import score
from benchmarks.figure import Figure
from benchmarks.llama_cpp_memory import NO_WHEEL


def test_every_benchmark_of_the_list_has_a_score() -> None:
    folder = Path(score.__file__).parent
    for name in score.BENCHMARKS:
        assert re.search(r"^def score\(\)", (folder / f"{name}.py").read_text(), re.M), name


def test_a_figure_without_a_goal_is_neither_held_nor_missed() -> None:
    assert score.line(Figure("a", 1.0, "s", "<= 2", True)).startswith("ok ")
    assert score.line(Figure("a", 3.0, "s", "<= 2", False)).startswith("MISSED ")
    assert score.line(Figure("a", 3.0, "s", "", True)).strip().startswith("a ")


def test_an_unknown_benchmark_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert score.main(["nothing"]) == 2
    assert "nothing is no benchmark: name planning_time" in capsys.readouterr().err


def test_without_measurements_or_a_wheel_it_says_what_it_skips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "SHARED", tmp_path / "shared")
    monkeypatch.setenv("MULTIGPU_CACHE", str(tmp_path))
    assert "../shared" in (score.why_not("choice") or "")
    assert score.why_not("llama_cpp_memory") == NO_WHEEL
    assert score.why_not("planning_time") is None
