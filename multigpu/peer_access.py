"""Is P2P on? Three layers answer apart, and one yes says nothing about the next.

1. The driver grants access for a pair (`nvidia-smi topo -p2p`): a grant, not a proof.
2. NCCL chooses a transport (see multigpu.transport); only its log proves what was used.
3. vLLM's custom all-reduce (vLLM 0.33, custom_all_reduce.py, platforms/rocm.py): 2, 4, 6 or 8
   cards; two need the grant, more need a full NVLink mesh (XGMI on ROCm, and gfx94/gfx95 only).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

from multigpu.grants import MEANING, granted, named
from multigpu.hardware import GpuPair, Host, P2p, Vendor
from multigpu.islands import full_mesh, islands
from multigpu.transport import Transport, transport

WORLD_SIZES = (2, 4, 6, 8)


class Verdict(StrEnum):
    """Answer of one layer. `off by design` is no fault: the runtime never does it here."""

    YES = "yes"
    PARTLY = "partly"
    NO = "no"
    BY_DESIGN = "off by design"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Answer:
    """One layer's verdict, and why in a few words."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class PeerAccess:
    """The three answers for one group of cards (NVML indices)."""

    gpus: tuple[int, ...]
    driver: Answer
    nccl: Answer
    custom_all_reduce: Answer


def peer_access(host: Host, gpus: Sequence[int]) -> PeerAccess:
    """The three answers for a group of two or more cards.

    Raises KeyError when the host has no such card, ValueError for fewer than two.
    """
    group = tuple(host.gpu(index).index for index in gpus)
    if len(group) < 2:
        raise ValueError("peer access is between two cards or more")
    pairs = {(a, b): host.pair(a, b) for a, b in combinations(sorted(group), 2)}
    return PeerAccess(
        group, _driver(pairs), _nccl(host, group, pairs), _custom_all_reduce(host, group, pairs)
    )


Pairs = dict[tuple[int, int], GpuPair | None]


# --- 1: the driver ----------------------------------------------------------------------------


def _driver(pairs: Pairs) -> Answer:
    yes = [key for key, pair in pairs.items() if granted(pair)]
    no = {key: pair for key, pair in pairs.items() if pair is not None and granted(pair) is False}
    unseen = [key for key, pair in pairs.items() if granted(pair) is None]
    reasons = ", ".join(dict.fromkeys(_refusal(pair) for pair in no.values()))
    if len(yes) == len(pairs):
        return Answer(Verdict.YES, "granted")
    if len(no) == len(pairs):
        return Answer(Verdict.NO, f"refused: {reasons}")
    if len(unseen) == len(pairs):
        return Answer(Verdict.UNKNOWN, "not seen")
    parts = [f"granted on {named(yes)}"] if yes else []
    parts += [f"refused on {named(list(no))} ({reasons})"] if no else []
    parts += [f"not seen on {named(unseen)}"] if unseen else []
    return Answer(Verdict.PARTLY if yes else Verdict.UNKNOWN, "; ".join(parts))


def _refusal(pair: GpuPair) -> str:
    """Meaning of the refusal; for one direction alone, which one."""
    read, write = pair.p2p_read, pair.p2p_write
    if read is P2p.OK and write is not None:
        return f"writing {MEANING[write]}"
    if write is P2p.OK and read is not None:
        return f"reading {MEANING[read]}"
    return MEANING[read or P2p.UNKNOWN]


# --- 2: NCCL and RCCL -------------------------------------------------------------------------


def _nccl(host: Host, group: tuple[int, ...], pairs: Pairs) -> Answer:
    vendors = {host.gpu(index).vendor for index in group}
    if len(vendors) > 1:
        return Answer(Verdict.NO, "no collective spans two vendors")
    found: dict[Transport, list[tuple[int, int]]] = {}
    for key, pair in pairs.items():
        found.setdefault(transport(host, pair, group), []).append(key)
    if set(found) == {Transport.UNKNOWN}:
        return Answer(Verdict.UNKNOWN, _unknown_transport(pairs))
    direct = set(found) - {Transport.SHM, Transport.UNKNOWN}
    verdict = Verdict.YES if set(found) == direct else Verdict.PARTLY if direct else Verdict.NO
    if verdict is Verdict.NO and Transport.UNKNOWN in found:
        verdict = Verdict.UNKNOWN
    return Answer(verdict, _transports(found, pairs))


def _unknown_transport(pairs: Pairs) -> str:
    if any(granted(pair) for pair in pairs.values()):
        return (
            "P2P over PCIe on an AMD processor, shared memory on any other; the processor was "
            "not seen"
        )
    return "its log tells; the grant was not seen"


def _transports(found: dict[Transport, list[tuple[int, int]]], pairs: Pairs) -> str:
    """`P2P over NVLink on 0-1, 2-3; shared memory on 4 pairs (by default ...)`."""
    ranked = sorted(found.items(), key=lambda item: list(Transport).index(item[0]))
    if len(ranked) == 1:
        text = str(ranked[0][0])
    else:
        text = "; ".join(
            f"{'not known' if way is Transport.UNKNOWN else way} on {named(keys)}"
            for way, keys in ranked
        )
    held_back = [key for key in found.get(Transport.SHM, ()) if granted(pairs[key])]
    if held_back:
        text += "; by default no P2P across host bridges (NCCL_P2P_LEVEL)"
    return text


# --- 3: vLLM's custom all-reduce --------------------------------------------------------------


def _custom_all_reduce(host: Host, group: tuple[int, ...], pairs: Pairs) -> Answer:
    cards = [host.gpu(index) for index in group]
    if len({card.vendor for card in cards}) > 1:
        return Answer(Verdict.BY_DESIGN, "two vendors are never one group")
    if len(group) not in WORLD_SIZES:
        return Answer(Verdict.BY_DESIGN, "it is for 2, 4, 6 or 8 cards")
    if cards[0].vendor is Vendor.AMD:
        return _on_rocm(host, group)
    return _mesh(host, group, "NVLink") or _granted(pairs)


def _on_rocm(host: Host, group: tuple[int, ...]) -> Answer:
    """ROCm trusts peer access; only the architecture and the mesh count."""
    known = [host.gpu(index).gfx for index in group]
    if None in known:
        return Answer(Verdict.UNKNOWN, "the cards' gfx was not seen")
    if not all((gfx or "").startswith(("gfx94", "gfx95")) for gfx in known):
        return Answer(Verdict.BY_DESIGN, "on ROCm it is for gfx94 and gfx95 only")
    return _mesh(host, group, "XGMI") or Answer(Verdict.YES, "on")


def _mesh(host: Host, group: tuple[int, ...], link: str) -> Answer | None:
    """What keeps more than two cards from it; None when nothing does."""
    whole = full_mesh(host, group) if len(group) > 2 else True
    if whole is None:
        return Answer(Verdict.UNKNOWN, f"{link} was not seen")
    if not whole:
        return Answer(Verdict.BY_DESIGN, f"more than two cards need {link} between every pair")
    return None


def _granted(pairs: Pairs) -> Answer:
    grants = [granted(pair) for pair in pairs.values()]
    if all(grants):
        return Answer(Verdict.YES, "on")
    refused = [pair for pair in pairs.values() if pair and granted(pair) is False]
    if any(P2p.OK in (pair.p2p_read, pair.p2p_write) for pair in refused):
        return Answer(Verdict.UNKNOWN, "granted in one direction only")
    if False in grants:
        return Answer(Verdict.NO, "it needs the driver's grant")
    return Answer(Verdict.UNKNOWN, "the grant was not seen")


def groups(host: Host) -> tuple[tuple[int, ...], ...]:
    """Groups worth an answer: the usable cards of each vendor, each before its smaller islands."""
    found: list[tuple[int, ...]] = []
    for vendor in dict.fromkeys(gpu.vendor for gpu in host.usable):
        same = tuple(gpu.index for gpu in host.usable if gpu.vendor is vendor)
        if len(same) > 1:
            inner = [i.gpus for i in islands(host) if i.gpus != same and set(i.gpus) <= set(same)]
            found += [same, *inner]
    return tuple(found)
