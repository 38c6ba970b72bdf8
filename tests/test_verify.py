"""Verification as an operation: what it says when there is nothing to judge, or a bug."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("pyinfra")
from facts.observation import Observation
from multigpu import observation
from multigpu.host.load import REQUEST_TIMEOUT_S
from operations.verify import _judged

SPEC: dict[str, Any] = {"name": "chat", "seconds": 8, "units": [{"unit": "a"}, {"unit": "b"}]}


def printed(command: str) -> list[str]:
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_host_without_the_program_is_told_apart_from_one_that_does_not_answer(
    tmp_path: Path,
) -> None:
    fact = Observation()
    program = tmp_path / "two words.pyz"
    assert fact.process(printed(fact.command(str(program), [SPEC]))) == ()
    program.write_text(f'print(\'{{"schema": 1, "services": [], "end": "{observation.END}"}}\')')
    assert "schema" in printed(fact.command(str(program), [SPEC]))[0]


def test_an_observation_has_the_time_that_its_own_limits_take() -> None:
    one, two = observation.limit_s([SPEC]), observation.limit_s([SPEC, SPEC])
    assert one > 2 * REQUEST_TIMEOUT_S + SPEC["seconds"]
    assert two - one > 2 * REQUEST_TIMEOUT_S + SPEC["seconds"]


def test_a_bug_while_judging_fails_one_host_and_not_the_run() -> None:
    broken = cast(Any, (object(),))
    [(screen, problem)] = _judged(broken, broken)
    assert screen == ""
    assert problem is not None and "a bug in multigpu" in problem and "\n" not in problem
