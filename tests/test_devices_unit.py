"""The cards are looked for before any service starts, and only what lacks one stays down."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from multigpu import devices_unit
from multigpu.backend import Backend
from multigpu.hardware import Gpu, Host, Vendor
from multigpu.host import devices
from multigpu.store import texts
from tests import hardened
from tests.plans import UUIDS, plan

SOURCE = Path(__file__).parent.parent
A, B = UUIDS
NVIDIA_SMI = """\
#!/bin/sh
[ "$1" = -L ] || exit 0
echo 'GPU 0: NVIDIA GeForce RTX 3090 (UUID: {0})'
{1}
"""
LISTED = f"echo 'GPU 1: NVIDIA GeForce RTX 3090 (UUID: {B})'"
LOST = "echo 'Unable to determine the device handle for GPU1: 0000:02:00.0: Unknown Error'; exit 15"


def look(folder: Path, second_card: str, *services: str) -> tuple[int, str, list[str]]:
    """Exit status, what was said, and the services that may start."""
    programs, ready = folder / "bin", folder / "ready"
    programs.mkdir(exist_ok=True)
    ready.mkdir(exist_ok=True)
    (programs / "nvidia-smi").write_text(NVIDIA_SMI.format(A, second_card))
    (programs / "nvidia-smi").chmod(0o755)
    program = "import sys; from multigpu.host import devices as d; sys.exit(d.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "--limit-s", "0", *services],
        env={
            "PATH": f"{programs}:/usr/bin:/bin",
            "PYTHONPATH": str(SOURCE),
            "RUNTIME_DIRECTORY": str(ready),
        },
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.returncode, done.stderr, sorted(os.listdir(ready))


@pytest.mark.process
def test_services_whose_cards_are_there_may_start(tmp_path: Path) -> None:
    assert look(tmp_path, LISTED, f"chat={A},{B}", f"code={B}") == (0, "", ["chat", "code"])
    assert look(tmp_path, LISTED, "chat=#1,/etc/passwd")[2] == ["chat"]


@pytest.mark.process
def test_a_lost_card_is_told_in_a_line_and_stops_only_the_service_that_needs_it(
    tmp_path: Path,
) -> None:
    look(tmp_path, LISTED, f"chat={A},{B}", f"code={A}")
    status, said, ready = look(tmp_path, LOST, f"chat={A},{B}", f"code={A}")
    assert (status, ready) == (1, ["code"])
    (line,) = said.splitlines()
    assert line.startswith(f"multigpu: chat does not start: {B} is not listed by nvidia-smi -L")
    assert "which has 1 cards and says: Unable to determine the device handle for GPU1" in line
    assert "; do: " in line


@pytest.mark.process
@pytest.mark.parametrize("word", ["/dev/none", "0000:ff:1f.7"])
def test_a_device_file_or_an_amd_card_that_is_not_there_is_told(tmp_path: Path, word: str) -> None:
    status, said, ready = look(tmp_path, LISTED, f"chat={word}")
    assert (status, ready) == (1, [])
    assert word in said


def test_a_card_that_comes_late_is_waited_for() -> None:
    answers = [{A: "late"}, {}]
    assert devices.wait([A], 10, lambda _: answers.pop(0)) == {}
    assert answers == []


def test_a_render_node_is_found_by_the_cards_address(tmp_path: Path) -> None:
    address = "0000:03:00.0"
    (tmp_path / f"sys/bus/pci/devices/{address}/drm/renderD128").mkdir(parents=True)
    (tmp_path / "dev/dri").mkdir(parents=True)
    assert not devices.render_node(address, str(tmp_path))
    (tmp_path / "dev/dri/renderD128").symlink_to("/dev/null")
    assert devices.render_node(address, str(tmp_path))


GPUS = (
    Gpu(0, uuid=A, pci_bus_id="0000:01:00.0"),
    Gpu(1, uuid=None),
    Gpu(2, uuid="0x1234", vendor=Vendor.AMD, pci_bus_id="0000:0C:00.0"),
)
MACHINE = Host("tower", gpus=GPUS)


def test_cards_are_named_by_what_stays_theirs() -> None:
    made = plan()
    both = replace(made.chosen, gpus=(0, 1))
    assert devices_unit.wanted(MACHINE, replace(made, chosen=both, simulated=True)) == (A, "#1")
    nvidia = devices_unit.wanted(MACHINE, replace(made, chosen=both))
    assert nvidia[2:] == ("/dev/nvidiactl", "/dev/nvidia-uvm")
    amd = replace(made, chosen=replace(made.chosen, gpus=(2,)), backend=Backend.HIP)
    assert devices_unit.wanted(MACHINE, amd)[:2] == ("0000:0c:00.0", "/dev/kfd")


def rendered() -> str:
    machine = Host("tower", gpus=tuple(Gpu(i, uuid=uuid) for i, uuid in enumerate(UUIDS)))
    unit = devices_unit.render(
        machine,
        (plan(), plan(name="code")),
        host_program="/opt/multigpu/host/multigpu-host.pyz",
        templates=texts.templates(SOURCE / "templates"),
    )
    assert unit.services == ("chat", "code")
    return unit.files[0].content


def test_the_unit_may_make_devices_and_little_else() -> None:
    lines = rendered().splitlines()
    assert (
        f"ExecStart=/usr/bin/python3 /opt/multigpu/host/multigpu-host.pyz devices chat={A},{B},"
        in (rendered())
    )
    assert "PrivateNetwork=yes" in lines and "ProtectSystem=strict" in lines
    assert not any(line.startswith(("DevicePolicy=", "PrivateDevices=")) for line in lines)
    assert "ProtectKernelModules=yes" not in lines


@pytest.mark.skipif(not hardened.can_judge(), reason="no systemd-analyze that judges files here")
def test_systemd_finds_nothing_to_say_and_a_root_unit_stays_below_4(tmp_path: Path) -> None:
    path = tmp_path / devices_unit.NAME
    path.write_text(rendered())
    done = hardened.analyze("verify", "--recursive-errors=no", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    score, good = hardened.exposure(path, 4.0)
    assert good, score


def test_a_service_asks_for_the_devices_first_and_for_its_own_mark() -> None:
    lines = hardened.text(hardened.unit("vLLM, CUDA")).splitlines()
    assert "AssertPathExists=/run/multigpu-devices/chat" in lines
    for key in ("Wants=", "After="):
        assert [x for x in lines if x.startswith(key) and "multigpu-devices.service" in x]
    assert not any(line.startswith("Requires=") for line in lines)
