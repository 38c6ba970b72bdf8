"""Root's program on temporary directories, with stand-ins for nvidia-smi and systemctl."""

from __future__ import annotations

import json
import os
import pwd
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from multigpu.host import keeper, react, reactions_files, requests, unfence
from multigpu.host import ledger as ledgers
from multigpu.host.ledger import Clock, Ledger
from multigpu.host.react import React
from multigpu.host.reactions import Need, ServiceTruth, Truth
from multigpu.host.reactions_need import Seen
from multigpu.host.requests import FENCE, GPU_RESET, REBOOT
from tests.plans import UUIDS

A, B = UUIDS
ME = pwd.getpwuid(os.geteuid()).pw_name
CHAT, CODE = "multigpu-chat.service", "multigpu-code.service"
SYSTEMCTL = """\
#!/bin/sh
echo "systemctl $*" >> {said}
[ "$1" = show ] && case "$4" in multigpu-c*) echo active;; *) echo inactive;; esac
exit 0
"""
NVIDIA_SMI = """\
#!/bin/sh
echo "nvidia-smi $*" >> {said}
[ -e {folder}/refuses ] && echo 'GPU is in use by another client' && exit 15
rm -f {folder}/sick
exit 0
"""


@dataclass
class Bed:
    """A host of files: `sick` holds what the cards need."""

    home: Path
    said: Path
    allow: frozenset[str] = frozenset((GPU_RESET, REBOOT))
    sick: Callable[[], dict[str, Need]] = dict
    pids: dict[str, tuple[int, ...]] = field(default_factory=dict)
    boot: str = "boot-1"
    later_s: float = 0.0

    def run(self) -> React:
        cards: dict[str, str | None] = {A: None, B: None}
        services = {
            "chat": ServiceTruth(ME, {CHAT: (A, B)}, cards),
            "code": ServiceTruth(ME, {CODE: (B,)}, {B: None}),
        }
        program = React(str(self.home), Truth(self.allow, services), self.look, self.clock)
        program.resume()
        program.answer_all()
        return program

    def look(self, cards: dict[str, str | None], ledger: Ledger, now: Clock) -> Seen:
        return Seen({g: n for g, n in self.sick().items() if g in cards}, self.pids, None)

    def clock(self) -> Clock:
        return Clock(time.time() + self.later_s, self.boot, 5000.0 + self.later_s)

    def ask(self, what: str = GPU_RESET, *gpus: str, service: str = "chat") -> None:
        asked = gpus or (A,)
        assert requests.ask(str(self.home / service), what, asked, "reset_required") is None

    def inbox(self, service: str = "chat") -> Path:
        (self.home / service / "requests").mkdir(exist_ok=True)
        return self.home / service / "requests"

    @property
    def commands(self) -> list[str]:
        lines = self.said.read_text().splitlines() if self.said.exists() else []
        return [line for line in lines if not line.startswith("systemctl show")]

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        found = json.loads((self.home / "ledger.json").read_text())
        return [(entry["what"], entry["outcome"]) for entry in found["entries"]]


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bed:
    programs, said = tmp_path / "bin", tmp_path / "said"
    programs.mkdir()
    for name, text in (("systemctl", SYSTEMCTL), ("nvidia-smi", NVIDIA_SMI)):
        (programs / name).write_text(text.format(said=said, folder=tmp_path))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    home = tmp_path / "home"
    for name in ("chat", "code"):
        (home / name).mkdir(parents=True)
    (tmp_path / "sick").touch()
    there = (tmp_path / "sick").exists
    return Bed(home, said, sick=lambda: {A: Need(GPU_RESET, f"{A} is sick")} if there() else {})


@pytest.mark.process
def test_a_card_is_reset_after_its_services_stopped_and_they_start_again(bed: Bed) -> None:
    bed.ask()
    bed.run()
    assert bed.commands == [
        f"systemctl stop {CHAT}",
        f"nvidia-smi --gpu-reset -i {A}",
        f"systemctl reset-failed {CHAT}",
        f"systemctl --no-block start {CHAT}",
    ], "code uses another card: it is left alone"
    assert bed.outcomes == [(GPU_RESET, "done")]
    assert os.listdir(bed.inbox()) == []


@pytest.mark.process
def test_a_reset_that_fails_leads_to_a_reboot_and_the_next_boot_records_it(bed: Bed) -> None:
    (bed.home.parent / "refuses").touch()
    bed.ask()
    bed.run()
    assert "systemctl reboot" in bed.commands
    assert bed.outcomes == [(GPU_RESET, "failed"), (REBOOT, "begun")]
    bed.ask()
    bed.run()
    assert bed.outcomes[-1] == (GPU_RESET, "refused"), "the host is about to reboot"
    bed.boot = "boot-2"
    bed.ask()
    bed.run()
    assert bed.outcomes[1] == (REBOOT, "done")
    assert bed.outcomes[-1] == (FENCE, "done"), "after the budget, the fence"
    fence = json.loads((bed.home / "chat/fenced").read_text())
    assert fence["by"] == "react" and "no reboot is left" in fence["text"]
    bed.ask()
    bed.run()
    assert bed.outcomes[-1] == (GPU_RESET, "refused")
    assert bed.commands.count("systemctl reboot") == 1


@pytest.mark.process
def test_a_reset_that_was_cut_short_starts_what_it_had_stopped(bed: Bed) -> None:
    program = bed.run()
    asked = requests.Request("1", GPU_RESET, (A,), "reset_required", time.time())
    decision = react.Decision(GPU_RESET, "sick", (A,))
    program._begin(asked, "chat", decision, (CHAT,))
    bed.run()
    assert bed.outcomes == [(GPU_RESET, "interrupted")]
    assert bed.commands[-1] == f"systemctl --no-block start {CHAT}"


@pytest.mark.process
def test_where_nothing_is_allowed_the_service_is_fenced_and_nothing_is_touched(bed: Bed) -> None:
    bed.allow = frozenset()
    bed.ask()
    bed.run()
    assert bed.commands == []
    assert bed.outcomes == [(FENCE, "done")]
    assert not (bed.home / "fenced").exists()


@pytest.mark.process
def test_a_process_of_somebody_else_is_never_killed_and_no_card_reset_under_it(bed: Bed) -> None:
    stranger = next(int(p) for p in os.listdir("/proc") if p.isdigit())
    bed.pids = {A: (stranger,)}
    bed.allow = frozenset((GPU_RESET,))
    others = {stranger: os.geteuid() + 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multigpu.host.reactions_shell.owners", lambda pids: others)
        killed: list[object] = []
        patch.setattr("multigpu.host.reactions_shell.kill", killed.append)
        bed.ask()
        bed.run()
    assert killed == [] and not any("gpu-reset" in line for line in bed.commands)
    assert (GPU_RESET, "failed") in bed.outcomes


# --- forged requests never act --------------------------------------------------------------------


def forge(bed: Bed, name: str = "1.json", **changed: object) -> bytes:
    good = {"schema": 1, "id": name[:-5], "what": REBOOT, "gpus": [A], "why": "gpu_lost"}
    content = json.dumps({**good, "at": time.time(), **changed}).encode()
    (bed.inbox() / name).write_bytes(content)
    return content


def link(bed: Bed) -> None:
    content = forge(bed)
    (bed.home / "outside.json").write_bytes(content)
    (bed.inbox() / "1.json").unlink()
    (bed.inbox() / "1.json").symlink_to(bed.home / "outside.json")


def second_name(bed: Bed) -> None:
    forge(bed)
    os.link(bed.inbox() / "1.json", bed.home / "elsewhere.json")


def pipe(bed: Bed) -> None:
    os.mkfifo(bed.inbox() / "1.json")


def folder(bed: Bed) -> None:
    (bed.inbox() / "1.json" / "deep").mkdir(parents=True)


def huge(bed: Bed) -> None:
    forge(bed, text="x" * 10_000)


def foreign_card(bed: Bed) -> None:
    forge(bed, gpus=["GPU-cccccccc-0000-0000-0000-000000000000"])


def other_name(bed: Bed) -> None:
    forge(bed, name="x%2f..%2f.json")


def linked_directory(bed: Bed) -> None:
    content = forge(bed)
    (bed.inbox() / "1.json").unlink()
    bed.inbox().rmdir()
    elsewhere = bed.home / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "1.json").write_bytes(content)
    (bed.home / "chat/requests").symlink_to(elsewhere)


def another_owner(bed: Bed) -> None:
    forge(bed)
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(bed.inbox() / "1.json", 65534, 65534)


FORGED = [
    *(link, second_name, pipe, folder, huge, foreign_card, other_name),
    *(linked_directory, another_owner),
]


@pytest.mark.process
@pytest.mark.parametrize("how", FORGED, ids=lambda how: str(how.__name__))
def test_a_forged_request_never_acts_and_is_on_record(
    bed: Bed, how: Callable[[Bed], None], capsys: pytest.CaptureFixture[str]
) -> None:
    how(bed)
    bed.run()
    assert bed.commands == []
    assert [outcome for _, outcome in bed.outcomes] == ["refused"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].startswith("multigpu: react: refused")
    if how is not linked_directory:
        assert [name for name in os.listdir(bed.inbox()) if name[0] != "."] == []
    else:
        assert (bed.home / "elsewhere/1.json").exists(), "nothing is removed elsewhere"


@pytest.mark.process
def test_a_copy_of_an_answered_request_is_refused(bed: Bed) -> None:
    content = forge(bed, what=GPU_RESET)
    bed.run()
    (bed.inbox() / "1.json").write_bytes(content)
    (bed.home.parent / "sick").touch()
    bed.run()
    assert bed.outcomes == [(GPU_RESET, "done"), (GPU_RESET, "refused")]


def test_a_well_card_is_neither_reset_nor_the_host_rebooted(bed: Bed) -> None:
    (bed.home.parent / "sick").unlink()
    for what in (GPU_RESET, REBOOT):
        bed.ask(what)
    bed.run()
    assert sorted(bed.outcomes) == [(GPU_RESET, "refused"), (REBOOT, "refused")]


def test_a_fence_is_written_over_a_link_and_not_through_it(bed: Bed, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    (bed.home / "chat/fenced").symlink_to(target)
    reactions_files.write_fence(str(bed.home), "chat", "gpu_lost", "x", bed.clock())
    assert target.read_text() == "mine"
    assert not (bed.home / "chat/fenced").is_symlink()


# --- the ledger survives --------------------------------------------------------------------------


def test_a_torn_ledger_gives_no_budget_and_its_predecessor_is_read(tmp_path: Path) -> None:
    path, now = str(tmp_path / "ledger.json"), Clock(1e9, "b", 100.0)
    assert ledgers.read(path, now).left(REBOOT, now) == 1, "a host that did nothing yet"
    entry = ledgers.Entry("1", "chat", GPU_RESET, "done", 1e9, "b", 99.0)
    first = Ledger().added(entry)
    ledgers.write(path, first)
    ledgers.write(path, first.added(replace(entry, id="2")))
    assert ledgers.read(path, now).left(GPU_RESET, now) == 0
    assert oct(os.stat(path).st_mode & 0o777) == "0o644"
    Path(path).write_text('{"schema": 1, "entr')
    torn = ledgers.read(path, now)
    assert torn.left(REBOOT, now) == 0 and torn.seen("chat", "1")
    Path(f"{path}.previous").write_text("")
    assert ledgers.read(path, now).left(REBOOT, now) == 0
    later = replace(now, uptime_s=now.uptime_s + 90_000)
    assert ledgers.read(path, now).left(REBOOT, later) == 1


def test_roots_file_is_not_believed_when_others_may_write_it(tmp_path: Path) -> None:
    path = tmp_path / "reactions.json"
    path.write_text('{"schema": 1, "allow": ["reboot", "format"], "services": {}}')
    path.chmod(0o644)
    assert react.read_truth(str(path)).allow == {REBOOT}
    path.chmod(0o664)
    with pytest.raises(ValueError, match="to write"):
        react.read_truth(str(path))


@pytest.mark.process
def test_the_program_leaves_its_mark_and_ends_with_1_without_roots_file(tmp_path: Path) -> None:
    flag, truth = tmp_path / "flag", tmp_path / "reactions.json"
    words = ["--home", str(tmp_path), "--flag", str(flag), "--pause-s", "0"]
    assert react.main([*words, "--truth", str(truth)]) == 1
    assert not flag.exists()
    truth.write_text('{"schema": 1, "allow": [], "services": {}}')
    truth.chmod(0o644)
    assert react.main([*words, "--truth", str(truth)]) == 0
    assert flag.exists()


# --- unfence --------------------------------------------------------------------------------------


def test_a_fence_goes_when_its_reason_is_gone_and_not_before(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reactions_files.write_fence(str(bed.home), "chat", "gpu_lost", "lost twice", bed.clock())
    words = ["--home", str(bed.home), f"chat={A}"]
    sick = Seen({A: Need(REBOOT, f"{A} is lost (NVML 15)")}, {}, None)
    monkeypatch.setattr("multigpu.host.reactions_need.look", lambda *_, **__: sick)
    monkeypatch.setattr("multigpu.host.devices.missing", lambda _: {})
    assert unfence.main(words) == 1
    said = capsys.readouterr().err
    assert "chat is fenced: gpu_lost, lost twice (by react," in said
    assert f"stays fenced: {A} is lost" in said
    well = Seen({}, {}, None)
    monkeypatch.setattr("multigpu.host.reactions_need.look", lambda *_, **__: well)
    assert unfence.main([*words, "--dry"]) == 0 and (bed.home / "chat/fenced").exists()
    assert unfence.main(words) == 0 and not (bed.home / "chat/fenced").exists()
    assert unfence.main(words) == 0, "a second time there is nothing to do"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"reason": 1}', '{"at": 1e99, "reason": "x"}'])
def test_a_fence_that_says_nothing_is_a_fence(content: str) -> None:
    assert unfence.described(content)


# --- who asks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reason", "what"), [("reset_required", GPU_RESET), ("gpu_lost", REBOOT)])
def test_a_supervisor_asks_where_somebody_listens_and_root_believes_its_words(
    bed: Bed, reason: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multigpu.host.fence.reactions", lambda: True)
    kept = keeper.Keeper(str(bed.home / "chat"), {"service": "chat", "wish": "chat"})
    kept.verdict(reason, f"{A} is sick")
    (name,) = os.listdir(bed.inbox())
    found = requests.parsed(name, (bed.inbox() / name).read_bytes(), "chat")
    assert (found.what, found.why, found.text) == (what, reason, f"{A} is sick")
    assert not (bed.home / "chat/fenced").exists()
    bed.run()
    assert bed.outcomes == [(GPU_RESET, "done")], "what is done follows from what NVML says"


def test_a_supervisor_asks_nobody_where_reactions_are_off(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multigpu.host.fence.reactions", lambda: False)
    kept = keeper.Keeper(str(bed.home / "chat"), {"service": "chat", "wish": "chat"})
    kept.verdict("reset_required", f"{A} is sick")
    assert os.listdir(bed.inbox()) == []
    assert (bed.home / "chat/fenced").exists()
