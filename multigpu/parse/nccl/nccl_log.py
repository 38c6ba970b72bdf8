"""Reader of what NCCL and RCCL print with NCCL_DEBUG=INFO: which way each pair of ranks talks.

Formats: NCCL 2.4 to 2.30 and RCCL (src/debug.cc, src/transport/*.cc, src/init.cc; the logging
chapter of the NCCL user guide). "Using network Socket" names the network between hosts and says
nothing of how GPUs of one host reach each other; only channel lines do.
"""

from __future__ import annotations

import re
from collections import Counter

from multigpu.parse.nccl.nccl_values import NcclLog, NcclPair, NcclRank
from multigpu.parse.pci import address
from multigpu.parse.reading import Kind, Lines, Reading

LINE = re.compile(
    r"(?:(?P<host>[^\s:\[\]()<>]{1,255}):(?P<pid>\d{1,10}):\d{1,10} )?(?:\[(?P<device>\d{1,4})\] )?"
    r"(?:\S{1,300}:\d{1,6} )?NCCL (?P<level>INFO|WARN|TRACE|CALL|VERSION|ABORT) ?(?P<said>.*)$",
    re.ASCII,
)
LEVEL = re.compile(r"NCCL (?:INFO|WARN|TRACE|CALL|VERSION|ABORT)\b")
VERSION = re.compile(r"\b(NCCL|RCCL) version ?:? ?(\d{1,3}\.\d{1,3}(?:\.\d{1,3})?[\w.+:-]{0,80})")
CHANNEL = re.compile(
    r"^(?:Channel|Ring) \d{1,3}(?:/\d{1,3})? ?: (\d{1,6})\[([0-9a-f]{1,12})\] -> "
    r"(\d{1,6})\[([0-9a-f]{1,12})\](?: \[(?:send|receive)\])? via (.+)$",
    re.ASCII,
)
RANK = re.compile(
    r"\bcomm \S{1,40} rank (\d{1,6}) n[rR]anks \d{1,6}(?: \S{1,40} \d{1,6}){0,4}?"
    r" cudaDev (\d{1,4})(?: nvmlDev (\d{1,4}))?(?: busId ([0-9a-f]{1,12})\b)?",
    re.ASCII,
)
SIZE = re.compile(r"\bcomm \S{1,40} rank \d{1,6} n[rR]anks (\d{1,6})\b", re.ASCII)
COMM_ID = re.compile(r"\bcommId (0x[0-9a-f]{3,20})", re.ASCII)
NETWORK = re.compile(r"^Using network (.+)$")
OVERRIDE = re.compile(r"\b([A-Z][A-Z0-9_]{3,60}) set by environment to (.*)$")
CHANNELS = re.compile(
    r"^(\d{1,4}) coll channels, (?:(\d{1,4}) collnet channels, )?(?:(\d{1,4}) nvls channels, )?"
    r"(\d{1,4}) p2p channels",
    re.ASCII,
)
RING = re.compile(
    r"^(?:Ring|Channel) (\d{1,3})(?:/\d{1,3})? :(?: +-?\d{1,6}(?: ->)?)+ *$", re.ASCII
)
TREE = re.compile(r"^Tree (\d{1,3}) ?: ", re.ASCII)
TREES = re.compile(r"\[(\d{1,3})\] ", re.ASCII)
NVLS = re.compile(r"\bNVLS multicast support is (not )?available")


def read_nccl_log(text: str) -> Reading[NcclLog]:
    """One log, of one process or of many interleaved; lines that say nothing for us stay unread."""
    lines = Lines(text)
    log = _Log()
    for index, line in lines:
        if ("CCL" in line or "hip" in line) and log.add(line):
            lines.mark(index)
    return lines.reading(log.finished())


class _Log:
    """What was gathered so far."""

    def __init__(self) -> None:
        self.version: tuple[str, str] | None = None
        self.sizes: set[int] = set()
        self.ranks: dict[tuple[int, str | None], NcclRank] = {}
        self.bus_ids: set[str] = set()
        self.devices: set[str] = set()
        self.lines: Counter[tuple[tuple[int, str], tuple[int, str], str]] = Counter()
        self.network: str | None = None
        self.warnings: dict[str, None] = {}
        self.overrides: dict[str, str] = {}
        self.channels: tuple[int | None, int | None, int | None] = (None, None, None)
        self.rings: set[str] = set()
        self.trees: set[str] = set()
        self.nvls: bool | None = None
        self.communicators: set[str] = set()

    def add(self, line: str) -> bool:
        """Take one line in; False when it says nothing for us."""
        version = VERSION.search(line)
        if version:
            self.version = self.version or (version[1], version[2])
        start = LEVEL.search(line)
        match = start and LINE.search(line[max(0, start.start() - 700) :])
        if not match:
            return version is not None
        said = match["said"].rstrip()
        if match["level"] == "WARN":
            self.warnings[said] = None
            return True
        return self._channel(said) or self._rank(match, said) or self._fact(said) or bool(version)

    def _channel(self, said: str) -> bool:
        match = CHANNEL.match(said)
        if match is None:
            return False
        ends = sorted([(int(match[1]), match[2]), (int(match[3]), match[4])])
        self.lines[ends[0], ends[1], transport(match[5])] += 1
        return True

    def _rank(self, line: re.Match[str], said: str) -> bool:
        size = SIZE.search(said)
        if size is None:
            return False
        self.sizes.add(int(size[1]))
        if comm := COMM_ID.search(said):
            self.communicators.add(comm[1])
        if match := RANK.search(said):
            bus = match[4]
            if bus:
                self.bus_ids.add(bus)
            rank = NcclRank(
                rank=int(match[1]),
                host=line["host"],
                pid=int(line["pid"]) if line["pid"] else None,
                cuda_device=int(match[2]),
                nvml_device=int(match[3]) if match[3] else None,
                pci_bus_id=bus_address(bus) if bus else None,
            )
            self.devices.update(str(n) for n in (rank.cuda_device, rank.nvml_device))
            self.ranks.setdefault((rank.rank, rank.pci_bus_id), rank)
        return True

    def _fact(self, said: str) -> bool:
        """Lines that say one thing for the whole log."""
        if match := OVERRIDE.search(said):
            self.overrides[match[1]] = match[2].strip().removesuffix(".")
        elif match := NETWORK.match(said):
            self.network = match[1].strip()
        elif match := CHANNELS.match(said):
            nvls = int(match[3]) if match[3] else None
            self.channels = (int(match[1]), nvls, int(match[4]))
        elif match := NVLS.search(said):
            self.nvls = bool(self.nvls) or match[1] is None
        elif match := TREE.match(said):
            self.trees.add(match[1])
        elif said.startswith("Trees ["):
            self.trees.update(TREES.findall(said))
        elif match := RING.match(said):
            self.rings.add(str(int(match[1])))
        else:
            return False
        return True

    def finished(self) -> NcclLog:
        """The log as one value."""
        library, version = self.version or (None, None)
        return NcclLog(
            version=version,
            rccl=None if library is None else library == "RCCL",
            ranks_total=max(self.sizes, default=None),
            ranks=tuple(sorted(self.ranks.values(), key=lambda rank: rank.rank)),
            pairs=self._pairs(),
            network=self.network,
            warnings=tuple(self.warnings),
            overrides=tuple(self.overrides.items()),
            channels=self.channels[0],
            nvls_channels=self.channels[1],
            p2p_channels=self.channels[2],
            rings=len(self.rings) or None,
            trees=len(self.trees) or None,
            nvls=self.nvls,
            communicators=len(self.communicators) or None,
        )

    def _pairs(self) -> tuple[NcclPair, ...]:
        """Two ranks on other devices are another pair: a log may hold several communicators."""
        found: dict[tuple[tuple[int, str], tuple[int, str]], list[tuple[str, int]]] = {}
        for (low, high, way), count in self.lines.items():
            found.setdefault((low, high), []).append((way, count))
        return tuple(
            NcclPair(low[0], high[0], tuple(ways), self._device(low[1]), self._device(high[1]))
            for (low, high), ways in sorted(found.items())
        )

    def _device(self, written: str) -> str | None:
        """A bus id has four hex digits or more, or is one that the log names beside a rank."""
        if len(written) >= 4 or (written in self.bus_ids and written not in self.devices):
            return bus_address(written)
        return written


def bus_address(written: str) -> str | None:
    """The PCI address of NCCL's bus id, a number in hex (`int64ToBusId`, src/misc/utils.cc)."""
    return address(written.rjust(4, "0"))


def transport(written: str) -> str:
    """A transport without what changes from card to card: `NET/IB/0(1)/GDRDMA` -> NET/IB/GDRDMA.

    RCCL appends the communicator. NCCL up to 2.7 wrote "direct shared memory" for SHM.
    """
    way = re.sub(r" comm (?:0x)?[0-9a-f.]+ nRanks \d+.*$", "", written.strip(), flags=re.ASCII)
    if way == "direct shared memory":
        return "SHM"
    parts = [re.sub(r"\([^)]*\)$", "", part.strip()) for part in way.split("/")]
    if parts[0] == "P2P" and parts[1:2] == ["indirect"]:
        return "P2P/indirect"
    return "/".join(part for part in parts if part and not part.isdigit())[:80]


def _recognise(text: str) -> float:
    """Surest with channel lines; a stray line among other output is not enough to claim it."""
    head = text[:200_000]
    if "CCL" not in head:
        return 0.0
    if re.search(r" -> \d{1,6}\[[0-9a-f]+\](?: \[\w+\])? via \S", head, re.ASCII):
        return 0.95
    count = len(re.findall(r"\] (?:\S{1,300}:\d{1,6} )?NCCL (?:INFO|WARN) ", head, re.ASCII))
    count += len(re.findall(r"^[NR]CCL version \d", head, re.ASCII | re.MULTILINE))
    return 0.88 if count > 2 else 0.6 if count else 0.0


KINDS = (Kind("nccl-log", "NCCL or RCCL log", _recognise, read_nccl_log, "NCCL_DEBUG=INFO"),)
