"""One deploy at a time: the lock lives as long as the process that serves the connection."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from multigpu.host import deploy_lock
from multigpu.transaction import read

pytestmark = pytest.mark.process
SOURCE = inspect.getsource(deploy_lock)
# In the place of sshd: it runs the command, and is the connection.
CONNECTION = "import subprocess, sys, time; subprocess.run(sys.argv[1:]); time.sleep(60)"


def connect(path: Path, who: str, mark: str = "") -> subprocess.Popen[str]:
    words = [sys.executable, "-c", SOURCE, who, mark, str(path)]
    argv = [sys.executable, "-c", CONNECTION, *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def answer(connection: subprocess.Popen[str]) -> dict[str, object]:
    assert connection.stdout is not None
    with connection.stdout as stream:
        found: dict[str, object] = json.loads(stream.readline())
    return found


def test_the_second_is_told_who_works_and_a_dead_holder_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = connect(path, "ada@desk")
    assert answer(first) == {"held": True}
    mark = json.loads(path.read_text())["id"]
    second = connect(path, "bob@den", mark)
    told = answer(second)
    assert (told["held"], told["by"], told["pid"]) == (False, "ada@desk", first.pid)
    first.kill()
    first.wait()
    killed = time.monotonic()
    third = connect(path, "bob@den", mark)
    assert answer(third) == {"held": True}
    assert time.monotonic() - killed < 5
    for each in (second, third):
        each.kill()
        each.wait()


def test_a_deploy_that_came_and_went_meanwhile_stops_the_one_that_looked_before(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps({"id": "another", "by": "ada@desk", "since": 1}))
    late = connect(path, "bob@den", "the-one-it-saw")
    told = answer(late)
    assert (told["held"], told["meanwhile"], told["by"]) == (False, True, "ada@desk")
    late.kill()
    late.wait()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"state": 3}'])
def test_an_answer_about_generations_that_is_none_is_none(text: str) -> None:
    assert read(text) is None
