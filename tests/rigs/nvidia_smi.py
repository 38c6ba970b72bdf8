"""`nvidia-smi -q -x`, `-q`, `-L` and `--query-gpu` of a made-up host; the two long forms say so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from types import MappingProxyType

from multigpu.hardware import Gpu, Host
from tests.rigs import nvidia_facts as facts
from tests.rigs.dialect import Dialect
from tests.rigs.nvidia_nodes import LOST, NA, Node, no_handle, nvml_bus_id, switched, watts, yes

# Utilization in percent by index; a card that is not there prints N/A.
Busy = Mapping[int, int | None]
UNKNOWN: Busy = MappingProxyType({})
DTD = ((580, "v13"), (525, "v12"), (450, "v11"), (0, "v10"))


def query_xml(host: Host, dialect: Dialect, busy: Busy = UNKNOWN) -> str:
    """The XML; pasted copies are indented with blanks."""
    dtd = next(version for branch, version in DTD if dialect.branch >= branch)
    lines = [
        '<?xml version="1.0" ?>',
        f'<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_{dtd}.dtd">',
        f"<!-- {dialect.remark} -->",
        "<nvidia_smi_log>",
        f"\t<timestamp>{dialect.now:%c}</timestamp>",
        f"\t<driver_version>{dialect.driver}</driver_version>",
        f"\t<cuda_version>{dialect.cuda}</cuda_version>",
        f"\t<attached_gpus>{len(host.gpus)}</attached_gpus>",
        *(line for gpu in host.gpus for line in _card_xml(gpu, dialect, busy)),
        "</nvidia_smi_log>",
        "",
    ]
    return "\n".join(line.replace("\t", "    ") if dialect.pasted else line for line in lines)


def _card_xml(gpu: Gpu, dialect: Dialect, busy: Busy) -> Iterator[str]:
    yield f'\t<gpu id="{nvml_bus_id(gpu.pci_bus_id)}">'
    for node in facts.card(gpu, dialect, busy.get(gpu.index)):
        yield from _element(node, 2, gpu.error == LOST)
    if dialect.branch >= 450:
        yield "\t\t<mig_devices>"
        for device in gpu.mig_devices:
            yield from _element(facts.mig_device(device, dialect), 3)
        yield from [] if gpu.mig_devices else ["\t\t\tNone"]
        yield "\t\t</mig_devices>"
    yield "\t\t<supported_clocks>\n\t\t\t<supported_mem_clock>"
    yield "\t\t\t\t<value>9751 MHz</value>\n\t\t\t</supported_mem_clock>\n\t\t</supported_clocks>"
    yield "\t\t<processes>"
    for held in gpu.processes:
        yield from _element(facts.process(held, dialect), 3)
    yield "\t\t</processes>\n\t\t<accounted_processes>\n\t\t</accounted_processes>\n\t</gpu>"


def _element(node: Node, depth: int, lost: bool = False) -> Iterator[str]:
    """One element; a lost card has its error in every cell but the address."""
    indent, name = "\t" * depth, node.xml
    if name is None:
        return
    if node.children is None:
        cell = LOST if lost and name != "pci_bus_id" else escape(str(node.cell), quote=False)
        yield f"{indent}<{name}>{cell}</{name}>"
        return
    yield f"{indent}<{name}>"
    for child in node.children:
        yield from _element(child, depth + 1, lost)
    yield f"{indent}</{name}>"


def query_text(host: Host, dialect: Dialect, busy: Busy = UNKNOWN) -> str:
    """The same in words; names are padded to 42 columns, to 55 since driver 580."""
    column = 55 if dialect.branch >= 580 else 42
    lines = [f"# {dialect.remark}", "", "==============NVSMI LOG==============", ""]
    for name, cell in [("Timestamp", f"{dialect.now:%c}"), *_versions(dialect)]:
        lines.append(_pair(0, name, cell, column))
    lines += ["", _pair(0, "Attached GPUs", str(len(host.gpus)), column)]
    for gpu in host.gpus:
        lines.append(f"GPU {nvml_bus_id(gpu.pci_bus_id)}")
        lines += [*_card_text(gpu, dialect, column, busy), ""]
    return "\n".join(f"  {line}" if dialect.pasted and line else line for line in lines) + "\n"


def _versions(dialect: Dialect) -> list[tuple[str, str]]:
    """610 renamed both and says so behind the old ones."""
    driver, cuda = dialect.driver, dialect.cuda
    if dialect.branch < 610:
        return [("Driver Version", driver), ("CUDA Version", cuda)]
    old = "[Deprecated; will be removed in CUDA 14.0. Use {} instead]"
    return [
        ("Driver Version", f"{driver} {old.format('KMD Version')}"),
        ("CUDA Version", f"{cuda} {old.format('CUDA UMD Version')}"),
        ("KMD Version", driver),
        ("CUDA UMD Version", cuda),
    ]


def _card_text(gpu: Gpu, dialect: Dialect, column: int, busy: Busy) -> Iterator[str]:
    for node in facts.card(gpu, dialect, busy.get(gpu.index)):
        yield from _words(node, 1, column, gpu.error == LOST)
        if node.xml == "mig_mode":
            for device in gpu.mig_devices:
                yield from _words(facts.mig_device(device, dialect), 1, column)
    if not gpu.processes:
        yield _pair(1, "Processes", "None", column)
        return
    yield "    Processes"
    for held in gpu.processes:
        for node in facts.process(held, dialect).children or ():
            yield from _words(node, 2, 42)


def _words(node: Node, depth: int, column: int, lost: bool = False) -> Iterator[str]:
    if node.words is None:
        return
    if node.children is None:
        cell = LOST if lost and node.words != "Bus Id" else str(node.cell)
        yield _pair(depth, node.words, cell, column)
        return
    yield "    " * depth + node.words
    for child in node.children:
        yield from _words(child, depth + 1, column, lost)


def _pair(depth: int, name: str, cell: str, column: int) -> str:
    return f"{'    ' * depth + name:<{column}}: {cell}"


def list_gpus(host: Host, dialect: Dialect) -> str:
    """`-L`; the format has no room to say that the host is made up."""
    lines = []
    for gpu in host.gpus:
        if gpu.error == LOST:
            lines.append(no_handle(gpu, dialect))
            continue
        lines.append(f"GPU {gpu.index}: {gpu.name} (UUID: {gpu.uuid})")
        lines += [
            f"  MIG {d.profile or '':<11} Device {d.index:>2}: (UUID: {d.uuid})"
            for d in gpu.mig_devices
        ]
    return "\n".join(lines) + "\n"


# Field of --query-gpu -> unit in the header and behind the value.
UNITS = {
    **dict.fromkeys(("memory.total", "memory.reserved", "memory.used", "memory.free"), "MiB"),
    **dict.fromkeys(("power.draw", "power.limit", "power.default_limit", "power.max_limit"), "W"),
    "utilization.gpu": "%",
}


def query_csv(
    host: Host,
    dialect: Dialect,
    fields: Sequence[str],
    header: bool = True,
    units: bool = True,
    busy: Busy = UNKNOWN,
) -> str:
    """`--query-gpu=FIELDS --format=csv[,noheader][,nounits]`: `nounits` leaves the header's.

    Raises KeyError with the name of a field that is none.
    """
    names = [f"{name} [{UNITS[name]}]" if name in UNITS else name for name in fields]
    rows = [
        [
            _cell(_field(host, gpu, dialect, name, busy), UNITS.get(name, "") if units else "")
            for name in fields
        ]
        for gpu in host.gpus
    ]
    return "".join(", ".join(row) + "\n" for row in ([names] if header else []) + rows)


def _cell(value: str, unit: str) -> str:
    if value == NA:
        return "[N/A]"
    if value == f"[{LOST}]":
        return value
    return f"{value} {unit}" if unit else value


def _field(host: Host, gpu: Gpu, dialect: Dialect, name: str, busy: Busy) -> str:
    """One cell; every field the tests ask for."""
    link, rows = gpu.pcie, gpu.remapped_rows
    capability = ".".join(map(str, gpu.compute_capability or ()))
    reason = name.rpartition(".")[2]
    cells: dict[str, object] = {
        "index": gpu.index,
        "count": len(host.gpus),
        "driver_version": dialect.driver,
        "timestamp": f"{dialect.now:%Y/%m/%d %H:%M:%S.737}",
        "name": gpu.name,
        "uuid": gpu.uuid,
        "pci.bus_id": nvml_bus_id(gpu.pci_bus_id),
        "vbios_version": gpu.vbios_version,
        "compute_cap": capability or None,
        "memory.total": gpu.memory_mib,
        "memory.reserved": gpu.memory_reserved_mib,
        "memory.used": gpu.memory_used_mib,
        "memory.free": gpu.memory_free_mib,
        "pcie.link.gen.current": link.gen_current,
        "pcie.link.gen.max": link.gen_max,
        "pcie.link.gen.gpumax": link.gen_gpu_max,
        "pcie.link.gen.hostmax": link.gen_host_max,
        "pcie.link.width.current": link.width_current,
        "pcie.link.width.max": link.width_max,
        "power.draw": watts(gpu.power_draw_w).removesuffix(" W"),
        "power.limit": watts(gpu.power_limit_w).removesuffix(" W"),
        "power.default_limit": watts(gpu.power_limit_default_w).removesuffix(" W"),
        "power.max_limit": watts(gpu.power_limit_max_w).removesuffix(" W"),
        "temperature.gpu": gpu.temperature_c,
        "pstate": gpu.performance_state,
        "persistence_mode": switched(gpu.persistence_mode),
        "display_active": switched(gpu.display_attached),
        "compute_mode": gpu.compute_mode,
        "ecc.mode.current": switched(gpu.ecc),
        "ecc.errors.corrected.volatile.total": gpu.ecc_corrected,
        "ecc.errors.uncorrected.volatile.total": gpu.ecc_uncorrected,
        "mig.mode.current": switched(gpu.mig),
        "gpu_recovery_action": gpu.recovery_action,
        "fabric.state": gpu.fabric_state,
        "remapped_rows.correctable": rows.correctable if rows else None,
        "remapped_rows.uncorrectable": rows.uncorrectable if rows else None,
        "remapped_rows.pending": yes(rows.pending if rows else None),
        "remapped_rows.failure": yes(rows.failure if rows else None),
        "utilization.gpu": busy.get(gpu.index),
    }
    if name.startswith(("clocks_event_reasons.", "clocks_throttle_reasons.")):
        return "Active" if reason in gpu.throttle_reasons else "Not Active"
    value = cells[name]
    if gpu.error == LOST:
        return f"[{LOST}]"
    return NA if value is None else str(value)
