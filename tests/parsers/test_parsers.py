"""Rendered command lines against the runtimes' own parsers, and our rules against vLLM's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from multigpu.flags import TABLES, check, versions
from multigpu.runtimes.sharding import sharding
from tests.pages import ROOT, model
from tests.parsers import environment
from tests.parsers.command_lines import command_lines

pytestmark = pytest.mark.parsers
HERE = Path(__file__).parent
PYTHON_RUNTIMES = [(w.partition("==")[0], w.partition("==")[2]) for w in environment.WHEELS]
# A CPU build has no CUDA device, files are only names here, and nothing answers as an RPC device.
UNKNOWABLE = {"--device": "none", "--api-key-file": os.devnull}


def ask(program: str, wheel: str, question: object, *arguments: str) -> Any:
    done = subprocess.run(
        [environment.python(), HERE / program, *arguments],
        input=json.dumps(question),
        env=environment.variables(wheel),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(("name", "version"), PYTHON_RUNTIMES)
def test_the_real_python_parsers_take_every_command_line(name: str, version: str) -> None:
    lines = command_lines()[name]
    assert len(lines) > 50
    assert [line for line in lines if check(name, line, version)] == []
    refusals = ask("parse.py", f"{name}=={version}", [list(line[2:]) for line in lines], name)
    assert [(r, lines[i]) for i, r in enumerate(refusals) if r is not None] == []


@pytest.mark.parametrize(("name", "version"), PYTHON_RUNTIMES)
def test_the_real_parsers_refuse_what_the_tables_refuse(name: str, version: str) -> None:
    wrong = [["--port", "high"], ["--no-such-flag", "1"], ["--host"]]
    refusals = ask("parse.py", f"{name}=={version}", wrong, name)
    assert all(refusals), refusals
    assert all(check(name, words, version) for words in wrong)


@pytest.mark.parametrize(("name", "version"), PYTHON_RUNTIMES)
def test_the_table_is_what_the_script_writes(name: str, version: str, tmp_path: Path) -> None:
    script = str(ROOT / "scripts" / "dump_flags.py")
    done = subprocess.run(
        [environment.python(), script, name, version, "--output", tmp_path / "table.py"],
        env=environment.variables(f"{name}=={version}"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    fresh: dict[str, Any] = {}
    exec((tmp_path / "table.py").read_text(), fresh)
    assert fresh["FLAGS"] == TABLES[name, version]


def test_llama_server_itself_takes_every_command_line() -> None:
    program = llama_server()
    for line in command_lines()["llama.cpp"]:
        if "--rpc" in line:
            continue
        words = [UNKNOWABLE.get(flag, word) for flag, word in pairwise(line)]
        done = subprocess.run(
            [program, *words, "--version"],
            env={"LD_LIBRARY_PATH": str(program.parents[1] / "lib")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (line, done.stderr[-500:])


def llama_server() -> Path:
    """That of the lab's wheel; `make wheel` builds it."""
    script = ROOT / "scripts" / "build_llama_wheel.py"
    asked = subprocess.run([sys.executable, script, "--where"], capture_output=True, text=True)
    wheel = Path(asked.stdout.strip())
    if not wheel.exists():
        pytest.skip("no llama.cpp wheel in the cache: make wheel")
    home = environment.cache() / "llama.cpp"
    if not home.exists():
        shutil.unpack_archive(wheel, home, "zip")
    program = home / "bin" / "llama-server"
    program.chmod(0o755)
    return program


MODELS = ("Qwen3-8B", "Qwen3-14B-AWQ", "Qwen3-32B-AWQ", "Llama-3.1-70B")


def test_our_rule_of_divisible_heads_is_that_of_vllms_own_configuration() -> None:
    asked = [
        [str(ROOT / "inventories" / "models" / name), tp, 1]
        for name in MODELS
        for tp in range(1, 9)
    ]
    theirs = ask("divisible.py", "vllm==0.33.0", asked)
    for (folder, tp, _), refusal in zip(asked, theirs, strict=True):
        ours = sharding(model(Path(str(folder)).name), int(tp))
        if refusal is not None:
            assert ours, (folder, tp, refusal)
        # vLLM's own check ends here: KV heads and widths are refused when the layers are made.
        heads = [reason for reason in ours if reason.rule == "attention-heads"]
        assert bool(heads) == (refusal is not None), (folder, tp, refusal, ours)


def test_every_runtime_has_a_table_of_its_default_version() -> None:
    assert all(versions(name) for name in command_lines())
