"""Reader of nvidia-smi's default table (drivers 384 to 610).

A card takes two lines, three since driver 450 (MIG mode); cells are told apart by the bars, their
width changed with 530 and 550. Names of cards and processes are printed cut (`Tesla V100-SXM2...`,
`...studio/.internal/utils/node`); they stay as printed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from multigpu.hardware import Gpu, GpuProcess, MigDevice
from multigpu.parse import pci
from multigpu.parse.nvidia_smi.architectures import compute_capability
from multigpu.parse.nvidia_smi.card import Query, count, switch, version
from multigpu.parse.nvidia_smi.lost import HANDLE, with_refused
from multigpu.parse.reading import Kind, Lines, Reading
from multigpu.parse.shape import number, text, whole, word

LONGEST = 200

HEAD = re.compile(
    r"^\| NVIDIA-SMI +(\S+) +(?:KMD|Driver) Version: +(\S+)"
    r"(?: +CUDA (?:UMD )?Version: +(\S+))? *\|$"
)
TIME = re.compile(r"^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) \w{3} [ \d]\d [\d:]{8} (?:[A-Z]{3,5} )?\d{4}$")
RULE = re.compile(r"^[|+][-=+]{10,}[|+]$")
TITLE = re.compile(
    r"^\|(?: +GPU +Name | Fan +Temp | +\| +\| +MIG M\. \|| MIG devices: | Processes: | +GPU +PID |"
    r" +GPU +GI +CI | +ID +ID | +\| +\| +ECC\|| No running processes found | No MIG devices found |"
    r" +\| +\| +\| +\|$|  (?:No running processes|No MIG devices) found)"
)
FIRST = re.compile(
    r"^\| +(?P<index>\d{1,3}) +(?P<name>\S.*?) +(?P<persistence>On|Off|N/A|ERR!|WDDM|TCC|MCDM) *"
    r"\| +(?P<address>[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f])"
    r" +(?P<display>On|Off|N/A|ERR!) *\| +(?P<ecc>\S+) *\|$",
    re.ASCII,
)
SECOND = re.compile(
    r"^\| *(?P<fan>N/A|ERR!|\d{1,3}%) +(?P<temperature>N/A|ERR!|-?\d{1,3}C) +"
    r"(?P<state>N/A|ERR!|P\d{1,2}) +(?P<draw>N/A|ERR!|\d{1,5}W) */ *(?P<limit>N/A|ERR!|\d{1,5}W) *"
    r"\| *(?P<memory>[^|]+?) *\| *(?P<load>N/A|ERR!|\d{1,3}%) +(?P<mode>\S[^|]*?) *\|$",
    re.ASCII,
)
# Drivers before 340 wrote MB, and meant MiB.
MEMORY = re.compile(r"(\d{1,9})Mi?B */ *(\d{1,9})Mi?B", re.ASCII)
THIRD = re.compile(r"^\| +\| +\| +(N/A|ERR!|Enabled\*?|Disabled\*?) *\|$")
SLICE = re.compile(
    r"^\| +(\d{1,3}) +(?:N/A|\d{1,4}) +(?:N/A|\d{1,4}) +(\d{1,3}) +"
    r"\| +(?:\d{1,9}MiB|N/A) */ *(\d{1,9}MiB|N/A) *\|",
    re.ASCII,
)
SLICE_BAR1 = re.compile(r"^\| +\| +(?:\d{1,9}MiB|N/A) */ *(?:\d{1,9}MiB|N/A) *\|", re.ASCII)
PROCESS = re.compile(
    r"^\| +(?P<gpu>\d{1,3}) +(?:(?:N/A|\d{1,4}) +(?:N/A|\d{1,4}) +)?(?P<pid>\d{1,8}) +"
    r"(?P<type>[CGM](?:\+[CGM])*) (?P<name>.*?) +(?P<memory>\d{1,9}MiB|N/A|ERR!) *\|$",
    re.ASCII,
)
COMPUTE_MODES = {"E. Process": "Exclusive_Process", "E. Thread": "Exclusive_Thread"}


@dataclass
class _Table:
    """What was read so far; the second and third line of a card belong to the last one begun."""

    cards: list[Gpu] = field(default_factory=list)
    processes: list[tuple[int, GpuProcess]] = field(default_factory=list)
    slices: list[tuple[int, MigDevice]] = field(default_factory=list)
    driver: str | None = None
    cuda: str | None = None
    time: str | None = None
    simulated: bool = False
    ended: bool = False

    def line(self, line: str) -> bool:
        """Read one line; False when it belongs to no table."""
        if RULE.match(line) or TITLE.match(line) or HANDLE.search(line):
            self.ended = self.ended or (line.startswith("+") and bool(self.cards))
            return True
        return self._head(line) or self._card(line) or self._below(line)

    def _head(self, line: str) -> bool:
        if head := HEAD.match(line):
            self.driver, self.cuda = version(head[2]), version(head[3])
        elif TIME.match(line):
            self.time = line
        elif line.startswith("# simulated"):
            self.simulated = True
        else:
            return False
        return True

    def _card(self, line: str) -> bool:
        if first := FIRST.match(line):
            self.cards.append(_begun(first))
            self.ended = False
        elif self.cards and (second := SECOND.match(line)):
            self.cards[-1] = _second(self.cards[-1], second)
        elif self.cards and (third := THIRD.match(line)):
            self.cards[-1] = replace(self.cards[-1], mig=switch(third[1].rstrip("*")))
        else:
            return False
        return True

    def _below(self, line: str) -> bool:
        """MIG devices and processes."""
        if part := SLICE.match(line):
            device = MigDevice(int(part[2]), memory_mib=count(part[3]))
            self.slices.append((int(part[1]), device))
        elif process := PROCESS.match(line):
            name, used = word(process["name"]), count(process["memory"])
            held = GpuProcess(int(process["pid"]), text(name), used)
            self.processes.append((int(process["gpu"]), held))
        else:
            return bool(SLICE_BAR1.match(line))
        return True

    def card(self, gpu: Gpu) -> Gpu:
        """A card with what stands below the cards."""
        return replace(
            gpu,
            processes=tuple(p for index, p in self.processes if index == gpu.index),
            mig_devices=tuple(d for index, d in self.slices if index == gpu.index),
        )


def read_table(text: str) -> Reading[Query]:
    """The cards in nvidia-smi's table; `unread` are lines that belong to none.

    A card whose lines are full of ERR! keeps its row. A table pasted with a blank margin is read.
    """
    lines = Lines(text)
    table = _Table()
    for index, line in lines:
        if len(line) <= LONGEST and table.line(line.strip()):
            lines.mark(index)
    query = Query(
        driver=table.driver,
        cuda=table.cuda,
        gpus=tuple(table.card(gpu) for gpu in table.cards),
        simulated=table.simulated,
        whole=table.ended and table.driver is not None,
        timestamp=table.time,
    )
    return lines.reading(with_refused(query, text, numbered=True))


def _begun(first: re.Match[str]) -> Gpu:
    """The first line of a card; the ECC cell is a count when ECC is on, On in MIG mode."""
    broken = first["name"] == "ERR!"
    name = None if broken else text(first["name"])
    errors = count(first["ecc"])
    return Gpu(
        index=int(first["index"]),
        name=name,
        pci_bus_id=pci.address(first["address"]),
        persistence_mode=_on(first["persistence"]),
        display_attached=_on(first["display"]),
        ecc=True if errors is not None else _on(first["ecc"]),
        ecc_uncorrected=errors,
        compute_capability=compute_capability(None, name),
        error="ERR!" if broken else None,
    )


def _second(gpu: Gpu, second: re.Match[str]) -> Gpu:
    used, memory = _memory(second["memory"])
    broken = [second[cell] for cell in ("temperature", "state", "draw", "limit")].count("ERR!") > 1
    unified = memory is None and re.search(r"\b(GB10|Thor|Orin)\b", gpu.name or "") is not None
    mode = word(second["mode"])
    return replace(
        gpu,
        memory_mib=memory,
        memory_used_mib=used,
        temperature_c=whole(second["temperature"]),
        performance_state=word(second["state"]),
        power_draw_w=number(second["draw"]),
        power_limit_w=number(second["limit"]),
        compute_mode=COMPUTE_MODES.get(mode or "", mode),
        unified_memory=True if unified else None,
        error=gpu.error or ("ERR!" if broken else None),
    )


def _memory(cell: str) -> tuple[int | None, int | None]:
    """Used and total; `N/A` in MIG mode, `Not Supported` where the memory is the processor's."""
    match = MEMORY.fullmatch(cell)
    return (int(match[1]), int(match[2])) if match else (None, None)


def _on(cell: str) -> bool | None:
    return {"On": True, "Off": False}.get(cell)


HEADING = re.compile(r"^\s{0,40}\| NVIDIA-SMI +\d", re.MULTILINE)


def recognise(text: str) -> float:
    """By its heading, or by a card's or a process's line; less sure where it is a small part."""
    head = text[:200_000]
    if "|" not in head:
        return 0.0
    lines = [line.strip() for line in head.split("\n") if line.strip() and len(line) <= LONGEST]
    barred = sum(line[0] in "|+" for line in lines)
    if HEADING.search(head):
        return 1.0 if barred * 2 > len(lines) else 0.5
    first = lines[:500]
    if any(FIRST.match(line) or SECOND.match(line) for line in first):
        return 0.95 if barred * 2 > len(lines) else 0.5
    return 0.9 if any(PROCESS.match(line) or SLICE.match(line) for line in first) else 0.0


KINDS: tuple[Kind, ...] = (
    Kind("nvidia-smi-table", "nvidia-smi's table", recognise, read_table, "nvidia-smi"),
)
