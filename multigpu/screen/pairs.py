"""How the cards are connected: pairs, islands, and the three answers on P2P."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from multigpu.grants import MEANING
from multigpu.hardware import GpuPair, Host, P2p, Vendor
from multigpu.islands import connected, islands, members
from multigpu.peer_access import PeerAccess, Verdict, groups, peer_access
from multigpu.screen.text import wrapped

PAIRS_IN_FULL = 6


def pair_lines(host: Host, columns: int) -> list[str]:
    """Every pair up to four cards; above that, pairs that are connected alike share a line."""
    if len(host.pairs) <= PAIRS_IN_FULL:
        labels = [(f"{pair.a}-{pair.b}", connection(pair, host)) for pair in host.pairs]
    else:
        labels = [(_label(group, host), text) for text, group in _alike(host).items()]
    width = max((len(label) for label, _ in labels), default=0)
    return [
        line
        for label, text in labels
        for line in _one_line(f"  {label.ljust(width)}  {text}", columns)
    ]


def _one_line(line: str, columns: int) -> list[str]:
    return [line] if len(line) <= columns else wrapped("  ", line.strip(), columns)


def _alike(host: Host) -> dict[str, list[GpuPair]]:
    """Pairs by connection; the PCIe way under an NVLink does not part them."""
    found: dict[str, list[GpuPair]] = {}
    for pair in host.pairs:
        plain = replace(pair, path=None) if pair.bonded else pair
        found.setdefault(connection(plain, host), []).append(pair)
    return found


def _label(group: list[GpuPair], host: Host) -> str:
    """`all 28 pairs`, `within 0-3 and 4-7`, or the pairs by name while they are few."""
    if len(group) == len(host.pairs):
        return f"all {len(group)} pairs"
    sets = connected((pair.a, pair.b) for pair in group)
    if sum(len(s) * (len(s) - 1) // 2 for s in sets) == len(group):
        return "within " + " and ".join(members(s) for s in sets)
    names = [f"{pair.a}-{pair.b}" for pair in group]
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} other pairs"


def connection(pair: GpuPair, host: Host) -> str:
    """`NV4 (56 GB/s each way, PCIe PHB)  P2P granted`."""
    path = pair.path.value if pair.path else None
    if pair.bonded:
        links, rate = (
            (f"NV{pair.nvlinks}", pair.nvlink_gb_s)
            if pair.nvlinks
            else (f"XGMI{pair.xgmi_links}", pair.xgmi_gb_s)
        )
        speed = f"{rate:.0f} GB/s each way" if rate else "rate ?"
        return f"{links} ({speed}{f', PCIe {path}' if path else ''})  {_grant(pair)}"
    return f"{path or 'path ?'}  {_grant(pair)}{_without_link(pair, host)}"


def _grant(pair: GpuPair) -> str:
    read, write = (None if g is P2p.UNKNOWN else g for g in (pair.p2p_read, pair.p2p_write))
    if read is None:
        return "P2P read ?"
    if write is None or write is read:
        what = "P2P" if write is read else "P2P read"
        return f"{what} granted" if read is P2p.OK else f"{what} no ({MEANING[read]})"
    return f"P2P read {_word(read)}, write {_word(write)}"


def _word(verdict: P2p) -> str:
    return "granted" if verdict is P2p.OK else f"no ({verdict.value})"


def _without_link(pair: GpuPair, host: Host) -> str:
    amd = any(gpu.vendor is Vendor.AMD for gpu in host.gpus if gpu.index in (pair.a, pair.b))
    link, count = ("XGMI", pair.xgmi_links) if amd else ("NVLink", pair.nvlinks)
    return f"  {link} {'no' if count == 0 else '?'}"


def island_lines(host: Host, columns: int) -> list[str]:
    """`islands 0-3, 4-7 over NVLink`; nothing where no card has a link beside PCIe."""
    found = islands(host)
    if not found or len(host.usable) < 3:
        return []
    parts = []
    for link in dict.fromkeys(island.link for island in found):
        same = [island for island in found if island.link == link]
        sets = ", ".join(
            members(i.gpus) + ("" if i.full_mesh else " (not every pair)") for i in same
        )
        parts.append(f"{sets} over {link}")
    word = "island" if len(found) == 1 else "islands"
    return wrapped(f"  {word} ", "; ".join(parts), columns)


# --- is P2P on? ---------------------------------------------------------------------------------


def peer_access_lines(host: Host, columns: int) -> list[str]:
    """The three answers: driver, NCCL, vLLM's custom all-reduce; none for a single card.

    Cards of two vendors never reach each other: each vendor's have answers of their own.
    """
    answers = [peer_access(host, group) for group in groups(host)]
    vendors = {gpu.index: gpu.vendor for gpu in host.usable}
    lines = []
    for vendor in dict.fromkeys(vendors.values()):
        mine = [answer for answer in answers if vendors[answer.gpus[0]] is vendor]
        lines += _three_answers(mine, vendor, len(vendors), columns) if mine else []
    return lines


def _three_answers(
    answers: Sequence[PeerAccess], vendor: Vendor, usable: int, columns: int
) -> list[str]:
    """Those for all cards of one vendor, with what its islands (behind the first) change."""
    everyone, inner = answers[0], answers[1:]
    if everyone.driver.verdict is everyone.nccl.verdict is Verdict.UNKNOWN:
        return []  # the screen's last line says that P2P was not seen
    library = "RCCL" if vendor is Vendor.AMD else "NCCL"
    among = f"among {members(everyone.gpus)}: " if len(everyone.gpus) < usable else ""
    islands_alone = _of_islands(everyone, inner)
    proof = "; only its log proves it (NCCL_DEBUG=INFO)"
    lines = [
        ("P2P  driver  ", among + everyone.driver.reason),
        (f"     {library}    ", among + everyone.nccl.reason + islands_alone + proof),
        ("     vLLM    ", f"{among}custom all-reduce {_all_reduce(everyone, inner)}"),
    ]
    return [line for lead, text in lines for line in wrapped(f"  {lead}", text, columns)]


def _of_islands(everyone: PeerAccess, inner: Sequence[PeerAccess]) -> str:
    """What changes when a group keeps to one island; nothing where pairs are named already."""
    alone = [a for a in inner if a.nccl.verdict is Verdict.YES]
    if not alone or everyone.nccl.verdict is Verdict.PARTLY:
        return ""
    reasons = dict.fromkeys(answer.nccl.reason for answer in alone)
    return f"; within {_sets(alone)} alone: {', '.join(reasons)}"


def _sets(answers: Sequence[PeerAccess]) -> str:
    return " or ".join(members(answer.gpus) for answer in answers)


def _all_reduce(everyone: PeerAccess, inner: Sequence[PeerAccess]) -> str:
    """`would be on`; `off by design (...); on for 0-1 or 2-3 alone`."""
    text = _one(everyone)
    on = [a for a in inner if a.custom_all_reduce.verdict is Verdict.YES]
    return f"{text}; on for {_sets(on)} alone" if on else text


def _one(access: PeerAccess) -> str:
    answer = access.custom_all_reduce
    if answer.verdict is Verdict.YES:
        return "would be on"
    word = {Verdict.NO: "off", Verdict.BY_DESIGN: "off by design"}.get(answer.verdict, "unknown")
    among = f" for all {len(access.gpus)}" if len(access.gpus) > 2 else ""
    return f"{word}{among} ({answer.reason})"
