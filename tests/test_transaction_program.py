"""The host's transaction on a directory that stands for a host, with a stand-in systemctl that
starts real processes; killed at every step, it leaves every file old or new."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multigpu.host import transaction_units
from multigpu.host.transaction import Transaction
from multigpu.host.transaction_store import Failed, Store

pytestmark = pytest.mark.process
ROOT = Path(__file__).parent.parent
UNIT = "/etc/systemd/system/multigpu-chat.service"
ENV = "/etc/multigpu/chat.env"

# A unit is what daemon-reload last read. One whose text has "never" stays activating; "fails"
# ends at once. A start while another unit's process has the same card is written down.
SYSTEMCTL = """\
#!{python}
import json, os, signal, subprocess, sys, shutil
root, bench = os.environ["BENCH_ROOT"], os.environ["BENCH"]
words = [w for w in sys.argv[1:] if not w.startswith("--quiet")]
now = "--now" in words
words = [w for w in words if w not in ("--no-block", "--now")]
verb, names = words[0], [w for w in words[1:] if not w.startswith("-")]
def load(name):
    try:
        return json.load(open(f"{{bench}}/state/{{name}}"))
    except OSError:
        return dict(ActiveState="inactive", MainPID="0", InvocationID="0", NRestarts="0")
def save(name, row):
    with open(f"{{bench}}/state/{{name}}.new", "w") as stream:
        json.dump(row, stream)
    os.replace(f"{{bench}}/state/{{name}}.new", f"{{bench}}/state/{{name}}")
def stop(name):
    row = load(name)
    if row["MainPID"] != "0":
        try:
            os.kill(int(row["MainPID"]), signal.SIGKILL)
        except ProcessLookupError:
            pass
    save(name, {{**row, "ActiveState": "inactive", "MainPID": "0"}})
def start(name):
    try:
        text = open(f"{{bench}}/loaded/{{name}}").read()
    except OSError:
        return
    revision = text.split("MULTIGPU_REVISION=")[1].split()[0]
    process = subprocess.Popen(["sleep", "600"], env=dict(os.environ, MULTIGPU_REVISION=revision),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True)
    open(f"{{bench}}/pids", "a").write(f"{{process.pid}}\\n")
    state = "activating" if "never" in text else "failed" if "fails" in text else "active"
    before = load(name)
    pid = "0" if state == "failed" else str(process.pid)
    if state == "failed":
        process.kill()
    number = str(int(before["InvocationID"]) + 1)
    save(name, dict(ActiveState=state, MainPID=pid, InvocationID=number, NRestarts="0"))
if verb == "show":
    row = load(names[0])
    row["UnitFileState"] = "enabled" if os.path.exists(f"{{bench}}/enabled/{{names[0]}}") else ""
    print("\\n".join(f"{{k}}={{v}}" for k, v in row.items()))
elif verb == "daemon-reload":
    for name in os.listdir(f"{{root}}/etc/systemd/system"):
        if name.endswith(".service"):
            shutil.copy(f"{{root}}/etc/systemd/system/{{name}}", f"{{bench}}/loaded/{{name}}")
else:
    for name in names:
        if verb in ("stop", "restart") or now:
            stop(name)
        if verb == "restart" or verb == "start" and load(name)["ActiveState"] == "inactive":
            start(name)
        if verb == "enable":
            open(f"{{bench}}/enabled/{{name}}", "w").close()
"""


class Bench:
    """One host."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.root = folder, folder / "root"
        for name in ("state", "loaded", "enabled", "bin", "root/etc/systemd/system", "root/run"):
            (folder / name).mkdir(parents=True)
        programs = {"systemctl": SYSTEMCTL.format(python=sys.executable)}
        programs |= {name: "#!/bin/sh\n" for name in ("journalctl", "systemd-analyze")}
        for name, text in programs.items():
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")
        monkeypatch.setenv("BENCH", str(folder))
        monkeypatch.setenv("BENCH_ROOT", str(self.root))
        monkeypatch.setattr(transaction_units, "PATIENCE_S", 0.2)
        monkeypatch.setattr(transaction_units, "DRAIN_S", 0)
        monkeypatch.setattr(transaction_units, "LOOK_S", 0.05)
        self.store = Store(str(self.root))

    def serve(self, name: str, word: str = "") -> None:
        """Stage a generation and apply it, as a deploy does."""
        path = self.folder / "generation"
        path.write_text(json.dumps(document(name, word)))
        Transaction(self.store).stage(str(path))
        Transaction(self.store).apply()

    @property
    def texts(self) -> tuple[str, str]:
        """What lies in place."""
        return (self.root / UNIT[1:]).read_text(), (self.root / ENV[1:]).read_text()

    @property
    def revision(self) -> str | None:
        """What the process that runs carries."""
        state = json.loads((self.folder / "state/multigpu-chat.service").read_text())
        return transaction_units.revision(state["MainPID"])

    @property
    def processes(self) -> list[str]:
        """Engines that run."""
        pids = (self.folder / "pids").read_text().split()
        return [pid for pid in pids if transaction_units.revision(pid) is not None]

    def end(self) -> None:
        for pid in (self.folder / "pids").read_text().split():
            subprocess.run(["kill", "-9", pid], stderr=subprocess.DEVNULL)


def content(name: str, word: str = "") -> tuple[str, str]:
    """Unit and environment file of a generation."""
    return f"[Service]\n# {word}\nEnvironment=MULTIGPU_REVISION={name}\n", f"A={name}\n"


def document(name: str, word: str = "") -> dict[str, Any]:
    unit, env = content(name, word)
    process = {
        "name": "multigpu-chat.service", "wish": "chat", "revision": name, "start_s": 0.5,
        "command_sha256": None, "gpus": [0, 1], "port": 8000, "server": "chat",
    }  # fmt: skip
    return {
        "digest": name + word,
        "plan": f"plan of {name}\n",
        "files": [
            {"path": ENV, "mode": "0600", "content": env},
            {"path": UNIT, "mode": "0644", "content": unit},
        ],
        "units": [process],
        "endpoints": [],
        "enable": ["multigpu-chat.service"],
        "requires": [],
        "runtimes": [],
        "told": {"restart": [], "renew": {}, "obsolete": []},
    }


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path, monkeypatch)
    made.serve("one")
    Transaction(made.store).commit()
    yield made
    made.end()


def test_a_new_generation_serves_and_the_one_before_is_kept(bench: Bench) -> None:
    bench.serve("two")
    assert (bench.texts, bench.revision) == (content("two"), "two")
    state = bench.store.state()
    assert (state["current"], state["generations"]["2"]["previous"]) == (2, 1)
    assert (bench.root / "etc/multigpu/generations/1/plan.yaml").read_text() == "plan of one\n"


@pytest.mark.parametrize("word", ["never", "fails"])
def test_one_that_does_not_come_up_goes_back_and_says_both(bench: Bench, word: str) -> None:
    with pytest.raises(Failed, match=r"did not become ready.*previous generation serves again"):
        bench.serve("two", word)
    assert (bench.texts, bench.revision) == (content("one"), "one")
    assert (bench.store.state()["current"], len(bench.processes)) == (1, 1)


def test_a_first_generation_that_does_not_come_up_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Bench(tmp_path, monkeypatch)
    with pytest.raises(Failed, match="no other generation to return to"):
        made.serve("one", "never")
    assert made.texts == content("one", "never")
    made.end()


def test_a_generation_that_verification_refuses_goes_back_and_a_good_one_stays(
    bench: Bench,
) -> None:
    with pytest.raises(Failed, match="GPU 1 idle; this generation was good before"):
        Transaction(bench.store).verification_failed("GPU 1 idle")
    bench.serve("two")
    with pytest.raises(Failed, match="GPU 1 idle; the previous generation serves again"):
        Transaction(bench.store).verification_failed("GPU 1 idle")
    assert (bench.texts, bench.revision) == (content("one"), "one")


def test_rollback_goes_one_back_and_no_further(bench: Bench) -> None:
    bench.serve("two")
    Transaction(bench.store).rollback()
    assert bench.revision == "one"
    before = bench.processes
    Transaction(bench.store).rollback()
    assert (bench.processes, bench.texts) == (before, content("one"))


def test_rollback_refuses_where_something_it_needs_is_gone(bench: Bench) -> None:
    path = bench.root / "etc/multigpu/generations/1/manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "requires": ["/opt/gone"]}))
    bench.serve("two")
    with pytest.raises(Failed, match="needs /opt/gone, which is gone"):
        Transaction(bench.store).rollback()
    assert bench.revision == "two"


def test_the_same_generation_again_mends_a_file_and_restarts_nothing(bench: Bench) -> None:
    before = bench.processes
    (bench.root / ENV[1:]).write_text("by hand")
    bench.serve("one")
    assert (bench.texts, bench.processes) == (content("one"), before)
    state = bench.store.state()
    assert state["generations"][str(state["current"])]["status"] == "good"


# Runs the program's own code in a process that kills itself at the n-th step: before each rename,
# removal and systemctl.
CUT = """\
import os, signal, subprocess, sys
from multigpu.host import transaction_units as units
from multigpu.host.transaction import Transaction
from multigpu.host.transaction_store import Store
units.PATIENCE_S, units.DRAIN_S, units.LOOK_S = 0.2, 0, 0.05
left = int(sys.argv[2])
def counted(real):
    def step(*words, **more):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return real(*words, **more)
    return step
os.replace, os.rename, os.unlink = map(counted, (os.replace, os.rename, os.unlink))
units.systemctl = counted(units.systemctl)
transaction = Transaction(Store(sys.argv[1]))
transaction.status = lambda words: None
try:
    transaction.apply()
except Exception:
    sys.exit(1)
"""


def cut(bench: Bench, step: int) -> int:
    argv = [sys.executable, "-c", CUT, str(bench.root), str(step)]
    own = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(argv, env=own, capture_output=True, timeout=60).returncode


@pytest.mark.parametrize("word", ["", "fails"])
def test_killed_at_every_step_each_file_is_old_or_new_and_the_next_start_ends_it(
    bench: Bench, word: str
) -> None:
    killed = 0
    for step in range(60):
        path = bench.folder / "generation"
        path.write_text(json.dumps(document(f"new{step}", word)))
        Transaction(bench.store).stage(str(path))
        old, new = bench.texts, content(f"new{step}", word)
        status = cut(bench, step)
        for found, each in zip(bench.texts, zip(old, new, strict=True), strict=True):
            assert found in each, f"step {step}"
        assert len(bench.processes) <= 1, f"step {step}: two engines on one card"
        if status != -9:
            break
        killed += 1
        # What boots or deploys next completes it; what was not begun stays as it was.
        try:
            Transaction(bench.store).recover(boot=False)
        except Failed as error:
            assert "serves again" in str(error)
        assert bench.texts in (old, new), f"step {step}"
        assert f"={bench.revision}\n" in bench.texts[0], f"step {step}"
        assert bench.store.state()["unfinished"] is None
    assert killed > 8


def test_a_deploy_after_a_cut_goes_forward_without_going_back_first(bench: Bench) -> None:
    path = bench.folder / "generation"
    path.write_text(json.dumps(document("two")))
    Transaction(bench.store).stage(str(path))
    assert cut(bench, 4) == -9
    bench.serve("three")
    assert (bench.texts, bench.revision) == (content("three"), "three")
    assert bench.store.state()["generations"]["3"]["previous"] == 1
