"""The units that watch a host: as text, judged by systemd, and left alone by serve."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from multigpu import generation, monitoring, units
from multigpu.errors import MultigpuError
from multigpu.hardware import Gpu, Host, ManagedFile, UnitState, Vendor
from multigpu.host import exporter
from multigpu.store import texts
from tests import hardened
from tests.plans import UUIDS

TEMPLATES = texts.templates(hardened.ROOT / "templates")
PROGRAM = "/opt/multigpu/host/multigpu-host.pyz"


def rendered(listen: str = monitoring.LISTEN) -> dict[str, monitoring.MonitorUnit]:
    made = monitoring.render(listen, host_program=PROGRAM, templates=TEMPLATES)
    return {unit.name: unit for unit in made}


def lines(unit: monitoring.MonitorUnit) -> list[str]:
    return unit.files[0].content.splitlines()


@pytest.mark.skipif(not hardened.can_judge(), reason="no systemd-analyze that judges files here")
@pytest.mark.parametrize("listen", [monitoring.LISTEN, "0.0.0.0:18835", "93.184.216.34:9"])
@pytest.mark.parametrize("name", [monitoring.EXPORTER, monitoring.KERNEL_LOG])
def test_the_exposure_of_a_watcher_is_at_most_2(name: str, listen: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(rendered(listen)[name].files[0].content)
    score, good = hardened.exposure(path)
    assert good and score <= 2.0
    done = hardened.analyze("verify", "--recursive-errors=no", str(path))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_exporter_is_nobody_and_the_kernel_log_may_read_and_nothing_else() -> None:
    made = rendered()
    of_exporter, of_log = lines(made[monitoring.EXPORTER]), lines(made[monitoring.KERNEL_LOG])
    assert {"DynamicUser=yes", "CapabilityBoundingSet=", "ProtectKernelLogs=yes"} <= {*of_exporter}
    assert "SupplementaryGroups=multigpu" in of_exporter
    assert "SocketBindAllow=tcp:18835" in of_exporter
    assert "DeviceAllow=char-nvidia rw" in of_exporter
    assert {"CapabilityBoundingSet=CAP_SYSLOG", "DeviceAllow=/dev/kmsg rw"} <= {*of_log}
    assert "PrivateNetwork=yes" in of_log and "ProtectKernelLogs=yes" not in of_log


def test_the_ports_of_program_and_deploy_are_the_same() -> None:
    assert monitoring.listening(monitoring.LISTEN) == ("127.0.0.1", exporter.PORT)


@pytest.mark.parametrize(
    ("listen", "found", "url"),
    [
        ("127.0.0.1:9", ("127.0.0.1", 9), "http://127.0.0.1:9/metrics"),
        ("0.0.0.0:9", ("0.0.0.0", 9), "http://127.0.0.1:9/metrics"),
        ("[::]:9", ("::", 9), "http://[::1]:9/metrics"),
    ],
)
def test_where_it_listens_is_where_it_is_asked(
    listen: str, found: tuple[str, int], url: str
) -> None:
    assert monitoring.listening(listen) == found
    assert rendered(listen)[monitoring.EXPORTER].url == url
    words = "\n".join(lines(rendered(listen)[monitoring.EXPORTER])).replace('"', "")
    assert f"--listen {listen}" in words


@pytest.mark.parametrize("listen", ["", "9", ":9", "::1:9", "a:0", "a:65536", "a:٣", "[::1]"])
def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(MultigpuError, match=r"exporter_listen is .*: give address and port"):
        monitoring.listening(listen)


def host_with(*states: UnitState) -> Host:
    files = tuple(
        ManagedFile(f"{units.UNIT_DIRECTORY}/{state.name}", "0", content=units.MARK)
        for state in states
    )
    return replace(Host(name="one"), units=states, files=files)


def test_serve_leaves_the_watchers_and_remove_takes_them() -> None:
    machine = host_with(
        *(UnitState(name, revision="1") for name in generation.HOST_UNITS),
        UnitState("multigpu-old.service", revision="1"),
    )
    assert generation.obsolete_units(machine, ()) == ("multigpu-old.service",)
    assert {monitoring.EXPORTER, monitoring.KERNEL_LOG} <= generation.our_units(machine)


def test_a_watcher_is_started_again_only_for_another_revision() -> None:
    unit = rendered()[monitoring.EXPORTER]
    running = UnitState(unit.name, active_state="active", revision=unit.revision)
    assert monitoring.restart_reason(host_with(running), unit) is None
    assert monitoring.restart_reason(host_with(), unit) == "not running"
    older = replace(running, revision="0")
    assert "runs revision 0" in (monitoring.restart_reason(host_with(older), unit) or "")
    failed = replace(running, active_state="failed")
    assert monitoring.restart_reason(host_with(failed), unit) == "not running"


def test_links_of_rules_lead_to_where_the_runbook_is() -> None:
    text = 'runbook_url: "docs/runbook/X.md"'
    assert monitoring.rules(text, None) == text
    moved = monitoring.rules(text, "https://wiki.example/gpu/")
    assert moved == 'runbook_url: "https://wiki.example/gpu/X.md"'


def test_facts_of_a_plan_name_cards_and_predicted_bytes() -> None:
    made = hardened.plan()
    unit = hardened.rendered(made)
    (file,) = monitoring.plan_facts(host_of(made), made, [unit]).files
    found = json.loads(file.content)
    assert file.path == "/etc/multigpu/chat.plan.json"
    assert (found["wish"], found["revision"]) == ("chat", unit.revision)
    predicted = [int(memory.total_mib * 2**20) for memory in made.chosen.memory]
    assert [gpu["predicted_memory_bytes"] for gpu in found["gpus"]] == predicted != []
    assert [gpu["uuid"] for gpu in found["gpus"]] == [*UUIDS]


def host_of(made: hardened.Plan) -> Host:
    gpus = tuple(
        Gpu(index=index, uuid=uuid, vendor=Vendor.NVIDIA, pci_bus_id=f"0000:0{index + 1}:00.0")
        for index, uuid in enumerate(UUIDS)
    )
    return replace(Host(name=made.host), gpus=gpus)
