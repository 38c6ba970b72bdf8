"""The front of a kernel log line: what dmesg, journald, syslog or a quoting person put there."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Words of which at least one stands in every line that can be an event.
INTERESTING = re.compile(
    r"NVRM: {0,4}(?:Xid|GPU at|GPU \w|The NVIDIA|\(PCI|API)|SXid \(|AER|DPC|PCIe B"
    r"|available PCIe|error status/mask|: +\[ ?\d{1,2}\] \w|segfault at|general protection"
    r"|off the bus|power state|of memory|Killed process|oom-kill|amdgpu|\*ERROR\* ring"
    r"|device handle|^NVIDIA-SMI has failed|initialize NVML|^No devices were",
    re.ASCII,
)
LONGEST = 2000  # the kernel cuts messages at 1024 characters (kernel/printk)
_CLOCK = r"\d{1,2}:\d\d:\d\d(?:[.,]\d{1,9})?"
_PARTS = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        r"[>\s|]+",
        r"<\d{1,3}>",
        r"[a-z0-9]{1,9}\s{0,8}:\s?[a-z]{3,7}\s{0,8}:\s{0,3}",  # dmesg -x: facility and level
        r"\d{1,4},\d{1,20},(?P<micro>\d{1,20}),[-c+][^;]{0,80};",  # /dev/kmsg
        r"\[ {0,12}(?P<dmesg>\d{1,12}\.\d{1,9})\] ?",
        rf"\[(?P<ctime>\w{{3}} \w{{3}} [ \d]\d {_CLOCK} \d{{4}})\] ?",
        r"\[ {0,3}[TC]\d{1,9}\] ?",  # CONFIG_PRINTK_CALLER
        r"\[ {0,12}\+ {0,12}\d{1,12}\.\d{1,9}\] ?",  # dmesg -d: no time of day
        rf"(?P<iso>\d{{4}}-\d\d-\d\d[T ]{_CLOCK}(?: ?(?:Z|[+-]\d\d:?\d\d))?) ",
        rf"(?P<syslog>\w{{3}} [ \d]\d {_CLOCK}) ",
        r"(?P<unix>\d{9,11}\.\d{1,9}) ",
        r"(?:[^\s:\[\]]{1,255} )?kernel(?:\[\d{1,10}\])?: ",
    )
)
# Stamps that only the kernel's own log bears.
STAMPED = re.compile(
    r"^(?:<\d{1,3}>|[a-z]{1,9}\s{0,8}:[a-z]{3,7}\s{0,8}: )?\[ {0,12}\d{1,8}\.\d{6}\] "
    rf"|^\[\w{{3}} \w{{3}} [ \d]\d {_CLOCK} \d{{4}}\] "
    rf"|^\w{{3}} [ \d]\d {_CLOCK} \S{{1,255}} kernel: |^kern  :[a-z]",
    re.ASCII | re.MULTILINE,
)
KMSG = re.compile(r"^\d{1,4},\d{1,20},\d{1,20},[-c+][^;\n]{0,80};", re.ASCII | re.MULTILINE)


@dataclass(frozen=True)
class Line:
    """A kernel message, the time as printed, and the second it belongs to."""

    text: str
    time: str | None = None
    second: str | None = None


def split(line: str) -> Line:
    """Cut the prefixes off. The first time of a line counts: journald's before the kernel's own."""
    line, position, time, second = line[:LONGEST], 0, None, None
    while True:
        match = next((m for part in _PARTS if (m := part.match(line, position))), None)
        if match is None:
            return Line(line[position:].rstrip(), time, second)
        position = match.end()
        if match.lastgroup and time is None:
            time = match[match.lastgroup]
            second = _second(match.lastgroup, time)


def _second(form: str, time: str) -> str:
    """Without the fraction; /dev/kmsg counts microseconds."""
    if form == "micro":
        return str(int(time) // 1_000_000)
    return re.sub(r"[.,]\d+", "", time)
