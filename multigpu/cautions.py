"""What an operator should mind about a machine before planning on it.

Each rule is a function of the host that yields `Caution`s; `RULES` is their order on the screen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from multigpu.hardware import Gpu, GpuPair, GpuProcess, Host, P2p, Vendor
from multigpu.parse.system import is_container, is_virtual_machine

# Less is a console or a driver context, not a tenant.
TENANT_MIB = 256

MEANING = {
    P2p.OK: "granted",
    P2p.CHIPSET_NOT_SUPPORTED: "chipset not supported",
    P2p.GPU_NOT_SUPPORTED: "GPU not supported",
    P2p.TOPOLOGY_NOT_SUPPORTED: "topology not supported",
    P2p.NOT_SUPPORTED: "not supported",
    P2p.DISABLED_BY_REGISTRY: "disabled by a driver registry key",
    P2p.UNKNOWN: "status unknown",
}


@dataclass(frozen=True)
class Caution:
    """One thing to mind. `rule` is a stable kebab-case id; `gpus` the NVML indices it is about."""

    rule: str
    found: str
    costs: str | None = None
    do: str | None = None
    needed: str | None = None
    gpus: tuple[int, ...] = ()


def warnings(host: Host) -> tuple[Caution, ...]:
    """Everything to mind about this host, the worst first; empty for a healthy one."""
    return tuple(caution for rule in RULES for caution in rule(host))


def names(indices: tuple[int, ...]) -> str:
    """`GPU 1`, `GPUs 0 and 1`, `GPUs 0, 1 and 2`."""
    words = [str(index) for index in indices]
    if len(words) == 1:
        return f"GPU {words[0]}"
    return f"GPUs {', '.join(words[:-1])} and {words[-1]}"


def _problems(host: Host) -> Iterator[Caution]:
    """Sentences of the reader: found, needed and do, parted as the reader writes them."""
    for problem in host.problems:
        found, _, rest = problem.partition("; needed: ")
        needed, _, do = rest.partition("; do: ")
        yield Caution("capture-problem", found, do=do or None, needed=needed or None)


def _unusable(host: Host) -> Iterator[Caution]:
    """Cards with an error, one warning per error."""
    for error in dict.fromkeys(gpu.error for gpu in host.gpus if gpu.error is not None):
        same = tuple(gpu for gpu in host.gpus if gpu.error == error)
        if host.problems and (error or "").startswith("the driver does not answer"):
            continue
        indices = tuple(gpu.index for gpu in same)
        yield Caution(
            "gpu-unusable",
            f"{names(indices)} cannot be used: {error}",
            "the planner counts on the other cards only" if host.usable else "no card is left",
            _cure(same[0]),
            gpus=indices,
        )


def _cure(gpu: Gpu) -> str | None:
    error = gpu.error or ""
    if gpu.vendor is not Vendor.NVIDIA:
        return None
    if "bound to" in error:
        return "leave it to its guest, or bind it to nvidia again (driverctl unset-override)"
    return (
        f"look for Xid lines of {gpu.pci_bus_id or 'this card'} in `journalctl -k`; reboot; when "
        "it comes back lost: power cables, riser, another slot"
    )


def _mig(host: Host) -> Iterator[Caution]:
    cut = tuple(gpu.index for gpu in host.gpus if gpu.mig)
    if cut:
        yield Caution(
            "mig-on",
            f"{names(cut)} {'is' if len(cut) == 1 else 'are'} cut into MIG slices",
            "slices have no NVLink and no P2P: the card stays out of every plan",
            f"`nvidia-smi -i {','.join(map(str, cut))} -mig 0` gives it back as a whole",
            gpus=cut,
        )


def _lanes(host: Host) -> Iterator[Caution]:
    """Fewer lanes than the card has; in a guest the ports are emulated and nothing is said."""
    if is_virtual_machine(host.virtualization):
        return
    for gpu in host.usable:
        link = gpu.pcie
        lanes = min(w for w in (link.width_current, link.width_path, 99) if w is not None)
        if link.width_max is None or lanes >= link.width_max:
            continue
        yield Caution(
            "narrow-link",
            f"GPU {gpu.index} runs on {lanes} of {link.width_max} lanes{_limited(gpu)}",
            _lanes_cost(lanes, link.width_max),
            _lanes_cure(gpu),
            gpus=(gpu.index,),
        )


def _limited(gpu: Gpu) -> str:
    if gpu.pcie.limited_at is None:
        return ""
    kind = " (chipset slot)" if gpu.pcie.behind_chipset else ""
    return f", limited at {gpu.pcie.limited_at}{kind}"


def _lanes_cost(lanes: int, width_max: int) -> str:
    if lanes * 2 >= width_max:
        return "some prefill speed under tensor parallel; nothing measurable for a layer split"
    return (
        "prefill under tensor parallel, and the time to load a model; nothing measurable for a "
        "layer split"
    )


def _lanes_cure(gpu: Gpu) -> str:
    link = gpu.pcie
    trained_down = link.limited_at_width_max is not None and link.width_max is not None
    if link.behind_chipset:
        return "move the card to a slot on CPU lanes, or plan a layer split or replicas"
    if trained_down and (link.limited_at_width_max or 0) >= (link.width_max or 99):
        return (
            "the slot could carry all lanes: reseat the card, try without riser, look for an M.2 "
            "slot or a bifurcation setting that takes lanes"
        )
    return "use a slot with more lanes, or plan a layer split or replicas"


def _power(host: Host) -> Iterator[Caution]:
    for gpu in host.usable:
        limit, default = gpu.power_limit_w, gpu.power_limit_default_w
        if limit is None or default is None or limit > 0.99 * default:
            continue
        yield Caution(
            "power-cap",
            f"GPU {gpu.index} is capped at {limit:.0f} W, default {default:.0f} W",
            "prefill and large batches; a split model runs at the pace of its slowest card",
            f"keep it if heat or the power supply ask for it, else `nvidia-smi -i {gpu.index} "
            f"-pl {default:.0f}`",
            gpus=(gpu.index,),
        )


def _tenants(host: Host) -> Iterator[Caution]:
    """VRAM that others hold; processes of our own units are no tenants."""
    for gpu in host.usable:
        others = [p for p in gpu.processes if not (p.unit or "").startswith("multigpu-")]
        held = sum(process.used_memory_mib or 0 for process in others)
        if others and held >= TENANT_MIB:
            yield Caution(
                "vram-in-use",
                f"GPU {gpu.index}: other processes hold {held} MiB: {_listed(others)}",
                "this much less for weights and KV cache",
                _evict(others),
                gpus=(gpu.index,),
            )
        elif not gpu.processes and _unnamed(gpu) >= TENANT_MIB:
            yield Caution(
                "vram-in-use",
                f"GPU {gpu.index}: {_unnamed(gpu)} MiB are in use by processes that the driver "
                "does not name",
                "this much less for weights and KV cache",
                "run the survey as root; a container's processes show on its host only",
                gpus=(gpu.index,),
            )


def _listed(processes: list[GpuProcess]) -> str:
    """The largest three, by program, with their unit."""
    ranked = sorted(processes, key=lambda p: -(p.used_memory_mib or 0))
    words = [f"{_program(p)} {p.used_memory_mib or '?'}" for p in ranked[:3]]
    more = f" and {len(ranked) - 3} more" if len(ranked) > 3 else ""
    return ", ".join(words) + more


def _program(process: GpuProcess) -> str:
    program = (process.name or f"pid {process.pid}").split("/")[-1].split(" ")[0]
    return f"{program} ({process.unit})" if process.unit else program


def _evict(processes: list[GpuProcess]) -> str:
    units = [p.unit for p in processes if (p.unit or "").endswith(".service")]
    if units:
        known = " ".join(dict.fromkeys(unit for unit in units if unit))
        return f"`systemctl disable --now {known}` if they may go, else the plan uses what is free"
    return "stop them if they may go, else the plan uses what is free"


def _unnamed(gpu: Gpu) -> int:
    """MiB in use that no listed process explains."""
    if gpu.memory_mib is None or gpu.memory_free_mib is None or gpu.memory_reserved_mib is None:
        return 0
    return gpu.memory_mib - gpu.memory_free_mib - gpu.memory_reserved_mib


def _peer_access(host: Host) -> Iterator[Caution]:
    """Pairs that may not read each other's memory, one warning per verdict."""
    usable = {gpu.index for gpu in host.usable}
    refused = [
        pair
        for pair in host.pairs
        if {pair.a, pair.b} <= usable and pair.p2p_read not in (P2p.OK, None)
    ]
    for verdict in dict.fromkeys(pair.p2p_read for pair in refused if pair.p2p_read):
        same = [pair for pair in refused if pair.p2p_read is verdict]
        among = tuple(sorted({index for pair in same for index in (pair.a, pair.b)}))
        yield Caution(
            "p2p-refused",
            f"no P2P {_between(same, len(usable))}: {MEANING[verdict]} ({verdict.value})",
            "what these cards send each other goes through host memory: tensor parallel pays that "
            "in every layer, a layer split hardly",
            _peer_cure(verdict, host, among),
            gpus=among,
        )


def _between(pairs: list[GpuPair], usable: int) -> str:
    every = usable * (usable - 1) // 2
    if len(pairs) == every:
        return "between the cards"
    if len(pairs) <= 4:
        return "on " + ", ".join(f"{pair.a}-{pair.b}" for pair in pairs)
    return f"on {len(pairs)} of {every} pairs"


def _peer_cure(verdict: P2p, host: Host, among: tuple[int, ...]) -> str:
    """What the verdict means for this host; runtimes fall back without being told."""
    if verdict is P2p.DISABLED_BY_REGISTRY:
        return "look for RegistryDwords in /proc/driver/nvidia/params and /etc/modprobe.d"
    if is_virtual_machine(host.virtualization):
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


def _iommu(host: Host) -> Iterator[Caution]:
    if host.iommu == "translating" and len(host.usable) > 1 and not _virtualized(host):
        yield Caution(
            "iommu-translating",
            "the IOMMU is on and translates (no passthrough)",
            "where P2P is granted, transfers can be redirected, hang or arrive wrong",
            "for P2P on bare metal boot with `iommu=pt` and switch ACS off in the BIOS; leave it "
            "where this host passes devices to guests",
        )


def _virtualized(host: Host) -> bool:
    return host.virtualization not in {None, "none"}


def _guest(host: Host) -> Iterator[Caution]:
    """What cannot be trusted inside a guest or a container."""
    if not host.gpus or not _virtualized(host):
        return
    if is_container(host.virtualization):
        yield Caution(
            "container",
            f"this is a container ({host.virtualization}), or an image that looks like one",
            "CPU affinity, other processes on the cards and kernel messages may be hidden",
            "survey the host itself to see them",
        )
    else:
        yield Caution(
            "virtual-machine",
            f"this is a virtual machine ({host.virtualization})",
            "lanes, slots, BAR1 size and the way between cards are what the hypervisor shows; half "
            "of the lanes is common here",
            "trust measured bandwidth only; read lanes and ACS on the hypervisor",
        )


RULES: tuple[Callable[[Host], Iterator[Caution]], ...] = (
    _problems,
    _unusable,
    _mig,
    _lanes,
    _power,
    _tenants,
    _peer_access,
    _iommu,
    _guest,
)
