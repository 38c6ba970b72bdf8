"""`python -m multigpu plan` from the command line to its screen and its document."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.cli import main
from multigpu.cli.plan import wished
from multigpu.errors import ModelError, MultigpuError, WishError
from multigpu.plan import Objective, Strategy
from multigpu.store import local_models
from tests.test_store_models import write_gguf

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "inventories" / "models"
MODEL = str(MODELS / "Qwen3-32B-AWQ")
SMALL = str(MODELS / "Qwen3-8B")
HOSTS = ROOT / "tests" / "hosts"
GPUS = ("--gpus", "2x RTX 3090", "--pcie", "x8,x4")
Run = pytest.CaptureFixture[str]


def answer(capsys: Run, *arguments: str) -> tuple[int, Any]:
    status = main(["plan", *arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def screen(capsys: Run, *arguments: str) -> tuple[int, str, str]:
    status = main(["plan", *arguments])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def every_number(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [n for each in value.values() for n in every_number(each)]
    if isinstance(value, list):
        return [n for each in value for n in every_number(each)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def check_estimate(value: Any) -> None:
    assert value is None or 0 < value["low"] <= value["value"] <= value["high"]


def check_predicted(found: Any, gpus: list[int]) -> None:
    """The part of the document that holds predictions."""
    assert [card["gpu"] for card in found["memory"]] == gpus
    for card in found["memory"]:
        terms = ("weights", "kv_cache", "activations", "graphs", "overhead")
        total = sum(card[f"{term}_mib"] for term in terms)
        assert card["total_mib"] == pytest.approx(total, abs=0.5)
    for key in ("decode_tokens_per_s", "prefill_tokens_per_s", "ttft_ms", "tpot_ms"):
        check_estimate(found[key])
        assert found[key] is not None or found["unknown"]
    first = found["memory"][0]["kv_cache_mib"] if found["memory"] else None
    assert found["kv_cache_mib"] == first


def check_document(found: Any) -> None:
    """What every document of a host holds, with a plan or without."""
    assert found["schema"] == 1
    assert (found["chosen"] is None) is (found["predicted"] is None)
    assert all(math.isfinite(number) for number in every_number(found))
    for reason in [*found["reasons"], *found["warnings"]]:
        assert set(reason) == {"rule", "found", "needed", "hint"} and reason["found"]
    for item in found["rejected"]:
        assert item["reasons"] and item["strategy"] in list(Strategy)
    if found["chosen"] is not None:
        check_predicted(found["predicted"], found["chosen"]["gpus"])
        assert all(card["fits"] for card in found["predicted"]["memory"])
        assert all(isinstance(word, str) for word in found["chosen"]["command"])


def test_a_host_that_nobody_has_gets_a_plan(capsys: Run) -> None:
    status, found = answer(capsys, *GPUS, "--model", MODEL)
    check_document(found)
    assert status == 0
    assert found["host"]["name"] == "what-if"
    assert [gpu["pcie_lanes"] for gpu in found["host"]["gpus"]] == [8, 4]
    assert found["chosen"]["command"][:2] == ["vllm", "serve"]
    assert found["predicted"]["kv_cache_tokens"] > 0
    assert found["predicted"]["max_model_len"] >= found["chosen"]["max_model_len"]


def test_a_captured_machine_gets_the_same_document(capsys: Run) -> None:
    machine = str(HOSTS / "4x3090-two-bridges.json")
    status, found = answer(capsys, "--host", machine, "--model", MODEL)
    check_document(found)
    assert (status, found["host"]["name"]) == (0, "4x3090-two-bridges")


@pytest.mark.parametrize("path", sorted(HOSTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_captured_machine_has_a_document(capsys: Run, path: Path) -> None:
    status, found = answer(capsys, "--host", str(path), "--model", MODEL, "--candidates")
    check_document(found)
    assert status == (0 if found["chosen"] else 1)
    for way in found["candidates"]:
        assert way["fits"] or way["reasons"]
        check_predicted({**way["predicted"]}, way["gpus"][: len(way["predicted"]["memory"])])


def test_several_machines_give_a_document_each(capsys: Run) -> None:
    machines = [str(HOSTS / name) for name in ("1x4090.json", "2x3090-nvlink.json")]
    status, found = answer(capsys, "--host", machines[0], "--host", machines[1], "--model", SMALL)
    assert status == 0
    assert [each["host"]["name"] for each in found] == ["1x4090", "2x3090-nvlink"]


def test_candidates_come_in_rank_order_the_chosen_one_first(capsys: Run) -> None:
    _, found = answer(capsys, *GPUS, "--model", MODEL, "--candidates")
    ways = found["candidates"]
    assert len(ways) == 1 + len(found["rejected"])
    assert ways[0]["label"] == found["chosen"]["label"] and ways[0]["reasons"] == []
    assert [way["fits"] for way in ways] == sorted((w["fits"] for w in ways), reverse=True)
    assert ways[0]["predicted"] == found["predicted"]


def test_where_nothing_fits_chosen_is_null_with_status_1_and_the_reasons(capsys: Run) -> None:
    status, found = answer(
        capsys, "--gpus", "RTX 3060", "--model", MODEL, "--wish", "runtime=vllm", "--candidates"
    )
    check_document(found)
    assert (status, found["chosen"], found["predicted"]) == (1, None, None)
    assert "what-if" in found["reasons"][0]["found"]
    assert len(found["candidates"]) == len(found["rejected"]) > 0
    assert not any(way["fits"] for way in found["candidates"])


def test_the_page_of_a_refusal_stands_on_stdout_and_its_line_on_stderr(capsys: Run) -> None:
    status, out, err = screen(capsys, "--gpus", "RTX 3060", "--model", MODEL)
    assert status == 1
    assert "no plan" in out and "[memory-fit]" in out
    assert err.startswith("what-if: no plan for service") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpus", "2x RTX 3909", "--model", MODEL], "GeForce RTX 3090"),
        (["--gpus", "RTX 3090", "--model", "nowhere.json"], "no such file"),
        (["--gpus", "RTX 3090", "--model", "/nowhere"], "no such file"),
        (["--gpus", "RTX 3090", "--model", MODEL, "--wish", "concurency=4"], "concurrency"),
        (["--gpus", "RTX 3090", "--model", MODEL, "--wish", "context"], "KEY=VALUE"),
        (["--gpus", "RTX 3090", "--model", MODEL, "--wish", "gpus=[7]"], "7"),
        (["--host", "nowhere.json", "--model", MODEL], "nowhere.json"),
        (["--host", "x.json", "--pcie", "x8", "--model", MODEL], "--pcie goes with --gpus"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_a_document_of_its_own(
    capsys: Run, arguments: list[str], said: str
) -> None:
    status, out, err = screen(capsys, *arguments)
    assert (status, out, err.count("\n")) == (1, "", 1) and said in err
    status, found = answer(capsys, *arguments)
    assert (status, found["chosen"], found["schema"]) == (1, None, 1)
    assert said in found["reasons"][0]["found"]


def test_wish_values_are_json_python_or_text() -> None:
    found = wished(
        "m/m",
        [
            "runtime=vllm",
            "strategy=tensor_parallel",
            "objective=throughput",
            "tensor_parallel_size=2",
            "pipeline_parallel_size=1",
            "gpu_memory_utilization=0.85",
            "max_model_len=16384",
            "concurrency=400",
            "input_tokens=2000",
            "output_tokens=500",
            "kv_cache_dtype=fp8",
            "ttft_ms=500",
            "tpot_ms=25.5",
            "gpus=1,0",
            "expert_parallel=true",
            'flags={"--max-num-batched-tokens": 4096, "--enforce-eager": None}',
            "served_model_name=4711",
        ],
    )
    assert (found.runtime, found.strategy) == ("vllm", Strategy.TENSOR_PARALLEL)
    assert (found.objective, found.context, found.gpus) == (Objective.THROUGHPUT, 16384, (1, 0))
    assert (found.gpu_memory_utilization, found.kv_cache_dtype) == (0.85, "fp8")
    assert (found.ttft_ms, found.tpot_ms, found.expert_parallel) == (500, 25.5, True)
    assert found.served_model_name == "4711"
    assert dict(found.flags) == {"--max-num-batched-tokens": "4096", "--enforce-eager": None}


@pytest.mark.parametrize(
    ("text", "gpus"), [("gpus=0", (0,)), ("gpus=[0, 1]", (0, 1)), ("gpus=0,1", (0, 1))]
)
def test_a_list_may_have_one_entry(text: str, gpus: tuple[int, ...]) -> None:
    assert wished("m/m", [text]).gpus == gpus


def test_a_key_that_is_given_twice_is_refused() -> None:
    with pytest.raises(WishError, match="twice"):
        wished("m/m", ["concurrency=1", "concurrency=2"])


@given(st.lists(st.text(max_size=30), max_size=3))
def test_no_words_of_a_wish_raise_anything_else(words: list[str]) -> None:
    try:
        wished("m/m", words)
    except MultigpuError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_of_candidates_keeps_to_the_width(
    capsys: Run, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    gpus = "2x RTX 3090 + RTX 3060"
    status, out, _ = screen(capsys, "--gpus", gpus, "--model", MODEL, "--candidates")
    assert status == 0
    table = out[out.index("ways to serve it") :].splitlines()
    assert all(len(line) <= columns for line in table)
    assert "chosen" in table[3] and "do not hold:" in "\n".join(table)
    assert all("]" in line for line in table if "[" in line)


@pytest.mark.parametrize("gpus", ["7x RTX 4060 Ti 16GB", "RTX 4090 + RTX 3090 + RTX 3060"])
def test_no_two_ways_of_the_table_of_candidates_look_alike(capsys: Run, gpus: str) -> None:
    model = str(ROOT / "benchmarks/models/cpatonn--Qwen3-Coder-30B-A3B-Instruct-GPTQ-4bit")
    _, out, _ = screen(capsys, "--gpus", gpus, "--model", model, "--candidates")
    table = out[out.index("ways to serve it") :].splitlines()[3:]
    names = [line[: line.index("  ")] if "  " in line else line for line in table]
    ways = [name for name in names if name.startswith(("vLLM", "llama.cpp"))]
    assert len(ways) == int(out[: out.index(" ways to serve it")].rsplit("\n", 1)[-1])
    assert len(ways) == len(set(ways)) and not any("\u2026" in way for way in ways)


def test_a_gguf_that_is_only_planned_with_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    assert local_models.load(str(file)).sha256 is None
    with file.open("r+b") as stream:
        stream.truncate(1 << 40)  # a sparse file: hashing it would take an hour
    assert local_models.load(str(file)).size_bytes == 1 << 40


def test_a_gguf_is_named_by_its_link_as_the_cache_of_the_hub_keeps_it(tmp_path: Path) -> None:
    blob = write_gguf(tmp_path / "tiny.gguf").rename(tmp_path / "0123abcd")
    link = tmp_path / "tiny-Q4_K_M.gguf"
    link.symlink_to(blob)
    found = local_models.load(str(link))
    assert found.name == "tiny-Q4_K_M.gguf" and found.path == str(link)


@pytest.mark.parametrize("reference", ["Qwen3-32B", "tiny.gguf", "a/b/c"])
def test_a_model_that_is_not_here_is_not_looked_for_on_a_host(reference: str) -> None:
    with pytest.raises(ModelError) as refused:
        local_models.load(reference)
    assert reference in str(refused.value) and "GPU host" not in str(refused.value)


def test_a_folder_of_gguf_files_is_refused_with_the_name_of_one(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    with pytest.raises(ModelError, match=f"{tmp_path}: no config.json.*tiny.gguf"):
        local_models.load(str(tmp_path))


@pytest.mark.parametrize("words", [["--numa", "2"], ["--no-p2p"], ["--nvlink"], ["--pcie", "x8"]])
def test_links_of_a_captured_machine_cannot_be_said(capsys: Run, words: list[str]) -> None:
    host = str(HOSTS / "3x3090.json")
    status, _, said = screen(capsys, "--host", host, "--model", MODEL, *words)
    assert status == 1 and "goes with --gpus" in said


def test_a_measurements_file_that_is_no_yaml_is_refused_in_one_line(
    capsys: Run, tmp_path: Path
) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("- a: 1\n  b: `x`\n")
    status, _, said = screen(capsys, *GPUS, "--model", MODEL, "--measured", str(file))
    assert (status, said) == (1, f"{file} is no YAML (line 2)\n")


def test_an_answer_that_cannot_be_written_is_one_line(
    capsys: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", full)
        status = main(["plan", *GPUS, "--model", MODEL])
        with contextlib.suppress(OSError):
            full.close()
    assert status == 1
    assert capsys.readouterr().err == "the answer cannot be written: No space left on device\n"


def test_the_page_of_the_document_describes_every_key_and_shows_one_of_today(capsys: Run) -> None:
    page = (ROOT / "docs" / "plan-json.md").read_text()
    example = json.loads(page.partition("```json\n")[2].partition("```")[0])
    wishes = ("--wish", "objective=throughput", "--wish", "concurrency=32")
    _, found = answer(capsys, "--gpus", "RTX 3090", "--model", SMALL, *wishes)
    for part in ("chosen", "predicted", "host", "model", "workload"):
        assert list(example[part]) == list(found[part])
    assert list(example) == list(found)
    described = page.partition("## Example")[0]
    shown = [*found, *found["chosen"], *found["predicted"], *found["predicted"]["memory"][0]]
    for key in (*shown, "candidates", "error"):
        assert f"`{key}`" in described, key


def test_measurements_of_the_rig_replace_predictions(capsys: Run, tmp_path: Path) -> None:
    wishes = ("--gpus", "RTX 3090", "--model", SMALL, "--wish", "concurrency=1")
    _, before = answer(capsys, *wishes)
    rate = {"value": 71.5, "low": 70.0, "high": 73.0}
    row = {
        "gpus": ["NVIDIA GeForce RTX 3090"],
        "runtime": "vllm",
        "model": "Qwen3-8B",
        "strategy": "single",
        "concurrency": 1,
        "input_tokens": 1024,
        "output_tokens": 256,
        "when": "2026-11-01",
        "tool": "vllm bench serve 0.33.0",
        "decode_tokens_per_s": rate,
    }
    (tmp_path / "measured.yaml").write_text(json.dumps([row]))
    _, after = answer(capsys, *wishes, "--measured", str(tmp_path / "measured.yaml"))
    assert before["predicted"]["measured"] is False
    assert after["predicted"]["measured"] is True
    assert after["predicted"]["decode_tokens_per_s"] == rate


# --- models as a person at this machine names them --------------------------------------------


def test_a_config_under_another_name_is_the_model_of_that_name(tmp_path: Path) -> None:
    bare = tmp_path / "Qwen--Qwen3-8B_config.json"
    shutil.copy(Path(SMALL) / "config.json", bare)
    found = local_models.load(str(bare))
    assert (found.name, found.path, found.quantization) == ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B", None)
    quant = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": None}}
    (tmp_path / "Qwen--Qwen3-8B_hf_quant_config.json").write_text(json.dumps(quant))
    assert local_models.load(str(bare)).quantization is not None


def test_a_config_json_stands_for_its_folder() -> None:
    by_file, by_folder = (local_models.load(p) for p in (f"{SMALL}/config.json", SMALL))
    assert by_file == by_folder
    assert by_folder.name == "Qwen3-8B"


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"'])
def test_a_file_that_is_no_config_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(MultigpuError) as caught:
        local_models.load(str(tmp_path / "x.json"))
    assert "\n" not in str(caught.value)
