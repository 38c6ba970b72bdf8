"""What the kernel log of a machine says, with every prefix that tools put before a message.

Formats: Linux drivers/pci/pci.c, drivers/pci/pcie/{aer,dpc}.c, mm/oom_kill.c, arch/x86/mm/fault.c,
kernel/printk; NVIDIA open-gpu-kernel-modules; drivers/gpu/drm/amd/amdgpu; systemd journalctl(1).
The events are simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone

from multigpu.hardware import KernelEvent, PcieBandwidth
from tests.rigs.dialect import Dialect

BOOT = datetime(2025, 5, 15, 8, 0, 0, tzinfo=timezone.utc)  # noqa: UP017 (hosts run Python 3.9)
GT_PER_S = {1: "2.5", 2: "5.0", 3: "8.0", 4: "16.0", 5: "32.0", 6: "64.0"}


def _then(micros: int) -> datetime:
    return BOOT + timedelta(microseconds=micros)


def _dmesg(micros: int) -> str:
    return f"{micros // 10**6}.{micros % 10**6:06}"


def _syslog(micros: int) -> str:
    return f"{_then(micros):%b} {_then(micros).day:2} {_then(micros):%H:%M:%S}"


# Name -> the time as printed, and the prefix around it ({} is the time).
PREFIXES: dict[str, tuple[Callable[[int], str], str]] = {
    "dmesg": (_dmesg, "[{:>12}] "),
    "dmesg-T": (lambda m: f"{_then(m):%a %b %d %H:%M:%S %Y}", "[{}] "),
    "dmesg-x": (_dmesg, "kern  :warn  : [{:>12}] "),
    "dmesg-iso": (
        lambda m: f"{_then(m):%Y-%m-%dT%H:%M:%S},{m % 10**6:06}+00:00",
        "{} ",
    ),
    "dmesg-x-iso": (
        lambda m: f"{_then(m):%Y-%m-%dT%H:%M:%S},{m % 10**6:06}+00:00",
        "kern  :warn  : {} ",
    ),
    "dmesg-caller": (_dmesg, "[{:>12}][ T1234] "),
    "dmesg-r": (_dmesg, "<4>[{:>12}] "),
    "kmsg": (lambda m: str(m), "4,3973,{},-;"),
    "journal-short": (_syslog, "{} rig-7 kernel: "),
    "journal-short-precise": (lambda m: f"{_syslog(m)}.{m % 10**6:06}", "{} rig-7 kernel: "),
    "journal-short-iso": (lambda m: f"{_then(m):%Y-%m-%dT%H:%M:%S}+0200", "{} rig-7 kernel: "),
    "journal-short-unix": (
        lambda m: f"{int(_then(m).timestamp())}.{m % 10**6:06}",
        "{} rig-7 kernel: ",
    ),
    "probe": (
        lambda m: f"{int(_then(m).timestamp())}.{m % 10**6:06}",
        "{} kernel: ",
    ),
    "journal-short-monotonic": (_dmesg, "[{:>12}] rig-7 kernel: "),
    "syslog": (_syslog, "{} rig-7 kernel: [ 1234.567890] "),
    "quoted": (_dmesg, "> [{:>12}] "),
    "bare": (lambda m: "", ""),
}


def time(micros: int, dialect: Dialect) -> str | None:
    """The time of an event as this log prints it, None where it prints none."""
    return PREFIXES[dialect.log_prefix][0](micros) or None


def render(events: Iterable[tuple[int, KernelEvent]], dialect: Dialect) -> str:
    """The log of events at microseconds after boot, among lines that mean nothing."""
    stamp, prefix = PREFIXES[dialect.log_prefix]
    rows = [(0, "Linux version " + dialect.kernel + " (simulated)")]
    named: set[str] = set()
    for micros, event in events:
        if event.uuid and event.address and event.address not in named:
            named.add(event.address)
            rows.append((micros, f"NVRM: GPU at PCI:{event.address[:-2]}: {event.uuid}"))
        messages = MESSAGES[event.kind](event, dialect)
        rows += [(micros, message) for message in messages]
        rows.append((micros, "pcieport 0000:00:01.0: AER: enabled with IRQ 26"))
    glue = "\n>\n" if dialect.log_prefix == "quoted" else "\n"
    return glue.join(prefix.format(stamp(at)) + message for at, message in rows) + "\n"


def _xid(event: KernelEvent, dialect: Dialect) -> list[str]:
    """The process is named since 510, its id since 450; an unknown one is put in quotes."""
    where = f"PCI:{event.address[:-2]}" if event.address else ""
    process = ""
    if dialect.branch >= 450:
        process = f" pid={event.pid if event.pid is not None else chr(39) + '<unknown>' + chr(39)},"
    if dialect.branch >= 510:
        process += f" name={event.process or '<unknown>'},"
    return [f"NVRM: Xid ({where}): {event.code},{process} {event.text}"] * event.lines


def _sxid(event: KernelEvent, dialect: Dialect) -> list[str]:
    line = f"nvidia-nvswitch1: SXid (PCI:{event.address}): {event.code}, "
    return [line + str(event.text)] + [line + "Data {0x10000000}"] * (event.lines - 1)


def _aer(event: KernelEvent, dialect: Dialect) -> list[str]:
    """The port reports for a device below; then the device's own registers."""
    first = f"pcieport 0000:00:01.0: AER: {event.text}: {event.address}"
    detail = f"nvidia {event.address}:   device [10de:2204] error status/mask=00000001/0000a000"
    return [first, detail] if event.lines == 2 else [first]


def _dpc(event: KernelEvent, dialect: Dialect) -> list[str]:
    return [f"pcieport {event.address}: DPC: {event.text}"]


def pcie_text(link: PcieBandwidth, dialect: Dialect) -> str:
    """The body of __pcie_print_link_status: `8 GT/s` before Linux 5, `8.0 GT/s PCIe` since."""
    old = dialect.kernel.startswith("4")

    def speed(gen: int | None) -> str:
        words = GT_PER_S.get(gen or 0, "")
        if not words:
            return "Unknown"
        return words.removesuffix(".0") + " GT/s" if old else words + " GT/s PCIe"

    able = f"{speed(link.gen_capable)} x{link.width_capable} link"
    if link.at is None:
        return f"{link.available_gbit_s:.3f} Gb/s available PCIe bandwidth ({able})"
    limit = f"{speed(link.gen)} x{link.width} link at {link.at}"
    return (
        f"{link.available_gbit_s:.3f} Gb/s available PCIe bandwidth, limited by {limit} "
        f"(capable of {link.capable_gbit_s:.3f} Gb/s with {able})"
    )


def _pcie(event: KernelEvent, dialect: Dialect) -> list[str]:
    assert event.pcie is not None
    return [f"pci {event.address}: {pcie_text(event.pcie, dialect)}"]


def _off_the_bus(event: KernelEvent, dialect: Dialect) -> list[str]:
    """At run time one line; when the module loads three, as open-gpu-kernel-modules prints them."""
    if event.text and event.text.startswith("GPU"):
        return [f"NVRM: GPU {event.address}: {event.text}"]
    return [
        f"NVRM: The NVIDIA GPU {event.address}",
        "NVRM: (PCI ID: 10de:2330) installed in this system has",
        f"NVRM: {event.text}",
    ]


def _oom(event: KernelEvent, dialect: Dialect) -> list[str]:
    return [str(event.text)]


MESSAGES: dict[str, Callable[[KernelEvent, Dialect], list[str]]] = {
    "xid": _xid,
    "sxid": _sxid,
    "aer": _aer,
    "dpc": _dpc,
    "pcie-bandwidth": _pcie,
    "off-the-bus": _off_the_bus,
    "init-failed": lambda event, dialect: [f"NVRM: GPU {event.address}: {event.text}"],
    "api-mismatch": lambda event, dialect: [f"NVRM: {event.text}"],
    "device-handle": lambda event, dialect: [str(event.text)],
    "d3cold": lambda event, dialect: [f"nvidia {event.address}: {event.text}"],
    "oom": _oom,
    "segfault": lambda event, dialect: [f"{event.process}[{event.pid}]: {event.text}"],
    "amdgpu-reset": lambda event, dialect: [f"amdgpu {event.address}: amdgpu: {event.text}"],
    "amdgpu-timeout": lambda event, dialect: [f"amdgpu {event.address}: amdgpu: {event.text}"],
    "amdgpu-ras": lambda event, dialect: [f"amdgpu {event.address}: amdgpu: {event.text}"],
}
