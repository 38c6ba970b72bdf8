"""What one line of a kernel log says: an event, or nothing of interest.

Sources of the formats: Linux drivers/pci/{pci,pcie/aer,pcie/dpc}.c, mm/oom_kill.c and
arch/x86/mm/fault.c, NVIDIA open-gpu-kernel-modules, drivers/gpu/drm/amd/amdgpu.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from multigpu.hardware import KernelEvent, PcieBandwidth
from multigpu.parse.kernel.kernel_lines import Line
from multigpu.parse.pci import address
from multigpu.parse.shape import number

ADDRESS = r"((?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}(?:\.[0-7])?)"
GT_PER_S_TO_GEN = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6}
# Xids of NVLink 5 say in their text whether they are fatal.
NVLINK5_XIDS = range(144, 151)


def _rule(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.replace("ADDRESS", ADDRESS), re.ASCII | re.IGNORECASE | re.MULTILINE)


XID = _rule(
    r"NVRM: *Xid \((?:PCI:)?([0-9a-f:.]{5,20})(?: GPU-I:[0-9a-f]+)?\): (\d{1,4})(?!\d),?\s?(.*)$"
)
SXID = _rule(r"SXid \((?:PCI:)?ADDRESS\): (\d{1,6})(?!\d),?\s?(.*)$")
PID = re.compile(r"^pid='?(\d{1,10}|<unknown>)'?,? ?", re.ASCII)
NAME = re.compile(r"^name=([^,]{0,200}),? ?")
FATAL = re.compile(r"\b(Non-?fatal|Fatal)\b", re.IGNORECASE)
AER_RECEIVED = _rule(
    r"ADDRESS: (?:AER: )?((?:Multiple )?(?:Correct|Uncorrect)\w* (?:\((?:Non-)?Fatal\) )?"
    r"error (?:message )?received.*)$"
)
AER_SOURCE = _rule(r"received(?: from|:) (?:ADDRESS|id=([0-9a-f]{4}))")
AER_BUS_ERROR = _rule(r"ADDRESS: (?:AER: )?(PCIe Bus Error: severity=.*)$")
AER_DETAIL = _rule(
    r"ADDRESS: (?:AER: )?(\s*device \[[0-9a-f:]+\] error status/mask=.*|\s*\[ ?\d{1,2}\] \w.*)$"
)
AER_RECOVERY = _rule(
    r"ADDRESS: AER: (can't recover.*|device recovery failed.*|subordinate device reset failed.*)$"
)
DPC = _rule(
    r"ADDRESS: DPC: (containment event.*|unmasked uncorrectable error detected|ERR_\w+ detected.*)$"
)
PCIE = _rule(
    r"ADDRESS: (([\d.]{1,12}) Gb/s available PCIe bandwidth"
    r"(?:, limited by (.{1,30}?) x(\d{1,3}) link at (\S+))?"
    r"(?: \((?:capable of ([\d.]{1,12}) Gb/s with )?(.{1,30}?) x(\d{1,3}) link\))?.*)$"
)
OFF_THE_BUS = _rule(r"NVRM: .{0,40}?ADDRESS:? .{0,80}?((?:GPU )?has fallen off the bus.*)$")
OFF_THE_BUS_1 = _rule(r"NVRM: The NVIDIA GPU ADDRESS")
OFF_THE_BUS_2 = _rule(r"NVRM: \(PCI ID: [0-9a-f:]+\) installed in this system has")
OFF_THE_BUS_3 = _rule(r"(fallen off the bus and is not responding to commands.*)$")
INIT_FAILED = _rule(r"NVRM: GPU ADDRESS: (RmInitAdapter failed.*)$")
GPU_AT = _rule(r"NVRM: GPU at (?:PCI:)?ADDRESS: (GPU-[0-9a-f-]{8,40})")
API_MISMATCH = _rule(r"NVRM: (API mismatch: .*)$")
DEVICE_HANDLE = _rule(r"(Unable to determine the device handle for GPU ?\d* ?:? ?ADDRESS:? .*)$")
# What nvidia-smi says in place of its output.
VERSIONS_DIFFER = _rule(r"(Failed to initialize NVML: Driver/library version mismatch.*)$")
NO_ANSWER = _rule(
    r"^(NVIDIA-SMI has failed because .*|Failed to initialize NVML: .*|No devices were found)\s*$"
)
D3COLD = _rule(
    r"ADDRESS: ((?:Unable to|can't) change power state from .*|"
    r"Refused to change power state.*)$"
)
OOM = _rule(r"((?:Memory cgroup out|Out) of memory: Kill(?:ed)? process (\d{1,10}) \((.*?)\).*)$")
OOM_KILLED = _rule(r"^(Killed process (\d{1,10}) \((.*?)\).*)$")
OOM_TASK = _rule(r"(oom-kill:constraint=.*?,task=([^,]{1,200}),pid=(\d{1,10}).*)$")
CRASH = _rule(
    r"^(?:traps: )?(.{1,80}?)\[(\d{1,10})\]:? ((?:segfault at|general protection fault) .*)$"
)
AMD = _rule(
    r"amdgpu ADDRESS: (?:amdgpu: )?|\*ERROR\* (?=ring )|^amdgpu: (?=GPU reset|\d+ uncorr|ring )"
)
AMD_RESET = _rule(r"^(?:amdgpu: )?(GPU reset(?: begin|\(\d+\)| end| failed|,? ?succeeded).*)$")
AMD_TIMEOUT = _rule(r"(ring \S{1,40} timeout, .*)$")
AMD_RING = _rule(r"((?:Starting \S{1,40} ring reset|Ring \S{1,40} reset \w+).*)$")
AMD_LOST = _rule(r"(VRAM is lost due to GPU reset.*)$")
AMD_INIT = _rule(r"(Fatal error during GPU init.*|amdgpu_device_ip_init failed.*)$")
# From Linux 6.13 on without the words before "process".
AMD_PROCESS = _rule(
    r"((?:Process information: process|^ ?Process) (.{0,40}?) pid (\d{1,10}) thread .*)$"
)
AMD_RAS = _rule(r"((?<!\S)\d+ (?:new )?uncorrectable hardware errors? detected.*)$")
AMD_RAS_FATAL = _rule(r"(uncorrectable hardware error ?\(ERREVENT_ATHUB_INTERRUPT\).*)$")


def event(line: Line) -> KernelEvent | None:
    """The event of one line, its time left out; None when the line is none."""
    for words, read in READERS:
        if any(word in line.text for word in words) and (found := read(line)) is not None:
            return found
    return None


def _fatal(said: str) -> bool | None:
    """What the message says of itself, None when it says nothing."""
    words = [word.lower() for word in FATAL.findall(said)]
    return words[0] == "fatal" if words else None


def _xid(line: Line) -> KernelEvent | None:
    match = XID.search(line.text)
    if match is None:
        return None
    code, said, pid, process = int(match[2]), match[3], None, None
    if found := PID.match(said):
        pid = int(found[1]) if found[1].isdigit() else None
        said = said[found.end() :]
    if found := NAME.match(said):
        process = None if found[1] in ("", "<unknown>") else found[1].strip()
        said = said[found.end() :]
    fatal = _fatal(said) if code in NVLINK5_XIDS else None
    where = address(match[1])
    return KernelEvent("xid", where, code, said.strip() or None, None, pid, process, fatal)


def _sxid(line: Line) -> KernelEvent | None:
    match = SXID.search(line.text)
    if match is None:
        return None
    said = match[3].strip()
    return KernelEvent("sxid", address(match[1]), int(match[2]), said or None, fatal=_fatal(said))


def _aer(line: Line) -> KernelEvent | None:
    if match := AER_RECEIVED.search(line.text):
        where = _source(match[1], AER_SOURCE.search(match[2]))
    elif match := AER_BUS_ERROR.search(line.text) or AER_RECOVERY.search(line.text):
        where = address(match[1])
    else:
        return None
    return KernelEvent("aer", where, text=match[2].strip(), fatal=_severity(match[2]))


def _source(port: str, match: re.Match[str] | None) -> str | None:
    """The device that sent the error message: an address, or bus, device and function in hex."""
    reporter = address(port)
    if match is None:
        return reporter
    if match[1]:
        return address(match[1])
    id_ = int(match[2], 16)
    domain = (reporter or "0000:").split(":")[0]
    return f"{domain}:{id_ >> 8:02x}:{id_ >> 3 & 31:02x}.{id_ & 7}"


def _severity(said: str) -> bool | None:
    """True for a fatal PCIe error, False for the rest, None where no severity is named."""
    fatal = _fatal(said)
    if fatal is None and re.search(r"(?:severity=|^|Multiple )Correct", said):
        return False
    return fatal


def _dpc(line: Line) -> KernelEvent | None:
    match = DPC.search(line.text)
    return match and KernelEvent("dpc", address(match[1]), text=match[2])


def _pcie(line: Line) -> KernelEvent | None:
    match = PCIE.search(line.text)
    if match is None:
        return None
    available, capable = number(match[3]), number(match[7])
    link = PcieBandwidth(
        gen=_gen(match[4]),
        width=_width(match[5]),
        available_gbit_s=available,
        at=address(match[6] or ""),
        gen_capable=_gen(match[8]),
        width_capable=_width(match[9]),
        capable_gbit_s=capable,
    )
    if match[4] is None:  # nothing limits: one link is both
        link = replace(link, gen=link.gen_capable, width=link.width_capable)
        link = replace(link, capable_gbit_s=available)
    return KernelEvent("pcie-bandwidth", address(match[1]), text=match[2], pcie=link)


def _gen(speed: str | None) -> int | None:
    """`8.0 GT/s PCIe` (new), `8 GT/s` (old), `Unknown`."""
    return GT_PER_S_TO_GEN.get(number(speed) or 0.0)


def _width(lanes: str | None) -> int | None:
    return int(lanes) if lanes and 1 <= int(lanes) <= 32 else None


def _device(line: Line) -> KernelEvent | None:
    """Cards that are gone or do not start."""
    for kind, pattern in DEVICE_RULES:
        if match := pattern.search(line.text):
            return KernelEvent(kind, address(match[1]), text=match[2].strip())
    if match := API_MISMATCH.search(line.text) or VERSIONS_DIFFER.search(line.text):
        return KernelEvent("api-mismatch", text=match[1].strip())
    if match := NO_ANSWER.search(line.text):
        return KernelEvent("no-answer", text=match[1].strip())
    if match := DEVICE_HANDLE.search(line.text):
        return KernelEvent("device-handle", address(match[2]), text=match[1].strip())
    return None


DEVICE_RULES = (("off-the-bus", OFF_THE_BUS), ("init-failed", INIT_FAILED), ("d3cold", D3COLD))


def _process(line: Line) -> KernelEvent | None:
    """Processes that the kernel killed or that crashed."""
    if match := OOM.search(line.text) or OOM_KILLED.search(line.text):
        return KernelEvent("oom", text=match[1], pid=int(match[2]), process=match[3] or None)
    if match := OOM_TASK.search(line.text):
        return KernelEvent("oom", text=match[1], pid=int(match[3]), process=match[2])
    if match := CRASH.search(line.text):
        return KernelEvent("segfault", text=match[3], pid=int(match[2]), process=match[1])
    return None


def _amdgpu(line: Line) -> KernelEvent | None:
    match = AMD.search(line.text)
    if match is None and "amdgpu_job_timedout" not in line.text:
        return None
    where = address(match[1]) if match and match[1] else None
    said = line.text[match.end() :] if match else line.text
    for kind, pattern in AMD_RULES:
        if found := pattern.search(said):
            return KernelEvent(kind, where, text=found[1].strip())
    if found := AMD_PROCESS.search(said):
        pid, process = int(found[3]) or None, found[2].strip() or None
        return KernelEvent("amdgpu-timeout", where, text=found[1], pid=pid, process=process)
    return None


AMD_RULES = (
    ("amdgpu-reset", AMD_RESET),
    ("amdgpu-reset", AMD_RING),
    ("amdgpu-reset", AMD_LOST),
    ("init-failed", AMD_INIT),
    ("amdgpu-timeout", AMD_TIMEOUT),
    ("amdgpu-ras", AMD_RAS),
    ("amdgpu-ras", AMD_RAS_FATAL),
)
# Words of which one stands in every line of the kind, and the reader of that kind.
READERS: tuple[tuple[tuple[str, ...], Callable[[Line], KernelEvent | None]], ...] = (
    (("Xid (",), _xid),
    (("SXid (",), _sxid),
    (("available PCIe",), _pcie),
    (("AER", "PCIe Bus Error"), _aer),
    (("DPC",), _dpc),
    (("NVRM", "power state", "device handle", "NVIDIA-SMI", "NVML", "No devices"), _device),
    (("of memory", "Killed process", "oom-kill", "segfault", "protection fault"), _process),
    (("amdgpu", "*ERROR* ring"), _amdgpu),
)
