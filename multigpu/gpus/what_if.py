"""A host that nobody has: cards, slots and links as a person writes them, to plan with.

    host("2x RTX 3090", pcie="x8,x4")
    host("RTX 4090 + RTX 3090")
    host("8x h100_sxm")

What is not said is the usual: every card in a slot as good as itself, one CPU socket whose root
complex joins all cards (PHB), nothing else on the cards. Peer access is what NVIDIA's own driver
grants: over NVLink always, over PCIe to data-centre and workstation cards and to GeForce up to the
10 series, not to later GeForce (the driver answers NS there, CUDA samples' simpleP2P likewise).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from multigpu.errors import WishError
from multigpu.gpus.gpu_data import GpuData, consumer, matches, near
from multigpu.hardware import Gpu, GpuPair, Host, Limit, P2p, Path, PcieLink, Vendor
from multigpu.memory import cuda_total_mib

NAME = "what-if"
MOST_CARDS = 32
LANES = (1, 2, 4, 8, 16)

COUNTED = re.compile(r"(\d{1,9})\s*[x×*]\s*(.+)|(\d{1,2})\s+([a-z].*)", re.I)
COUNTED_AFTER = re.compile(r"(.*[\d\s])[x×*]\s*(\d{1,2})", re.I)
CAPPED = re.compile(r"\s*@\s*(\d{2,4})\s*W\b", re.I)
SLOT = re.compile(r"(?:pcie)?\s*(?:(?:gen)?\s*([1-6])(?:\.0)?)?\s*(?:[x×]?\s*(\d{1,2}))?", re.I)
BARE_LANES = re.compile(r"[x×]?\s*(\d{1,2})|(\d{1,2})\s*[x×]", re.I)

NVLINK_GB_S = {(6, 0): 20.0, (8, 6): 14.0625, (10, 0): 50.0, (10, 3): 50.0}
"""One link in one direction by compute capability; 25 GB/s for Volta, Turing, A100 and Hopper
(their whitepapers; GA102: 56.25 GB/s over four links)."""
XGMI_PEERS = 7
"""An OAM board joins eight Instinct cards, each to the seven others."""


def host(
    gpus: str,
    pcie: str | None = None,
    *,
    nvlink: bool = False,
    p2p: bool | None = None,
    numa_nodes: int = 1,
) -> Host:
    """A host with these cards; `nvlink` bonds them in pairs (0-1, 2-3 ...) as a bridge does.

    `gpus` lists cards with `+` or `,` between them, each with an optional count (`2x`) and power
    cap (`@220W`). `pcie` is one slot for all cards or one for each (`x8`, `4.0x8`, `gen3 x16`).
    `p2p` overrides what the driver grants over PCIe. Cards are spread evenly over `numa_nodes`.
    Raises WishError, in one line, for what is not understood.
    """
    models = _cards(gpus)
    slots = _slots(pcie, len(models))
    if not 1 <= numa_nodes <= len(models):
        raise WishError(f"--numa {numa_nodes}: between 1 and the {len(models)} card(s) is needed")
    cards = tuple(
        _gpu(i, data, cap, slot, i * numa_nodes // len(models))
        for i, ((data, cap), slot) in enumerate(zip(models, slots, strict=True))
    )
    known = [data for data, _ in models]
    pairs = tuple(
        _pair(a, b, known, nvlink, p2p, cards[a].numa_node == cards[b].numa_node)
        for a, b in combinations(range(len(cards)), 2)
    )
    if nvlink and not any(pair.bonded for pair in pairs):
        raise WishError(_no_bond(known))
    return Host(NAME, gpus=cards, pairs=pairs, partial=True, numa_nodes=numa_nodes)


# --- cards -------------------------------------------------------------------------------------


def _cards(text: str) -> list[tuple[GpuData, float | None]]:
    """Model and power cap of every card, in the order written."""
    found: list[tuple[GpuData, float | None]] = []
    for part in re.split(r"[+,;]", text):
        count, name, cap = _part(part.strip())
        model = _model(name)
        if count < 1 or len(found) + count > MOST_CARDS:
            raise WishError(f"--gpus {text!r}: between 1 and {MOST_CARDS} cards are planned for")
        found += [(model, cap)] * count
    return found


def _part(text: str) -> tuple[int, str, float | None]:
    """`2x RTX 3090 @220W` as 2, `RTX 3090`, 220; `RTX 3090 x2` is read as well."""
    cap = CAPPED.search(text)
    plain = CAPPED.sub("", text)
    watts = float(cap[1]) if cap else None
    if after := COUNTED_AFTER.fullmatch(plain):
        return int(after[2]), after[1].strip(), watts
    if counted := COUNTED.fullmatch(plain):
        return int(counted[1] or counted[3]), counted[2] or counted[4], watts
    return 1, plain, watts


def _model(name: str) -> GpuData:
    found = matches(name)
    if len(found) == 1:
        return found[0]
    names = ", ".join(near(name))
    if not name.strip():
        raise WishError("--gpus names no card: write '2x RTX 3090' or 'RTX 4090 + RTX 3090'")
    if found:
        raise WishError(f"--gpus: {name!r} may be one of {names}: add the memory size or form")
    hint = f"did you mean {names}?" if names else "multigpu/data/gpus.toml lists the known ones"
    raise WishError(f"--gpus: no GPU data for {name!r}: {hint}")


def _gpu(index: int, data: GpuData, cap: float | None, slot: Slot, numa_node: int) -> Gpu:
    """The card in its slot, headless: all that CUDA reports of its memory is free."""
    card = Gpu(
        index=index,
        name=_driver_name(data),
        vendor=data.vendor,
        memory_mib=data.memory_mib,
        pcie=_link(data, slot),
        numa_node=numa_node,
        compute_capability=data.compute_capability,
        gfx=data.gfx,
        power_limit_w=cap or data.power_w,
        power_limit_default_w=data.power_w,
        unified_memory=data.unified_memory or None,
        memory_bus_width_bits=data.memory_bus_width_bits,
        multiprocessors=data.multiprocessors,
    )
    return replace(card, memory_free_mib=int(cuda_total_mib(card)))


def _driver_name(data: GpuData) -> str:
    return f"{'NVIDIA' if data.vendor is Vendor.NVIDIA else 'AMD'} {data.name}"


# --- slots -------------------------------------------------------------------------------------

Slot = tuple[int | None, int | None]
"""Generation and lanes; None is as good as the card."""


def _slots(pcie: str | None, count: int) -> list[Slot]:
    """A slot for each card: one is for all."""
    if pcie is None:
        return [(None, None)] * count
    found = [_slot(part.strip()) for part in re.split(r"[,;+]", pcie)]
    if len(found) == 1:
        return found * count
    if len(found) != count:
        cards = "1 card" if count == 1 else f"{count} cards"
        raise WishError(
            f"--pcie {pcie!r} names {len(found)} slots for {cards}: give one for all or one each"
        )
    return found


def _slot(text: str) -> Slot:
    bare, whole = BARE_LANES.fullmatch(text), SLOT.fullmatch(text)
    gen, lanes = (
        (None, bare[1] or bare[2]) if bare else (whole[1], whole[2]) if whole else (None, None)
    )
    if (gen is None and lanes is None) or (lanes is not None and int(lanes) not in LANES):
        raise WishError(f"--pcie: {text!r} is no slot: write x16, x8, x4, 4.0x8 or gen3 x16")
    return (int(gen) if gen else None), (int(lanes) if lanes else None)


def _link(data: GpuData, slot: Slot) -> PcieLink:
    """Card and slot together: the lower generation, the fewer lanes."""
    own = data.pcie_gen or 3
    gen = min(slot[0] or own, own)
    lanes = min(slot[1] or data.pcie_lanes, data.pcie_lanes)
    return PcieLink(
        gen_current=gen,
        gen_max=gen,
        width_current=lanes,
        width_max=data.pcie_lanes,
        width_path=lanes,
        gen_gpu_max=own,
        gen_host_max=slot[0],
        limited_by=Limit.SLOT if lanes < data.pcie_lanes else None,
    )


# --- pairs -------------------------------------------------------------------------------------


def _pair(
    a: int, b: int, models: Sequence[GpuData], nvlink: bool, p2p: bool | None, same_node: bool
) -> GpuPair:
    one, other = models[a], models[b]
    path = Path.PHB if same_node else Path.SYS
    bridged = nvlink and b == a + 1 and a % 2 == 0
    joined = one.name == other.name and one.nvlink_gb_s > 0 and (one.fabric or bridged)
    grant = P2p.OK if joined or _granted(one, other, p2p) else P2p.NOT_SUPPORTED
    pair = GpuPair(a, b, path, nvlinks=0, p2p_read=grant, p2p_write=grant)
    if not joined:
        return pair
    if one.vendor is Vendor.AMD:
        rate = one.nvlink_gb_s / 2 / (XGMI_PEERS if one.fabric else 1)
        return replace(pair, nvlinks=None, xgmi_links=1, xgmi_gb_s=round(rate, 2))
    rate = NVLINK_GB_S.get(one.compute_capability or (0, 0), 25.0)
    links = max(1, round(one.nvlink_gb_s / 2 / rate))
    return replace(pair, nvlinks=links, nvlink_gb_s=round(links * rate, 2))


def _granted(one: GpuData, other: GpuData, p2p: bool | None) -> bool:
    """What the driver grants over PCIe: never between vendors or generations."""
    like = (one.vendor, one.compute_capability, one.gfx)
    if like != (other.vendor, other.compute_capability, other.gfx):
        return False
    if p2p is not None:
        return p2p
    before_turing = (one.compute_capability or (0, 0)) < (7, 5)
    return one.vendor is Vendor.AMD or before_turing or not consumer(one.name)


def _no_bond(models: Sequence[GpuData]) -> str:
    without = sorted({each.name for each in models if not each.nvlink_gb_s})
    if without:
        return f"--nvlink: {', '.join(without)} has no NVLink: leave --nvlink out"
    return "--nvlink bonds cards 0-1, 2-3 ... of one model, and no two such stand together here"
