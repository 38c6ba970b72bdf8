"""Command lines against the tables of the runtimes' own parsers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from multigpu.errors import WishError
from multigpu.flags import TABLES, check, table
from tests.machines import SHARED
from tests.pages import ROOT

captured = pytest.mark.skipif(not (SHARED / "flags").is_dir(), reason="no captured tables here")


def rules(runtime: str, *argv: str) -> list[str]:
    return [reason.rule for reason in check(runtime, argv)]


def captured_table(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((SHARED / "flags" / name).read_text())
    return found


@captured
@pytest.mark.parametrize("name", ["vllm-0.33.0.json", "sglang-0.5.23.json"])
def test_our_table_equals_the_captured_one(name: str) -> None:
    """Some choices depend on the device; the captured tables are those of a machine without one."""
    ours = {s: f for f in table(name.partition("-")[0]) for s in f.spellings}
    theirs = {spelling: row for row in captured_table(name) for spelling in row["flags"]}
    assert ours.keys() == theirs.keys()
    for spelling, row in theirs.items():
        assert ours[spelling].arity == (1 if row["nargs"] is None else row["nargs"]), spelling
        assert set(ours[spelling].choices or ()) >= {str(c) for c in row["choices"] or ()}, spelling


def test_every_lock_of_a_runtime_has_its_table_of_flags() -> None:
    locks = (ROOT / "templates" / "requirements").glob("*-*.txt")
    names = [lock.stem.rpartition("-") for lock in locks]
    served = [(name, version) for name, _, version in names if name in ("vllm", "sglang")]
    assert served
    assert [pair for pair in served if pair not in TABLES] == []


@captured
def test_our_llama_server_table_has_every_captured_spelling() -> None:
    """The captured table lost those whose spellings fill the first column of --help."""
    ours = {s for f in table("llama.cpp") for s in f.spellings}
    captured_rows = captured_table("llama-server-0.5.0-dev-0c1e57098.json")
    theirs = {spelling for row in captured_rows for spelling in row["flags"]}
    assert theirs <= ours and {"--split-mode", "--cont-batching"} <= ours


def test_a_good_command_line_has_no_problems() -> None:
    argv = ["/bin/vllm", "serve", "org/model", "--port", "8000", "--enforce-eager"]
    assert rules("vllm", *argv) == []
    assert rules("vllm", "--port=8000") == []
    assert rules("llama.cpp", "--gpu-layers", "-1", "--split-mode", "layer") == []


def test_an_abbreviation_is_refused_with_the_full_name() -> None:
    (reason,) = check("vllm", ["--tensor-parallel", "2"])
    assert (reason.rule, reason.hint) == ("flag-abbreviated", "write --tensor-parallel-size")


def test_an_unknown_flag_is_refused_with_the_nearest_known_one() -> None:
    (reason,) = check("llama.cpp", ["--tensor-splits", "1,2"])
    assert (reason.rule, reason.hint) == ("flag-unknown", "did you mean --tensor-split")


@pytest.mark.parametrize("flag", ["--swap-space", "--num-scheduler-steps", "--device"])
def test_flags_that_vllm_removed_are_refused(flag: str) -> None:
    assert rules("vllm", flag, "4") != []


@pytest.mark.parametrize("flag", ["--mlock", "--no-mmap"])
def test_flags_that_llama_server_removed_are_refused(flag: str) -> None:
    assert rules("llama.cpp", flag) == ["flag-unknown"]


@pytest.mark.parametrize(
    ("runtime", "argv"),
    [
        ("vllm", ["--port"]),
        ("vllm", ["--enforce-eager", "yes"]),
        ("llama.cpp", ["--flash-attn"]),
        ("llama.cpp", ["--metrics", "on"]),
    ],
)
def test_a_flag_takes_as_many_values_as_the_parser_says(runtime: str, argv: list[str]) -> None:
    assert rules(runtime, *argv) == ["flag-arity"]


def test_a_value_outside_the_choices_is_refused() -> None:
    assert rules("vllm", "--dtype", "fp7") == ["flag-choice"]
    assert rules("llama.cpp", "--split-mode", "diagonal") == ["flag-choice"]


def test_a_number_must_be_a_number() -> None:
    assert rules("vllm", "--port", "high") == ["flag-type"]
    assert rules("vllm", "--gpu-memory-utilization", "most") == ["flag-type"]


def test_a_runtime_without_a_table_is_an_error() -> None:
    with pytest.raises(WishError, match="abacus"):
        check("abacus", [])
