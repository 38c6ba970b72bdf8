"""What the cards of a host can do: bytes and operations per second, and how they are joined.

Kept per host object, so that candidates of one host do not look anything up again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations, count
from math import inf
from typing import NamedTuple

from multigpu.gpus.gpu_data import GpuData, gpu_data
from multigpu.hardware import Gpu, Host, P2p, Path, Vendor
from multigpu.memo import memo
from multigpu.speed.constants import CALIBRATED, CALIBRATED_GFX, Engine, LlamaCpp
from multigpu.speed.work import Work

# Bytes per second of one PCIe lane after encoding (PCI-SIG: 8 GT/s with 128b/130b from gen 3).
LANE_GB_S = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
# Clock rises with about the cube root of power near the default limit and faster well below it;
# 0.6 takes 24 % of arithmetic at 220 of 350 W. Memory clocks are not lowered by a power limit.
POWER_EXPONENT = 0.6
# RTX 3090: 71.2 TFLOP/s, 82 multiprocessors at 1695 MHz; the same on the 40 and 50 series.
GEFORCE_FP16_PER_CLOCK = 512
KINDS = ("staged", "peer", "nvlink")
"""What joins two cards, the slowest first."""
STAGED, PEER, NVLINK = range(3)
SIXTEEN_BIT = (None, "F16", "BF16", "bitsandbytes")


@dataclass(frozen=True, slots=True, eq=False)
class Card:
    """One card: bandwidth in bytes/s, arithmetic in operations/s (None where it has no such type).

    `cycles` are the clocks per second of all multiprocessors together, for work beside the matrix
    units. Like cards, of any hosts, are one object, so that they are told apart by identity; its
    `number` stands for it where an object would do harm.
    """

    bandwidth: float
    fp16: float
    fp8: float | None
    fp4: float | None
    int8: float | None
    capability: tuple[int, int] | None
    amd: bool
    cycles: float
    number: int = field(default_factory=count().__next__)


@dataclass(frozen=True, slots=True, eq=False)
class Join:
    """The worst way between the cards of a group: nvlink | peer | staged, bytes/s one direction.

    Cards that are joined alike share one object, and its `number`.
    """

    kind: str
    rate: float
    switched: bool
    number: int = field(default_factory=count().__next__)


class Team(NamedTuple):
    """The slowest of the cards that share a stage; `join` is None for one card."""

    bandwidth: float
    arithmetic: float
    sixteen_bit: float
    cycles: float
    join: Join | None


class Cards:
    """The cards and ways of one host; what was looked up is kept.

    The host keeps it, so it must not keep the host: only the garbage collector would free the two.
    """

    def __init__(self, host: Host) -> None:
        self.by_index = {gpu.index: _card(gpu) for gpu in host.gpus}
        self.links = {gpu.index: _link(gpu) for gpu in host.gpus}
        self.unknown = frozenset([i for i, card in self.by_index.items() if card is None])
        self.far = frozenset([g.index for g in host.gpus if _far(g, self.by_index[g.index])])
        self.amd = frozenset([g.index for g in host.gpus if g.vendor is Vendor.AMD])
        self.numbers = {i: card.number for i, card in self.by_index.items() if card is not None}
        self._pairs = host.pair_records
        self._kinds: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._joins: dict[tuple[int, ...], Join] = {}
        self._ways: dict[tuple[int, int], tuple[int, float]] = {}
        self._teams: dict[tuple[object, ...], tuple[Engine, Team]] = {}

    def team(self, group: tuple[int, ...], work: Work, engine: Engine) -> Team:
        """What the slowest card of a team gives; every card has data."""
        key = (group, work.quantization, work.experts_bytes > 0, id(engine))
        found = self._teams.get(key)
        if found is None or found[0] is not engine:
            found = self._teams[key] = engine, self._team(group, work, engine)
        return found[1]

    def _team(self, group: tuple[int, ...], work: Work, engine: Engine) -> Team:
        some = [card for index in group if (card := self.by_index[index]) is not None]
        return Team(
            bandwidth=min(card.bandwidth for card in some),
            arithmetic=min(arithmetic(card, work, engine) for card in some),
            sixteen_bit=min(card.fp16 for card in some) * engine.arithmetic,
            cycles=min(card.cycles for card in some),
            join=self.join(group) if len(group) > 1 else None,
        )

    def kind(self, group: tuple[int, ...]) -> tuple[int, ...]:
        """What a team gives follows from this: which cards there are in it, and how joined."""
        found = self._kinds.get(group)
        if found is None:
            cards = sorted({self.numbers[index] for index in group})
            found = self._kinds[group] = (self.join(group).number, *cards)
        return found

    def join(self, group: tuple[int, ...]) -> Join:
        """How the cards of a group reach each other: the slowest pair decides."""
        found = self._joins.get(group)
        if found is None:
            found = self._joins[group] = self._join(group)
        return found

    def _join(self, group: tuple[int, ...]) -> Join:
        found = self._ways
        ways = []
        for pair in combinations(sorted(group), 2):
            if pair not in found:
                found[pair] = self._way(*pair)
            ways.append(found[pair])
        kind, rate = min(ways, default=(2, 1e12))
        return _one_join(KINDS[kind], min([way[1] for way in ways], default=rate), len(group) > 2)

    def _way(self, a: int, b: int) -> tuple[int, float]:
        """(place in `KINDS`, bytes/s one direction) of two cards, a < b."""
        pair = self._pairs.get((a, b))
        slowest = min(self.links[a], self.links[b])
        if pair is not None and pair.nvlinks:
            return NVLINK, (pair.nvlink_gb_s or 25.0 * pair.nvlinks) * 1e9
        if pair is not None and pair.xgmi_links:
            return NVLINK, (pair.xgmi_gb_s or 50.0) * 1e9
        if pair is not None and pair.p2p_read is P2p.OK:
            return PEER, slowest
        return STAGED, slowest * (0.7 if pair and pair.path is Path.SYS else 1.0)


def cards(host: Host) -> Cards:
    """The cards of a host; the same host object is read once."""
    known = memo(host)
    found: Cards | None = known.get("speed")
    if found is None:
        found = known["speed"] = Cards(host)
    return found


_one_card = lru_cache(maxsize=4096)(Card)
_one_join = lru_cache(maxsize=4096)(Join)


def _far(gpu: Gpu, card: Card | None) -> bool:
    """True for a generation of which nothing was measured."""
    if gpu.vendor is Vendor.AMD:
        return gpu.gfx not in CALIBRATED_GFX
    return (card.capability if card is not None else None) not in CALIBRATED


def _card(gpu: Gpu) -> Card | None:
    data = gpu_data(gpu)
    if data is None or not data.memory_bandwidth_gb_s or not data.fp16_tflops:
        return None
    capability = gpu.compute_capability or data.compute_capability
    power = _power(gpu, data)
    known, key = memo(data), ("speed", power, capability)
    found: Card | None = known.get(key)
    if found is None:
        found = known[key] = _made(data, power, capability)
    return found


def _made(data: GpuData, power: float, capability: tuple[int, int] | None) -> Card:
    """A card of a model with a share of its arithmetic."""
    scale = 1e12 * power
    fp8, fp4, int8 = data.fp8_tflops, data.fp4_tflops, data.int8_tops
    return _one_card(
        bandwidth=data.memory_bandwidth_gb_s * 1e9,
        fp16=data.fp16_tflops * scale,
        fp8=fp8 * scale if fp8 else None,
        fp4=fp4 * scale if fp4 else None,
        int8=int8 * scale if int8 else None,
        capability=capability,
        amd=data.vendor is Vendor.AMD,
        cycles=_cycles(data) * scale / 1e12,
    )


def _cycles(data: GpuData) -> float:
    """Multiprocessors times clock; where either is not known as on GeForce cards of that FP16."""
    if data.multiprocessors and data.boost_mhz:
        return data.multiprocessors * data.boost_mhz * 1e6
    return data.fp16_tflops * 1e12 / GEFORCE_FP16_PER_CLOCK


def _power(gpu: Gpu, data: GpuData) -> float:
    """The share of arithmetic that is left under a power limit below the default."""
    default = gpu.power_limit_default_w or data.power_w
    if not gpu.power_limit_w or not default or gpu.power_limit_w >= default:
        return 1.0
    return float((gpu.power_limit_w / default) ** POWER_EXPONENT)


def _link(gpu: Gpu) -> float:
    """One direction of the card's PCIe link in bytes/s; the best of card and slot, as an idle one
    is slow. Infinite for a card that nothing is known of: it limits nothing.
    """
    data, link = gpu_data(gpu), gpu.pcie
    if data is None:
        return inf
    gen = link.gen_max or link.gen_host_max or data.pcie_gen or 3
    lanes = link.width_path or link.width_current or link.width_max or data.pcie_lanes
    return LANE_GB_S.get(gen, 0.985) * lanes * 1e9


def arithmetic(card: Card, work: Work, engine: Engine) -> float:
    """Operations/s in matrix products of the model's format on a card.

    FP8 and NVFP4 run natively where the card has the type; elsewhere, and for 4-bit integers,
    vLLM widens weights to 16 bit. llama.cpp multiplies quantized weights in 8-bit integers.
    """
    q = work.quantization
    share = engine.arithmetic * (engine.routed if work.experts_bytes else 1.0)
    if q in SIXTEEN_BIT:
        rate = card.fp16
    elif isinstance(engine, LlamaCpp):
        units = (card.int8 or card.fp16) * engine.dequantized * engine.arithmetic
        tiles = card.cycles * engine.tile
        return units * tiles / (units + tiles) * (engine.routed if work.experts_bytes else 1.0)
    elif q in ("fp8", "w8a8") and card.fp8 is not None:
        rate = card.fp8
    elif q == "nvfp4" and card.fp4 is not None:
        rate = card.fp4
    else:
        rate = card.fp16 * engine.dequantized
    return rate * share
