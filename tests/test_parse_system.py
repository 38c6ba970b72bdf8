"""Facts of the operating system, units, files and cgroups."""

from __future__ import annotations

import pytest

from multigpu.hardware import ManagedFile
from multigpu.parse.shape import Tool, number, whole, word
from multigpu.parse.system import (
    driver_version,
    iommu,
    is_container,
    is_virtual_machine,
    read_system,
)
from multigpu.parse.units import read_files, read_paths, read_units, unit_of

SHOW = """Id=multigpu-chat.service
LoadState=loaded
ActiveState=active
SubState=running
Result=success
NRestarts=3
MainPID=4711
NeedDaemonReload=no
UnitFileState=enabled

Id=multigpu-draft.service
LoadState=loaded
ActiveState=failed
SubState=failed
Result=watchdog
NRestarts=
MainPID=0
NeedDaemonReload=yes
UnitFileState=

Id=multigpu-chat.service
LoadState=loaded
MainPID=4711

Id=multigpu-gone.service
LoadState=not-found
MainPID=0
"""


def test_units_are_read_once_each_and_absent_ones_are_left_out() -> None:
    chat, draft = read_units(SHOW, {"4711": {"revision": "r7", "started_at": 1.5}})
    assert (chat.name, chat.main_pid, chat.revision) == ("multigpu-chat.service", 4711, "r7")
    assert (chat.started_at, draft.started_at) == (1.5, None)
    assert (draft.name, draft.main_pid, draft.revision) == ("multigpu-draft.service", None, None)
    assert (draft.result, draft.n_restarts, draft.need_daemon_reload) == ("watchdog", None, True)


def test_a_running_unit_keeps_all_that_systemd_says() -> None:
    first = SHOW.split("\n\n")[0]
    (chat,) = read_units(first, {})
    assert (chat.load_state, chat.active_state, chat.sub_state) == ("loaded", "active", "running")
    assert (chat.n_restarts, chat.unit_file_state, chat.revision) == (3, "enabled", None)


def test_a_file_of_ours_has_its_hash_and_its_time() -> None:
    entry = {"path": "/etc/multigpu/a.env", "sha256": "ab", "size": 3, "mode": "0640", "mtime": 2}
    expected = ManagedFile("/etc/multigpu/a.env", "ab", 3, "0640", modified_at=2.0)
    assert read_files([entry]) == (expected,)


def test_of_the_asked_paths_those_that_exist_are_read_and_directories_have_no_size() -> None:
    directory = {"size": 4096, "owner": "a:b", "directory": True}
    paths = {"/srv/m.gguf": {"size": 9, "owner": "root:root"}, "/srv/x": None, "/srv": directory}
    assert read_paths(paths) == (
        ManagedFile("/srv", None, None, None, "a:b"),
        ManagedFile("/srv/m.gguf", None, 9, None, "root:root"),
    )


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/ollama.service", "ollama.service"),
        ("0::/system.slice/docker-ab12.scope", "docker-ab12.scope"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service/sub", "x.service"),
        ("2:cpu:/a\n1:name=systemd:/system.slice/gdm.service\n", "gdm.service"),
        ("2:cpu:/system.slice/no.service", None),
        ("0::/", None),
        (None, None),
    ],
)
def test_a_cgroup_names_the_innermost_unit(cgroup: str | None, unit: str | None) -> None:
    assert unit_of(cgroup) == unit


@pytest.mark.parametrize(
    ("groups", "command_line", "expected"),
    [
        (None, "iommu=pt", None),
        ({}, "iommu=pt", "off"),
        ({"identity": 30}, "", "passthrough"),
        ({"DMA-FQ": 20, "identity": 4}, "", "translating"),
        ({"unknown": 9}, "quiet iommu=pt", "passthrough"),
        ({"unknown": 9}, "quiet", None),
    ],
)
def test_the_iommu_is_off_passthrough_or_translating(
    groups: object, command_line: str, expected: str | None
) -> None:
    assert iommu(groups, command_line) == expected


@pytest.mark.parametrize(
    ("word_of_systemd", "machine", "container"),
    [
        ("none", False, False),
        (None, False, False),
        ("kvm", True, False),
        ("amazon", True, False),
        ("docker", False, True),
        ("systemd-nspawn", False, True),
    ],
)
def test_a_guest_is_no_container(
    word_of_systemd: str | None, machine: bool, container: bool
) -> None:
    assert is_virtual_machine(word_of_systemd) is machine
    assert is_container(word_of_systemd) is container


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 UTC 2024",
            "550.54.14",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.105.08  Release Build",
            "580.105.08",
        ),
        ("", None),
    ],
)
def test_the_module_tells_its_version_without_nvidia_smi(banner: str, version: str | None) -> None:
    assert driver_version({"/proc/driver/nvidia/version": banner}) == version


def test_a_machine_that_tells_nothing_is_all_unknown() -> None:
    system = read_system({}, Tool(missing=True), Tool(missing=True))
    assert set(vars(system).values()) == {None}


def test_bare_metal_is_a_word_that_comes_with_an_error_status() -> None:
    assert read_system({}, Tool(rc=1, stdout="none\n"), Tool()).virtualization == "none"


def test_numbers_are_read_off_the_front_of_a_cell() -> None:
    assert (number("450.00 W"), whole("16x"), whole("N/A"), whole("1.2.3")) == (
        450.0,
        16,
        None,
        None,
    )
    assert (word("[N/A]"), word(" Enabled "), word("ERR!")) == (None, "Enabled", None)
