"""The units that react are rendered only where wished, and as locked down as such a unit can be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multigpu import react_unit
from multigpu.errors import MultigpuError
from multigpu.hardware import Gpu, Host
from multigpu.host import react, reactions
from multigpu.store import texts
from tests import hardened
from tests.plans import UUIDS, plan

GPUS = tuple(Gpu(i, uuid=u, pci_bus_id=f"0000:0{i + 1}:00.0") for i, u in enumerate(UUIDS))
MACHINE = Host("tower", gpus=GPUS)


def rendered() -> dict[str, str]:
    made = plan()
    units = react_unit.render(
        MACHINE,
        (made,),
        (hardened.rendered(made),),
        allow=frozenset(("gpu_reset",)),
        host_program="/opt/multigpu/host/multigpu-host.pyz",
        templates=texts.templates(hardened.ROOT / "templates"),
    )
    return {file.path.rpartition("/")[2]: file.content for file in units.files}


@pytest.mark.parametrize("given", [None, False, {}, {"gpu_reset": False, "reboot": False}])
def test_reactions_are_off_unless_wished_and_that_is_said(given: object) -> None:
    assert react_unit.allowed(given) == frozenset()
    assert "are off" in react_unit.line(frozenset())


@pytest.mark.parametrize("given", [True, "gpu_reset", {"reset": True}, {"reboot": "yes"}])
def test_a_wish_that_is_none_is_refused(given: object) -> None:
    with pytest.raises(MultigpuError, match="reactions"):
        react_unit.allowed(given)


def test_what_is_wished_is_allowed_and_nothing_else() -> None:
    assert react_unit.allowed({"gpu_reset": True, "reboot": False}) == {"gpu_reset"}


def test_the_host_program_reads_what_is_written_for_it() -> None:
    truth = reactions.read_truth(rendered()["reactions.json"].encode())
    assert truth.allow == {"gpu_reset"}
    chat = truth.services["chat"]
    assert (chat.user, chat.units) == ("multigpu-chat", {"multigpu-chat.service": UUIDS})
    assert chat.gpus == dict(zip(UUIDS, ("0000:01:00.0", "0000:02:00.0"), strict=True))
    assert react.TRUTH == react_unit.TRUTH and react.FLAG == react_unit.FLAG
    assert json.loads(rendered()["reactions.json"])["schema"] == react_unit.SCHEMA


def test_the_path_watches_the_requests_of_every_service() -> None:
    assert "DirectoryNotEmpty=/var/lib/multigpu/chat/requests\n" in rendered()[react_unit.PATH]


def test_what_a_reset_needs_is_granted_and_the_network_is_not() -> None:
    lines = rendered()[react_unit.SERVICE].splitlines()
    granted = "CAP_SYS_ADMIN CAP_DAC_OVERRIDE CAP_SYS_PTRACE CAP_KILL"
    assert f"CapabilityBoundingSet={granted}" in lines
    assert "PrivateNetwork=yes" in lines and "DevicePolicy=closed" in lines
    assert "RuntimeDirectoryPreserve=yes" in lines, "services have their own below it"


@pytest.mark.skipif(not hardened.can_judge(), reason="no systemd-analyze that judges files here")
def test_systemd_finds_nothing_to_say_and_the_exposure_stays_below_2_5(tmp_path: Path) -> None:
    names = (react_unit.SERVICE, react_unit.PATH)
    for name in names:
        (tmp_path / name).write_text(rendered()[name])
    paths = [str(tmp_path / name) for name in names]
    done = hardened.analyze("verify", "--recursive-errors=no", *paths)
    assert (done.returncode, done.stderr) == (0, "")
    score, good = hardened.exposure(tmp_path / react_unit.SERVICE, 2.5)
    assert good, score
