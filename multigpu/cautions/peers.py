"""Peer access: what the driver refuses or grants, and what can make a grant a false one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from multigpu.cautions.caution import Caution, Severity, is_bare, is_guest, is_virtualized, names
from multigpu.grants import MEANING, granted
from multigpu.hardware import Gpu, GpuPair, Host, P2p, PcieHop, Vendor

THROUGH_HOST = (
    "what these cards send each other goes through host memory: tensor parallel pays that in every "
    "layer, a layer split hardly"
)


def _pairs(host: Host) -> list[GpuPair]:
    """Pairs of usable cards."""
    usable = {gpu.index for gpu in host.usable}
    return [pair for pair in host.pairs if pair.a in usable and pair.b in usable]


def _key(pairs: Sequence[GpuPair]) -> str:
    """`0-1, 2-3` while they are few."""
    return ", ".join(f"{pair.a}-{pair.b}" for pair in pairs)


def _among(pairs: Sequence[GpuPair]) -> tuple[int, ...]:
    return tuple(sorted({index for pair in pairs for index in (pair.a, pair.b)}))


def _refused(host: Host) -> Iterator[Caution]:
    """Pairs that may not read each other's memory, one warning per verdict."""
    pairs = _pairs(host)
    refused = [pair for pair in pairs if pair.p2p_read not in (P2p.OK, None)]
    open_pairs = [pair for pair in pairs if granted(pair)]
    for verdict in dict.fromkeys(pair.p2p_read for pair in refused if pair.p2p_read):
        same = [pair for pair in refused if pair.p2p_read is verdict]
        among = _among(same)
        what = "P2P is unknown" if verdict is P2p.UNKNOWN else "no P2P"
        rest = f"; granted {_between(open_pairs, len(host.usable))}" if open_pairs else ""
        yield Caution(
            "p2p-refused",
            f"{what} {_between(same, len(host.usable))}: {MEANING[verdict]} ({verdict.value})"
            f"{rest}",
            THROUGH_HOST,
            _refusal_cure(verdict, host, among),
            needed="peer access granted (OK)",
            gpus=among,
            severity=Severity.LIMIT,
        )


def _between(pairs: Sequence[GpuPair], usable: int) -> str:
    every = usable * (usable - 1) // 2
    if len(pairs) == every:
        return "between the cards"
    if len(pairs) <= 4:
        return f"on {_key(pairs)}"
    return f"on {len(pairs)} of {every} pairs"


def _refusal_cure(verdict: P2p, host: Host, among: Sequence[int]) -> str:
    """What the verdict means for this host; runtimes fall back without being told."""
    if verdict is P2p.DISABLED_BY_REGISTRY:
        return "look for RegistryDwords in /proc/driver/nvidia/params and /etc/modprobe.d"
    if is_guest(host):
        return (
            "nothing in this guest: the verdict is about the emulated chipset, and a grant forced "
            "by the hypervisor does not prove that bytes arrive"
        )
    if any("GeForce" in (host.gpu(index).name or "") for index in among):
        return (
            "nothing: the stock driver refuses it on GeForce cards without an NVLink bridge, and "
            "runtimes fall back by themselves"
        )
    return "nothing to set: runtimes fall back by themselves; cards on one PCIe switch may differ"


def _one_way(host: Host) -> Iterator[Caution]:
    """Reading granted and writing refused, or the reverse."""
    nothing = (None, P2p.UNKNOWN)
    both = [p for p in _pairs(host) if p.p2p_read not in nothing and p.p2p_write not in nothing]
    odd = [p for p in both if (p.p2p_read is P2p.OK) != (p.p2p_write is P2p.OK)]
    if odd:
        denied = odd[0].p2p_write if odd[0].p2p_read is P2p.OK else odd[0].p2p_read
        way = "writing" if odd[0].p2p_read is P2p.OK else "reading"
        yield Caution(
            "p2p-one-way",
            f"P2P is granted in one direction only on {_key(odd[:4])}"
            f"{' and more' if len(odd) > 4 else ''}: {way} {MEANING[denied or P2p.UNKNOWN]}",
            "NCCL needs both and falls back to shared memory; vLLM's custom all-reduce trusts one "
            "and may hang",
            "start vLLM with `--disable-custom-all-reduce` and look at the NCCL log",
            needed="`nvidia-smi topo -p2p r` and `-p2p w` both OK",
            gpus=_among(odd),
            severity=Severity.DANGER,
        )


# --- what makes a grant a false one -------------------------------------------------------------


def _over_pcie(host: Host) -> list[GpuPair]:
    """Pairs with a grant and no NVLink or XGMI: their traffic crosses PCIe ports."""
    return [pair for pair in _pairs(host) if granted(pair) and not pair.bonded]


def _iommu(host: Host) -> Iterator[Caution]:
    if host.iommu != "translating" or is_virtualized(host):
        return
    pairs = _over_pcie(host)
    if pairs:
        yield Caution(
            "iommu-translating",
            "the IOMMU is on and translates (no passthrough), and the driver grants P2P over PCIe",
            "transfers between cards can be redirected, hang or arrive wrong",
            "boot with `iommu=pt` and switch ACS off in the BIOS; leave it where this host passes "
            "devices to guests, and set NCCL_P2P_DISABLE=1 there",
            needed="iommu=pt, or the IOMMU off",
            gpus=_among(pairs),
            severity=Severity.DANGER,
        )


def _acs(host: Host) -> Iterator[Caution]:
    """ACS redirect on a port between two cards that have a grant over PCIe."""
    if is_guest(host) or not any(h.acs_redirect for g in host.gpus for h in g.pcie.hops):
        return
    redirecting: set[str] = set()
    pairs = []
    for pair in _over_pcie(host):
        ports = {hop.address for hop in between(host.gpu(pair.a), host.gpu(pair.b))}
        pairs += [pair] if ports else []
        redirecting |= ports
    if pairs:
        shown = sorted(redirecting)
        more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
        yield Caution(
            "acs-redirect",
            f"ACS redirects peer traffic at {', '.join(shown[:4])}{more}, on the way between "
            "cards with P2P",
            "what one card writes to another takes the way over the root, hangs, or arrives wrong",
            "switch ACS off in the BIOS (or `setpci -s PORT ECAP_ACS+6.w=0000` until the reboot); "
            "leave it where this host passes devices to guests",
            needed="ReqRedir- and CmpltRedir- in `lspci -vvv`, ACSCtl",
            gpus=_among(pairs),
            severity=Severity.DANGER,
        )


def between(a: Gpu, b: Gpu) -> list[PcieHop]:
    """Ports on the way from one card to the other that redirect; those above both are left out."""
    shared = {hop.address for hop in a.pcie.hops} & {hop.address for hop in b.pcie.hops}
    hops = (*a.pcie.hops, *b.pcie.hops)
    return [hop for hop in hops if hop.acs_redirect and hop.address not in shared]


def _in_guest(host: Host) -> Iterator[Caution]:
    pairs = _over_pcie(host) if is_guest(host) else []
    if pairs:
        yield Caution(
            "p2p-in-guest",
            "this guest grants P2P over PCIe, which the hypervisor only asserts",
            "every path can be a mirror: the writer reads its own data and the peer sees zeros, "
            "while bandwidth tests pass",
            "prove it with a one-way copy that is checked on the destination, else "
            "NCCL_P2P_DISABLE=1 and `--disable-custom-all-reduce`",
            needed="a proof that bytes arrive",
            gpus=_among(pairs),
            severity=Severity.DANGER,
        )


# --- the patched-driver path for GeForce --------------------------------------------------------


def _patchable(host: Host) -> list[Gpu]:
    """GeForce cards on bare metal that the stock driver refuses: only they ask for BAR1."""
    cards = [g for g in host.usable if g.vendor is Vendor.NVIDIA and "GeForce" in (g.name or "")]
    if not cards or not is_bare(host):
        return []
    refused = [pair for pair in _pairs(host) if granted(pair) is False and not pair.bonded]
    among = _among(refused)
    return [gpu for gpu in cards if gpu.index in among]


def _bar1(host: Host) -> Iterator[Caution]:
    """The window for peers is smaller than the VRAM."""
    small = [gpu for gpu in _patchable(host) if _is_small(gpu)]
    if small:
        cards = tuple(gpu.index for gpu in small)
        sizes = sorted({gpu.bar1_memory_mib for gpu in small if gpu.bar1_memory_mib is not None})
        shown = f" ({', '.join(map(str, sizes))} MiB of BAR1)" if sizes else ""
        yield Caution(
            "bar1-small",
            f"Resizable BAR is off on {names(cards)}{shown}",
            "only the way to P2P over a patched open kernel module, which needs all VRAM in BAR1; "
            "nothing else",
            "if that is wanted: Above 4G Decoding and Re-Size BAR on, CSM off in the BIOS; an old "
            "VBIOS may need an update",
            gpus=cards,
            severity=Severity.NOTE,
        )


def _is_small(gpu: Gpu) -> bool:
    if gpu.bar1_memory_mib is not None and gpu.memory_mib is not None:
        return gpu.bar1_memory_mib < gpu.memory_mib
    return gpu.resizable_bar is False


def _module(host: Host) -> Iterator[Caution]:
    """The closed module where only the open one could be patched."""
    cards = tuple(gpu.index for gpu in _patchable(host))
    if cards and host.module_license == "NVIDIA":
        yield Caution(
            "module-closed",
            "the closed NVIDIA kernel module is loaded",
            "only the way to P2P over a patched module, which is made for the open one; nothing "
            "else",
            "if that is wanted: install the driver's open kernel modules (Turing and newer)",
            gpus=cards,
            severity=Severity.NOTE,
        )


def _registry(host: Host) -> Iterator[Caution]:
    keys = (host.registry_dwords or "").strip()
    if not keys:
        return
    useless = "RMForceStaticBar1" in keys and not _over_pcie(host)
    yield Caution(
        "registry-dwords",
        f"the driver runs with registry keys: {keys[:120]}",
        "these cost 2-3 % of decode speed where P2P is off, as it is here"
        if useless
        else "they change what the driver does, and leave with no trace in nvidia-smi",
        "look for NVreg_RegistryDwords in /etc/modprobe.d, and take out what nobody needs",
        severity=Severity.SLOW if useless else Severity.NOTE,
    )


RULES = (_one_way, _in_guest, _acs, _iommu, _refused, _bar1, _module, _registry)
