"""What differs between what a host should hold and what it holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from multigpu import generation
from multigpu.hardware import Host, ManagedFile, UnitState
from multigpu.install import Recipe, Upload
from multigpu.plan import Service
from multigpu.units import MARK, RenderedUnit, TextFile

PLANNED = "0123456789abcdef"
UNIT = RenderedUnit(
    Service("chat", ("/usr/bin/engine",), (), 8000, "/health", (0, 1)),
    PLANNED,
    (
        TextFile("/etc/multigpu/chat.env", "A=1\n", "0600"),
        TextFile("/etc/systemd/system/multigpu-chat.service", "[Unit]\n"),
    ),
    600,
)
WRITTEN, STARTED = 1000.0, 2000.0
FILES = tuple(
    ManagedFile(f.path, f.sha256, len(f.content), f.mode, "root:root", modified_at=WRITTEN)
    for f in UNIT.files
)
RUNNING = UnitState(
    UNIT.name,
    load_state="loaded",
    active_state="active",
    sub_state="running",
    main_pid=42,
    need_daemon_reload=False,
    unit_file_state="enabled",
    revision=PLANNED,
    started_at=STARTED,
)


def host(state: UnitState | None = RUNNING, files: tuple[ManagedFile, ...] = FILES) -> Host:
    return Host("tower", units=(state,) if state else (), files=files)


def drifted(**changes: object) -> tuple[ManagedFile, ...]:
    """The unit file as somebody left it."""
    return (FILES[0], replace(FILES[1], **changes))  # type: ignore[arg-type]


def test_a_host_as_planned_needs_nothing() -> None:
    machine = host()
    assert generation.files_to_install(machine, [UNIT]) == ()
    assert generation.restart_reason(machine, UNIT) is None
    assert not generation.waits(machine, UNIT)
    assert not generation.needs_enable(machine, UNIT)
    assert not generation.needs_reload(machine, [UNIT])
    assert generation.obsolete_units(machine, [UNIT]) == ()


@pytest.mark.parametrize(
    ("uid", "systemd", "said"),
    [
        (0, 252, None),
        (None, 252, None),
        (1000, 252, "root is needed, this is uid 1000"),
        (0, None, "systemctl does not answer"),
    ],
)
def test_who_is_not_root_or_has_no_systemd_is_refused_before_anything_changes(
    uid: int | None, systemd: int | None, said: str | None
) -> None:
    reason = generation.cannot_change(Host("tower", uid=uid, systemd=systemd))
    assert reason is None if said is None else reason is not None and said in reason


def test_a_bare_host_needs_everything() -> None:
    machine = Host("tower")
    assert generation.layout_missing(machine)
    assert generation.files_to_install(machine, [UNIT]) == UNIT.files
    assert generation.restart_reason(machine, UNIT) == "not running"
    assert generation.needs_enable(machine, UNIT)
    assert not generation.waits(machine, UNIT)


@pytest.mark.parametrize("state", ["inactive", "failed", "deactivating", None])
def test_a_unit_that_is_down_is_started(state: str | None) -> None:
    machine = host(replace(RUNNING, active_state=state, main_pid=None, revision=None))
    assert generation.restart_reason(machine, UNIT) == "not running"
    assert not generation.waits(machine, UNIT)


def test_a_run_cut_short_after_writing_is_finished_by_the_next_one() -> None:
    machine = host(replace(RUNNING, revision="an-older-one"))
    assert generation.files_to_install(machine, [UNIT]) == ()
    reason = generation.restart_reason(machine, UNIT)
    assert reason == f"runs revision an-older-one, planned is {PLANNED}"


def test_a_process_whose_revision_is_unknown_is_restarted() -> None:
    reason = generation.restart_reason(host(replace(RUNNING, revision=None)), UNIT)
    assert reason == f"runs revision unknown, planned is {PLANNED}"


def test_a_unit_that_is_loading_is_waited_for() -> None:
    machine = host(replace(RUNNING, active_state="activating", sub_state="start"))
    assert generation.restart_reason(machine, UNIT) is None
    assert generation.waits(machine, UNIT)


def test_a_unit_that_loads_another_revision_is_restarted() -> None:
    machine = host(replace(RUNNING, active_state="activating", sub_state="start", revision="old"))
    assert generation.restart_reason(machine, UNIT) is not None


def test_a_crash_loop_is_restarted_and_called_so() -> None:
    between = replace(
        RUNNING, active_state="activating", sub_state="auto-restart", main_pid=None, revision=None
    )
    assert generation.restart_reason(host(between), UNIT) == "keeps ending, auto-restart"


def test_a_process_younger_than_a_hand_edit_is_restarted() -> None:
    machine = host(files=drifted(sha256="f" * 64, modified_at=STARTED - 1))
    assert generation.files_to_install(machine, [UNIT]) == (UNIT.files[1],)
    reason = generation.restart_reason(machine, UNIT)
    assert reason == "was started after its files were changed by hand"


def test_a_process_older_than_a_hand_edit_keeps_running() -> None:
    machine = host(files=drifted(sha256="f" * 64, modified_at=STARTED + 1))
    assert generation.files_to_install(machine, [UNIT]) == (UNIT.files[1],)
    assert generation.restart_reason(machine, UNIT) is None


@pytest.mark.parametrize("change", [{"mode": "0666"}, {"owner": "ada:ada"}])
def test_a_mode_or_owner_is_put_right_without_a_restart(change: dict[str, str]) -> None:
    machine = host(files=drifted(**change))
    assert generation.files_to_install(machine, [UNIT]) == (UNIT.files[1],)
    assert generation.restart_reason(machine, UNIT) is None


def test_a_file_that_is_gone_is_installed_again_without_a_restart() -> None:
    machine = host(files=FILES[1:])
    assert generation.files_to_install(machine, [UNIT]) == (UNIT.files[0],)
    assert generation.restart_reason(machine, UNIT) is None


@pytest.mark.parametrize("state", ["disabled", "masked", None])
def test_a_unit_that_would_not_come_back_is_enabled(state: str | None) -> None:
    assert generation.needs_enable(host(replace(RUNNING, unit_file_state=state)), UNIT)


def test_a_unit_file_that_systemd_has_not_read_asks_for_a_reload() -> None:
    assert generation.needs_reload(host(replace(RUNNING, need_daemon_reload=True)), [UNIT])


def test_a_unit_of_ours_that_no_plan_has_is_obsolete_loaded_or_only_on_disk() -> None:
    old = replace(RUNNING, name="multigpu-old.service")
    disk = ManagedFile(
        "/etc/systemd/system/multigpu-older.service", "f" * 64, content=f"{MARK}from plans/a.yaml"
    )
    machine = replace(host(), units=(RUNNING, old), files=(*FILES, disk))
    obsolete = ("multigpu-old.service", "multigpu-older.service")
    assert generation.obsolete_units(machine, [UNIT]) == obsolete
    assert generation.obsolete_units(machine, []) == ("multigpu-chat.service", *obsolete)


@pytest.mark.parametrize("first_line", [None, "", "[Unit]", "# my own exporter"])
def test_a_unit_that_an_operator_named_like_ours_stays(first_line: str | None) -> None:
    theirs = replace(RUNNING, name="multigpu-exporter.service", revision=None)
    disk = ManagedFile(
        "/etc/systemd/system/multigpu-exporter.service", "f" * 64, content=first_line
    )
    machine = replace(host(), units=(RUNNING, theirs), files=(*FILES, disk))
    assert generation.obsolete_units(machine, [UNIT]) == ()


def test_the_installation_of_a_runtime_is_not_obsolete() -> None:
    transient = replace(
        RUNNING, name="multigpu-install-vllm-0.33.0-abc.service", unit_file_state="transient"
    )
    machine = replace(host(), units=(RUNNING, transient))
    assert generation.obsolete_units(machine, [UNIT]) == ()


def test_a_unit_that_systemd_does_not_find_is_not_obsolete() -> None:
    ghost = UnitState("multigpu-ghost.service", load_state="not-found")
    assert generation.obsolete_units(replace(host(), units=(RUNNING, ghost)), [UNIT]) == ()


@pytest.mark.parametrize(
    "path",
    [
        "/etc/systemd/system/multigpu-chat.service.d/override.conf",
        "/etc/systemd/system/multigpu-chat.service.d/multigpu-x.service",
        "/etc/systemd/system/multigpu-old.service.multigpu-new",
        "/etc/multigpu/old.env",
    ],
)
def test_what_lies_beside_a_unit_file_is_no_unit(path: str) -> None:
    machine = replace(host(), files=(*FILES, ManagedFile(path, "f" * 64, content=MARK)))
    assert generation.obsolete_units(machine, [UNIT]) == ()


WHEEL = Upload("/opt/multigpu/wheels/a/x.whl", "x.whl", None, "f" * 64, 1000)
LOCK = Upload("/opt/multigpu/wheels/a/requirements.txt", content=b"x==1\n")


def test_files_are_there_when_their_size_is_right() -> None:
    there = (ManagedFile(WHEEL.path, None, 1000), ManagedFile(LOCK.path, None, 5))
    assert generation.uploads_missing(Host("tower", paths=there), (WHEEL, LOCK)) == ()
    assert generation.uploads_missing(Host("tower", files=there), (WHEEL, LOCK)) == ()


def test_files_that_do_not_fit_the_disk_twice_are_refused_before_they_travel() -> None:
    model = Upload("/var/lib/multigpu/models/a/x.gguf", "x.gguf", None, "f" * 64, 40 * 2**30)
    small = Host("tower", disk_free_mib=60 * 1024)
    said = generation.lacks_room(small, (model, LOCK))
    assert said is not None and "60.0 GiB free" in said and "80.0 GiB" in said
    assert generation.lacks_room(Host("tower", disk_free_mib=90 * 1024), (model, LOCK)) is None
    assert generation.lacks_room(Host("tower"), (model,)) is None


@pytest.mark.parametrize("size", [None, 0, 999, 1001])
def test_a_file_that_is_missing_or_cut_short_is_brought_again(size: int | None) -> None:
    there = (ManagedFile(WHEEL.path, None, size), ManagedFile(LOCK.path, None, 5))
    assert generation.uploads_missing(Host("tower", paths=there), (WHEEL, LOCK)) == (WHEEL,)


def test_an_empty_file_is_there_when_it_is_empty() -> None:
    empty = Upload("/opt/multigpu/empty", content=b"")
    machine = Host("tower", paths=(ManagedFile(empty.path, None, 0),))
    assert generation.uploads_missing(machine, (empty,)) == ()


def test_the_layout_is_complete_when_each_directory_has_its_owner() -> None:
    owned = [ManagedFile(path, None, owner=own) for path, own in generation.DIRECTORIES.items()]
    assert not generation.layout_missing(Host("tower", paths=tuple(owned)))
    stolen = (*owned[:-1], replace(owned[-1], owner="root:root"))
    assert generation.layout_missing(Host("tower", paths=stolen))
    assert generation.layout_missing(Host("tower", paths=tuple(owned[1:])))


def test_a_runtime_is_installed_once_its_stamp_is_there() -> None:
    recipe = Recipe("/opt/multigpu/runtimes/x/bin/vllm", "/opt/multigpu/runtimes/x")
    stamp = ManagedFile("/opt/multigpu/runtimes/x/installed", "f" * 64)
    assert generation.runtime_missing(Host("tower"), recipe)
    assert not generation.runtime_missing(Host("tower", files=(stamp,)), recipe)
    assert not generation.runtime_missing(Host("tower"), Recipe("/usr/bin/vllm"))


def test_a_process_with_another_command_line_is_restarted_though_its_revision_is_planned() -> None:
    planned = replace(UNIT, argv=("/usr/bin/python3", "x.pyz", "--tensor-split", "6,7"))
    other = replace(planned, argv=("/usr/bin/python3", "x.pyz", "--tensor-split", "1,0"))
    for running, reason in ((planned, None), (other, "runs another command line than planned")):
        state = replace(RUNNING, command_sha256=running.command_sha256)
        assert generation.restart_reason(host(state), planned) == reason
