"""Random machines of one to eight cards: names, free memory, lanes, paths and NVLink all vary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
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
    Gpu(0, name="NVIDIA A100-SXM4-80GB", memory_mib=81920, compute_capability=(8, 0)),
    Gpu(0, name="NVIDIA H100 80GB HBM3", memory_mib=81559, compute_capability=(9, 0)),
    Gpu(0, name="AMD Radeon AI PRO R9700", vendor=Vendor.AMD, memory_mib=32624, gfx="gfx1201"),
)
KINDS = (1, 1, 2, 2, 3, 4)
"""Numbers of different models in one machine, as often as listed."""


def hosts(count: int, seed: int = 1) -> Iterator[Host]:
    """Distinct machines, the same ones for the same seed."""
    random = Random(seed)
    for number in range(count):
        size = random.randint(1, 8)
        kinds = random.sample(CARDS, random.choice(KINDS))
        yield host(random, f"host-{number}", [random.choice(kinds) for _ in range(size)])


def host(random: Random, name: str, cards: list[Gpu]) -> Host:
    """One machine with these cards; links, lanes and what is free of each card are drawn."""
    gpus = tuple(_card(random, index, card) for index, card in enumerate(cards))
    bridged = random.random() < 0.3
    pairs = tuple(_pair(random, a, b, bridged) for a, b in combinations(range(len(cards)), 2))
    return Host(name, gpus=gpus, pairs=pairs)


def _card(random: Random, index: int, card: Gpu) -> Gpu:
    memory = card.memory_mib or 0
    used = random.choice((4, 4, 4, 450, random.randint(0, memory // 2)))
    lanes = random.choice((16, 16, 8, 4))
    return replace(
        card,
        index=index,
        uuid=f"GPU-{index:08d}",
        memory_free_mib=memory - 300 - used,
        pcie=PcieLink(gen_max=4, width_current=lanes, width_max=16),
    )


def _pair(random: Random, a: int, b: int, bridged: bool) -> GpuPair:
    path = random.choice((Path.PHB, Path.PHB, Path.PIX, Path.NODE, Path.SYS))
    links = 4 if bridged and a // 2 == b // 2 else 0
    return GpuPair(a, b, path, links, random.choice((P2p.OK, P2p.CHIPSET_NOT_SUPPORTED)))
