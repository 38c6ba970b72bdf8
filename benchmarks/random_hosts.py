"""Random machines of one to eight cards, wired as machines are.

Drawn are the cards (one model or several), what the driver, a desktop and other programs hold of
them, the lanes of each slot, one or two sockets, PCIe switches of two or four cards, NVLink bridges
between neighbours, and whether the driver grants peer access, which holds for all pairs of like
cards of one machine. Paths follow from that tree: PIX inside a switch, PHB inside a socket, SYS
across sockets. One machine in ten is a baseboard (HGX) whose cards all reach each other over
NVSwitch. No two machines are equal but for their names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from random import Random

from multigpu.hardware import Gpu, GpuPair, Host, P2p, Path, PcieLink, Vendor

CARDS = (
    Gpu(0, name="NVIDIA GeForce RTX 3060", memory_mib=12288, compute_capability=(8, 6)),
    Gpu(0, name="NVIDIA GeForce RTX 3090", memory_mib=24576, compute_capability=(8, 6)),
    Gpu(0, name="NVIDIA GeForce RTX 4070 Ti SUPER", memory_mib=16376, compute_capability=(8, 9)),
    Gpu(0, name="NVIDIA GeForce RTX 4090", memory_mib=24564, compute_capability=(8, 9)),
    Gpu(0, name="NVIDIA GeForce RTX 5090", memory_mib=32607, compute_capability=(12, 0)),
    Gpu(0, name="NVIDIA RTX A6000", memory_mib=49140, compute_capability=(8, 6)),
    Gpu(0, name="NVIDIA L40S", memory_mib=46068, compute_capability=(8, 9)),
    Gpu(0, name="NVIDIA A100 80GB PCIe", memory_mib=81920, compute_capability=(8, 0)),
    Gpu(0, name="NVIDIA H100 PCIe", memory_mib=81559, compute_capability=(9, 0)),
    Gpu(0, name="AMD Radeon AI PRO R9700", vendor=Vendor.AMD, memory_mib=32624, gfx="gfx1201"),
)
"""Cards in slots; any of them may share a machine."""
BASEBOARDS = (
    (Gpu(0, name="NVIDIA A100-SXM4-80GB", memory_mib=81920, compute_capability=(8, 0)), 12),
    (Gpu(0, name="NVIDIA H100 80GB HBM3", memory_mib=81559, compute_capability=(9, 0)), 18),
)
"""Cards of a baseboard, all of one model, and how many NVLinks a pair of them has."""
BRIDGES = {"NVIDIA GeForce RTX 3090": 4, "NVIDIA RTX A6000": 4, "NVIDIA A100 80GB PCIe": 12}
"""Links of an NVLink bridge between two neighbours, where the card takes one."""
KINDS = (1, 1, 2, 2, 3, 4)
"""Numbers of different models in one machine, as often as listed."""


@dataclass(frozen=True)
class Tree:
    """Where slots hang: cards of one socket, and cards of one switch, are numbered in a row."""

    per_socket: int
    per_switch: int
    granted: bool
    bridged: bool

    def path(self, a: int, b: int) -> Path:
        """The class of `nvidia-smi topo -m` of two slots."""
        if a // self.per_socket != b // self.per_socket:
            return Path.SYS
        return Path.PIX if a // self.per_switch == b // self.per_switch else Path.PHB


def hosts(count: int, seed: int = 1) -> Iterator[Host]:
    """Distinct machines, the same ones for the same seed; none is kept here."""
    random, seen = Random(seed), set[int]()
    while len(seen) < count:
        made = host(random, f"host-{len(seen)}")
        value = hash((made.gpus, made.pairs))
        if value not in seen:
            seen.add(value)
            yield made


def host(random: Random, name: str) -> Host:
    """One machine."""
    if random.random() < 0.1:
        return baseboard(random, name)
    size = random.randint(1, 8)
    kinds = random.sample(CARDS, random.choice(KINDS))
    return slots(random, name, [random.choice(kinds) for _ in range(size)])


def slots(random: Random, name: str, cards: list[Gpu]) -> Host:
    """A workstation or server with these cards in its slots, in their order."""
    n = len(cards)
    tree = Tree(
        per_socket=n if n < 4 or random.random() < 0.5 else -(-n // 2),
        per_switch=random.choice((1, 1, 2, 4)),
        granted=random.random() < 0.5,
        bridged=random.random() < 0.3,
    )
    lanes = random.choice(((16,), (16, 8), (8,), (16, 4)))
    gpus = _filled(random, cards, lanes)
    pairs = tuple(_pair(tree, gpus[a], gpus[b]) for a, b in combinations(range(n), 2))
    return Host(name, gpus=gpus, pairs=pairs)


def baseboard(random: Random, name: str) -> Host:
    """Four or eight cards of one model, each pair of which has NVLinks."""
    card, links = random.choice(BASEBOARDS)
    n = random.choice((4, 8))
    gpus = _filled(random, [card] * n, (16,))
    socket = n // 2
    pairs = tuple(
        GpuPair(a, b, Path.NODE if a // socket == b // socket else Path.SYS, links, P2p.OK)
        for a, b in combinations(range(n), 2)
    )
    return Host(name, gpus=gpus, pairs=pairs)


def _filled(random: Random, cards: list[Gpu], lanes: tuple[int, ...]) -> tuple[Gpu, ...]:
    """Idle cards of a machine hold what the driver takes; a desktop is on the first of them."""
    idle, desktop = random.randint(250, 700), random.choice((0, 0, random.randint(50, 1500)))
    gpus = []
    for index, card in enumerate(cards):
        memory = card.memory_mib or 0
        used = idle + (0 if index else desktop)
        if random.random() < 0.15:
            used += random.randint(100, memory // 2)
        link = PcieLink(gen_max=4, width_current=random.choice(lanes), width_max=16)
        made = replace(card, index=index, uuid=f"GPU-{index:08d}", pcie=link)
        gpus.append(replace(made, memory_free_mib=memory - used))
    return tuple(gpus)


def _pair(tree: Tree, a: Gpu, b: Gpu) -> GpuPair:
    alike = a.name == b.name
    neighbours = tree.bridged and alike and a.index // 2 == b.index // 2
    links = BRIDGES.get(a.name or "", 0) if neighbours else 0
    read = P2p.OK if links or (alike and tree.granted) else P2p.CHIPSET_NOT_SUPPORTED
    return GpuPair(a.index, b.index, tree.path(a.index, b.index), links, read)
