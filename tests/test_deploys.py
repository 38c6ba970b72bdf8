"""The real CLI on captured machines: what is wrong with one host is one line, the others finish."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from multigpu import planfile
from multigpu.decide import decide
from multigpu.flags import check
from multigpu.parse import capture
from multigpu.runtimes import runtime
from multigpu.store import models
from tests.hosts import NAMES, captured

pytestmark = pytest.mark.cli
ROOT = Path(__file__).parent.parent
PYINFRA = Path(sys.executable).with_name("pyinfra")
PAIR = captured("2x3090-nvlink")
WISH = {"model": "inventories/models/Qwen3-32B-AWQ", "context": 16384}
DOCUMENT = json.loads(PAIR)

INVENTORY = """
import json
from pathlib import Path
{before}
hosts = [tuple(row) for row in json.loads(Path(__file__).with_name("hosts.json").read_text())]
"""
# A defect of ours, as an operator meets it: the reader, or the planner, raises for one machine.
READER_BUG = """
import multigpu.parse.capture as room
read = room.read
def raising(text, name):
    if name == "broken":
        raise IndexError("list index out of range")
    return read(text, name)
room.read = raising
"""
PLANNER_BUG = """
import multigpu.decide as room
plan = room.plan
def raising(machine, model, wish, **options):
    if machine.name == "broken":
        raise ZeroDivisionError("division by zero")
    return plan(machine, model, wish, **options)
room.plan = raising
"""


@dataclass(frozen=True)
class Run:
    """One run of pyinfra."""

    status: int
    text: str

    def said(self, name: str) -> list[str]:
        """What was said of one host, without pyinfra's own steps."""
        lines = re.findall(rf"^ *\[@fake/{re.escape(name)}\] *(.*)$", self.text, re.MULTILINE)
        steps = ("Connected", "Ready:", "wrote ")
        return [line for line in lines if not line.startswith(steps)]

    def finished(self, name: str) -> bool:
        """True when pyinfra counts the host's deploy code as done."""
        ready = rf"^ *\[@fake/{re.escape(name)}\] *Ready:"
        return re.search(ready, self.text, re.MULTILINE) is not None


def row(folder: Path, name: str, text: str = PAIR, **data: Any) -> tuple[str, dict[str, Any]]:
    """One captured machine of an inventory."""
    return f"@fake/{name}", {
        "fake_responses": {"MULTIGPU_PROBE": text},
        "fake_delay": 0,
        "fake_delay_jitter": 0,
        "services": {"chat": WISH},
        "rehearsal_directory": str(folder / "rehearsal"),
        "plans_directory": str(folder / "plans"),
        "captures_directory": str(folder / "captures"),
        **data,
    }


def pyinfra(*words: str | Path, cwd: Path = ROOT) -> Run:
    done = subprocess.run(
        [PYINFRA, *words, "-y"],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return Run(done.returncode, done.stdout)


def deploy(
    folder: Path, rows: list[tuple[str, dict[str, Any]]], name: str, before: str = ""
) -> Run:
    (folder / "hosts.json").write_text(json.dumps(rows))
    inventory = folder / "inventory.py"
    inventory.write_text(INVENTORY.format(before=before))
    return pyinfra(inventory, f"deploys/{name}.py")


def wish(**keys: Any) -> Mapping[str, Any]:
    return {"services": {"chat": {**WISH, **keys}}}


# Name of the host -> its data, and the words that its one line must have, in this order.
FAULTS: dict[str, tuple[Mapping[str, Any], str]] = {
    "model-nowhere": (wish(model="no/such/thing"), "no/such/thing: no such file .* starts with /"),
    "model-empty": (wish(model=""), "model is '': a text of one line is needed"),
    "model-not-on-host": (wish(model="/srv/m.gguf"), "/srv/m.gguf: .* see whether it is there"),
    "too-large": (
        wish(model="inventories/models/Llama-3.1-70B"),
        r"none of \d+ ways .* GPU [01] needs .* of 21.8 GiB .*; do: take a smaller",
    ),
    "too-long": (wish(context=10**30), "context 1,0.*, needs at most 40,960; do: set context"),
    "pins-apart": (
        wish(strategy="single", tensor_parallel_size=2),
        "strategy single contradicts tensor_parallel_size 2: leave one",
    ),
    "pins-no-card": (wish(gpus=[0, 7]), "GPU 7, pins-no-card has GPU 0, 1: name those, or leave"),
    "pins-format": (wish(runtime="llama.cpp"), "needs a GGUF, .* is in safetensors: leave runtime"),
    "key-typo": (wish(contxt=4096), "unknown key 'contxt': did you mean 'context'"),
    "no-services": ({"services": {}}, "no services are asked for: give the host services"),
    "services-list": ({"services": ["chat"]}, r"services is \['chat'\]: give the host"),
    "service-text": ({"services": {"chat": "Qwen"}}, "chat: is not a dict: write"),
    "service-name": ({"services": {"Chat!": WISH}}, "'Chat!': use lower-case"),
    "type-context": (wish(context="16k"), "context is '16k': a whole number is needed"),
    "type-gpus": (wish(gpus="0,1"), "gpus is '0,1': a list is needed"),
    "type-port": (wish(port=99999), "port is 99999: a port lies between"),
    "flag-unknown": (wish(flags={"--enforce-egaer": None}), "is not an option: .*--enforce-eager"),
    "flag-short": (wish(flags={"--kv-cache-dt": "fp8"}), "abbreviation: write --kv-cache-dtype"),
    "flag-bare": (wish(flags={"kv": "1"}), "'kv' is not a long option like"),
    "flag-type": (wish(flags={"--max-num-seqs": "many"}), "many, needs a whole number"),
    "flag-ours": (wish(flags={"--port": "9"}), "written from the plan: set the key 'port'"),
    "env-value": (wish(env={"A": ["x"]}), r"env is \{'A': \['x'\]\}: a text of one line"),
    "env-name": (wish(env={"A B": "x"}), "'A B' is not a name of an environment variable"),
    "directory": ({"plans_directory": 5}, "plans_directory is 5: give the path"),
    "unwritable": ({"plans_directory": "/proc/no"}, "/proc/no/unwritable.yaml cannot be written"),
    "plan-malformed": ({}, "plan-malformed.yaml line 2: not YAML: .*; mend it, or delete"),
    "plan-binary": ({}, "plan-binary.yaml is not text: .*; restore it, or delete it"),
    "plan-newer": ({}, "plan-newer.yaml: schema 7, this multigpu reads 2: use the multigpu"),
    "plan-pins-typo": ({}, "unknown key 'stratgy': did you mean 'strategy'"),
    "plan-edited": ({}, "edited by hand: undo the edit, put the change into its pins"),
    "plan-cards-gone": ({}, "plans GPU 0 as .*, plan-cards-gone has .*: review with deploys/plan"),
    "probe-silent": ({"text": ""}, "the probe printed nothing, needed is its JSON: see what"),
    "probe-garbage": ({"text": "rubbish\x1b[31m"}, r"which begins: 'rubbish\\x1b.*; look at what"),
    "probe-cut": ({"text": PAIR[: len(PAIR) // 2]}, "the capture is cut: .*; take it again"),
    "probe-newer": (
        {"text": json.dumps({**DOCUMENT, "schema": 9})},
        "schema 9, this release reads schema 1; take it again",
    ),
    "probe-misshapen": (
        {"text": json.dumps({"schema": 1, "tools": [1], "pci": "x", "end": DOCUMENT["end"]})},
        "no GPU was found; do: look at it with deploys/survey.py",
    ),
    "probe-escapes": (
        {"text": json.dumps({**DOCUMENT, "tools": {tool: "\udcff" for tool in DOCUMENT["tools"]}})},
        "2 cards, none usable; GPU 0, 1: .*; do: look at it",
    ),
    "probe-no-python": ({"text": "multigpu: no python3"}, r"no python3 on this host: install it"),
}
GOOD = ("one", "two", "three")


def write_plan_files(folder: Path) -> None:
    """Plan files that do not hold, named after the faults."""
    plans = folder / "plans"
    plans.mkdir()
    (plans / "plan-malformed.yaml").write_text("services: [chat\n")
    (plans / "plan-binary.yaml").write_bytes(b"\xff\xfe\x00")
    (plans / "plan-newer.yaml").write_text("schema: 7\nservices: {}\n")
    (plans / "plan-pins-typo.yaml").write_text("services: {chat: {pins: {stratgy: single}}}\n")
    (plans / "plan-cards-gone.yaml").write_text(planned("plan-cards-gone"))
    text = planned("plan-edited")
    edited = text.replace("context: 16384", "context: 16385")
    assert edited != text
    (plans / "plan-edited.yaml").write_text(edited)


def planned(name: str) -> str:
    """The text of a plan file that held for this host."""
    return decide(
        capture.read(PAIR, name),
        {"chat": WISH},
        existing=None,
        path=name,
        load_model=lambda wish: models.load(wish.model, base=ROOT),
    ).text


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """Three sound hosts and one per fault, served in one run."""
    folder = tmp_path_factory.mktemp("faulty")
    write_plan_files(folder)
    rows = [row(folder, name, **data) for name, (data, _) in FAULTS.items()]
    uuid = next(gpu.uuid for gpu in capture.read(PAIR, "pair").gpus)
    others = dict(rows)["@fake/plan-cards-gone"]["fake_responses"]
    others["MULTIGPU_PROBE"] = PAIR.replace(str(uuid), f"{str(uuid)[:-4]}0000")
    return folder, deploy(folder, [*rows, *(row(folder, name) for name in GOOD)], "serve")


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line_that_says_what_to_do(name: str, faulty: tuple[Path, Run]) -> None:
    folder, run = faulty
    lines = run.said(name)
    assert len(lines) == 1, lines
    assert re.search(FAULTS[name][1], lines[0]), lines[0]
    assert not lines[0].startswith(f"{name}: "), "pyinfra names the host already"
    assert not run.finished(name) and not (folder / "rehearsal" / name).exists()


def test_sound_hosts_beside_broken_ones_finish(faulty: tuple[Path, Run]) -> None:
    folder, run = faulty
    assert run.status == 1
    assert [name for name in GOOD if run.finished(name) and not run.said(name)] == [*GOOD]
    for name in GOOD:
        assert (folder / "plans" / f"{name}.yaml").exists()
        assert (folder / "rehearsal" / name / "etc/systemd/system/multigpu-chat.service").exists()


def test_no_fault_of_an_operator_shows_a_traceback(faulty: tuple[Path, Run]) -> None:
    assert "Traceback" not in faulty[1].text and "please report" not in faulty[1].text


def test_a_refusal_shows_what_was_tried_above_its_line(faulty: tuple[Path, Run]) -> None:
    text = faulty[1].text
    assert "\nchat on too-large: no plan\n  model " in text and "\nNearest: vLLM " in text
    assert "probe-misshapen: no plan\n" not in text, "nothing was tried there"


@pytest.mark.parametrize(
    ("before", "name", "said"),
    [
        (READER_BUG, "survey", r"a reader failed, IndexError: .*\(please report\)"),
        (PLANNER_BUG, "plan", r"a bug in multigpu, ZeroDivisionError: .*\(please report\)"),
    ],
)
def test_a_bug_met_by_one_host_of_four_leaves_the_others_alone(
    before: str, name: str, said: str, tmp_path: Path
) -> None:
    hosts = ("broken", *GOOD)
    run = deploy(tmp_path, [row(tmp_path, host) for host in hosts], name, before)
    assert run.status == 1
    assert len(run.said("broken")) == 1 and re.search(said, run.said("broken")[0])
    assert [host for host in hosts if run.finished(host)] == [*GOOD]
    kept = tmp_path / {"survey": "captures", "plan": "plans"}[name]
    assert sorted(path.stem for path in kept.iterdir()) == sorted(GOOD)


# --- the rehearsal ---------------------------------------------------------------------------

REFUSED = {"2x3090-one-lost", "no-gpu-driver-broken"}
"""At least these; a captured machine that is added may be refused or planned."""


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """The rehearsal, in a folder of its own."""
    folder = tmp_path_factory.mktemp("rehearsed")
    (folder / "inventories").symlink_to(ROOT / "inventories")
    return folder / "rehearsal", rehearse(folder)


def rehearse(folder: Path) -> Run:
    return pyinfra(ROOT / "inventories/rehearsal.py", ROOT / "deploys/serve.py", cwd=folder)


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every file."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def test_the_rehearsal_writes_one_folder_per_planned_machine(rehearsed: tuple[Path, Run]) -> None:
    folder, run = rehearsed
    planned = {path.stem for path in (folder / "plans").iterdir()}
    refused = {name for name in NAMES if len(run.said(name)) == 1}
    assert refused >= REFUSED and planned == set(NAMES) - refused and len(planned) > 10
    assert {path.name for path in folder.iterdir()} == planned | {"plans"} and run.status == 1
    for name in planned:
        units = {path.stem for path in (folder / name / "etc/systemd/system").iterdir()}
        services = {
            f"multigpu-{path.stem}" for path in (folder / name / "etc/multigpu").glob("*.env")
        }
        assert services and units >= services | {"multigpu-devices"}
    assert all(run.said(name) == [] and run.finished(name) for name in planned)


def test_a_second_rehearsal_changes_no_file(rehearsed: tuple[Path, Run]) -> None:
    folder, _ = rehearsed
    before = files(folder)
    rehearse(folder.parent)
    assert files(folder) == before and len(before) > 30


def test_every_rehearsed_command_line_is_one_its_runtime_reads(rehearsed: tuple[Path, Run]) -> None:
    folder, _ = rehearsed
    for path in sorted((folder / "plans").iterdir()):
        for plan in planfile.read(path.read_text(), str(path)).values():
            for service in runtime(plan.chosen.runtime).render(plan, "/bin/engine", "/model"):
                assert check(plan.chosen.runtime, service.argv[1:]) == (), path.name
                unit = folder / path.stem / f"etc/systemd/system/multigpu-{service.name}.service"
                text = unit.read_text().partition("ExecStart=")[2].partition("\nExecStopPost=")[0]
                written = re.sub(r"\\\n\s*", "", text).split()
                assert [word for word in service.argv if word.startswith("--")] == [
                    word for word in written[written.index("serve") :] if word.startswith("--")
                ]


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A survey of two readable hosts, one of them with a serial number, and of one that is not."""
    folder = tmp_path_factory.mktemp("survey")
    telling = {**DOCUMENT, "system": {**DOCUMENT["system"], "hostname": "tower7"}}
    telling["tools"] = {**DOCUMENT["tools"], "more": {"stdout": ["<serial>1323017012345</serial>"]}}
    rows = [
        row(folder, "tower7", json.dumps(telling), survey_json=str(folder / "fleet.json")),
        row(folder, "attic", captured("4090+3090"), survey_json=str(folder / "fleet.json")),
        row(folder, "cellar", "no machine", survey_json=str(folder / "fleet.json")),
    ]
    return folder, deploy(folder, rows, "survey")


def test_a_survey_ends_with_the_fleet(surveyed: tuple[Path, Run]) -> None:
    _, run = surveyed
    assert run.status == 1
    fleet = run.text[run.text.rindex("3 hosts · 4 GPUs") :]
    assert "alike" in fleet and "narrow-link" in fleet
    assert re.search(r"^not readable\n +cellar: no captured machine", fleet, re.MULTILINE)


def test_a_capture_holds_pseudonyms_and_reads_to_the_same_cards(
    surveyed: tuple[Path, Run],
) -> None:
    folder, _ = surveyed
    text = (folder / "captures" / "tower7.json").read_text()
    assert "1323017012345" not in text and "tower7" not in text
    before, after = (capture.read(t, "tower7") for t in (PAIR, text))
    assert [g.name for g in after.gpus] == [g.name for g in before.gpus]
    assert not {g.uuid for g in after.gpus} & {g.uuid for g in before.gpus}


def test_a_survey_for_programs_has_every_host(surveyed: tuple[Path, Run]) -> None:
    folder, _ = surveyed
    entries = {entry["name"]: entry for entry in json.loads((folder / "fleet.json").read_text())}
    assert set(entries) == {"attic", "tower7", "cellar"}
    assert entries["attic"]["mix"] == "mixed by architecture"
    assert "no captured machine" in entries["cellar"]["error"]
