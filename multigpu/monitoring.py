"""What watches a host: the exporter's unit, the kernel log's, and what they are told of plans.

Values only; `operations.monitoring` brings them to a host. These units belong to the host and not
to a service: `deploys/monitor.py` makes them, `deploys/remove.py` takes them, `serve` leaves them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from multigpu import devices
from multigpu.errors import MultigpuError
from multigpu.hardware import Host
from multigpu.plan import Plan, Service
from multigpu.sandbox import LOCALHOST, PRIVATE, Sandbox, scope
from multigpu.unit_text import digest, environment
from multigpu.units import CONFIG_DIRECTORY, UNIT_DIRECTORY, RenderedUnit, TextFile

EXPORTER, KERNEL_LOG = "multigpu-exporter.service", "multigpu-kernel-log.service"
TEMPLATES = {EXPORTER: f"{EXPORTER}.j2", KERNEL_LOG: f"{KERNEL_LOG}.j2"}
COMMANDS = {EXPORTER: "exporter", KERNEL_LOG: "kernel-log"}
LISTEN = "127.0.0.1:18835"
"""As multigpu.host.exporter.PORT."""
MIB = 1024 * 1024
RUNBOOK = "docs/runbook/"
"""How the links of the alert rules begin, for those who have the pages elsewhere to replace."""
CALLBACKS = "ctypes makes a callback when it is loaded (Python before 3.10, libffi before 3.4)"


@dataclass(frozen=True)
class MonitorUnit:
    """One unit as text. `revision` is what its process carries; `url` answers when it works."""

    name: str
    revision: str
    files: tuple[TextFile, ...]
    url: str | None = None


@dataclass(frozen=True)
class PlanFacts:
    """Files beside the units that tell the exporter what is planned; nothing restarts by them."""

    files: tuple[TextFile, ...]
    name: str = "multigpu-plan-facts"


def render(
    listen: str, *, host_program: str, templates: Mapping[str, str]
) -> tuple[MonitorUnit, ...]:
    """Both units. `listen` is `address:port`. Raises MultigpuError when it is not."""
    address, port = listening(listen)
    inside = f"[{address}]" if ":" in address else address
    exporter = _unit(
        EXPORTER,
        ("--listen", f"{inside}:{port}"),
        _exporter_sandbox(address, port),
        host_program,
        templates,
    )
    url = f"http://{_local(address)}:{port}/metrics"
    kernel_log = _unit(KERNEL_LOG, (), KERNEL_LOG_SANDBOX, host_program, templates)
    return (kernel_log, MonitorUnit(exporter.name, exporter.revision, exporter.files, url))


def listening(listen: str) -> tuple[str, int]:
    """Address and port of `127.0.0.1:18835` or `[::]:18835`. Raises MultigpuError."""
    address, _, port = str(listen).rpartition(":")
    bare = address[1:-1] if address[:1] == "[" and address[-1:] == "]" else address
    if not bare or (":" in bare) != (bare != address) or not _is_port(port):
        raise MultigpuError(
            f"exporter_listen is {listen!r}: give address and port, as {LISTEN} or [::]:18835"
        )
    return bare, int(port)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text) < 1 << 16


def _local(address: str) -> str:
    inside = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    return f"[{inside}]" if ":" in inside else inside


def _exporter_sandbox(address: str, port: int) -> Sandbox:
    kind = scope(address)
    allowed = {"loopback": LOCALHOST, "private": PRIVATE, "public": None}[kind]
    return Sandbox(
        devices=devices.CUDA_DEVICES,
        tcp_ports=(port,),
        addresses=allowed,
        addresses_why=f"it listens at the public address {address}",
        write_execute=CALLBACKS,
    )


KERNEL_LOG_SANDBOX = Sandbox(
    devices=("/dev/kmsg",), capabilities=("CAP_SYSLOG",), reads_kernel_log=True
)


def _unit(
    name: str,
    options: tuple[str, ...],
    sandbox: Sandbox,
    host_program: str,
    templates: Mapping[str, str],
) -> MonitorUnit:
    template = environment(templates).get_template(TEMPLATES[name])
    argv = ("/usr/bin/python3", host_program, COMMANDS[name], *options)
    values = {"argv": argv, "sandbox": sandbox}
    revision = digest(template.render(values, revision=""))
    text = template.render(values, revision=revision)
    return MonitorUnit(name, revision, (TextFile(f"{UNIT_DIRECTORY}/{name}", text),))


def restart_reason(machine: Host, unit: MonitorUnit) -> str | None:
    """Why the unit must be started again, None when the right process runs."""
    state = machine.unit(unit.name)
    if state is None or state.active_state != "active":
        return "not running"
    if state.revision != unit.revision:
        return f"runs revision {state.revision or 'unknown'}, this is {unit.revision}"
    return None


def plan_facts(machine: Host, plan: Plan, units: Iterable[RenderedUnit]) -> PlanFacts:
    """What the exporter tells of each process of a plan: `/etc/multigpu/<service>.plan.json`."""
    return PlanFacts(
        tuple(
            TextFile(
                f"{CONFIG_DIRECTORY}/{unit.service.name}.plan.json",
                json.dumps(_facts(machine, plan, unit), indent=1) + "\n",
            )
            for unit in units
        )
    )


def _facts(machine: Host, plan: Plan, unit: RenderedUnit) -> dict[str, Any]:
    return {
        "schema": 1,
        "service": unit.service.name,
        "wish": plan.wish.name,
        "revision": unit.revision,
        "runtime": plan.chosen.runtime,
        "strategy": str(plan.chosen.strategy),
        "model": plan.wish.model,
        "simulated": plan.simulated,
        "gpus": [_gpu(machine, plan, unit.service, index) for index in _cards(unit.service)],
    }


def _cards(service: Service) -> tuple[int, ...]:
    return tuple(dict.fromkeys(service.gpus))


def _gpu(machine: Host, plan: Plan, service: Service, index: int) -> dict[str, Any]:
    gpu = machine.gpu(index)
    memory = dict(zip(plan.chosen.gpus, plan.chosen.memory, strict=False)).get(index)
    return {
        "index": index,
        "uuid": gpu.uuid,
        "pci_address": None if gpu.pci_bus_id is None else gpu.pci_bus_id.lower(),
        "vendor": gpu.vendor.value,
        "predicted_memory_bytes": None if memory is None else int(memory.total_mib * MIB),
    }


def rules(text: str, runbook_url: str | None) -> str:
    """The alert rules with links to where the pages of the runbook are."""
    base = None if runbook_url is None else runbook_url.rstrip("/") + "/"
    return text if base is None else text.replace(f'"{RUNBOOK}', f'"{base}')
