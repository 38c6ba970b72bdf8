"""The host around the cards: what the probe met, guests and containers, NUMA."""

from __future__ import annotations

from collections.abc import Iterator

from multigpu.cautions.caution import (
    Caution,
    Severity,
    are,
    indices,
    is_bare,
    is_virtualized,
    names,
)
from multigpu.hardware import Gpu, Host, Vendor
from multigpu.parse.system import is_container
from multigpu.transport import processor_vendor


def _problems(host: Host) -> Iterator[Caution]:
    """Sentences of the reader: found, needed and do, parted as the reader writes them."""
    for problem in host.problems:
        found, _, rest = problem.partition("; needed: ")
        needed, _, do = rest.partition("; do: ")
        yield Caution(
            "capture-problem",
            found,
            do=do or None,
            needed=needed or None,
            severity=Severity.BROKEN,
        )


def _driver(host: Host) -> Iterator[Caution]:
    """No driver, where no sentence of the reader says so yet."""
    cards = [gpu for gpu in host.gpus if gpu.vendor is Vendor.NVIDIA]
    silent = cards and host.driver is None and all(gpu.memory_mib is None for gpu in cards)
    if silent and not host.problems and not host.partial:
        yield Caution(
            "driver-missing",
            f"no NVIDIA driver is loaded for {names(indices(cards))}",
            "no runtime sees the cards",
            "install the distribution's driver package and reboot; `dkms status` tells whether "
            "the module was built for the running kernel",
            needed="a driver that answers",
            gpus=indices(cards),
            severity=Severity.BROKEN,
        )


def _memory(host: Host) -> Iterator[Caution]:
    """The kernel killed for want of RAM."""
    killed = [event for event in host.kernel_events if event.kind == "oom"]
    if killed:
        who = ", ".join(dict.fromkeys(event.process or "a process" for event in killed[-3:]))
        yield Caution(
            "out-of-memory",
            f"the kernel killed processes for want of RAM ({len(killed)} times), last: {who}",
            "a runtime that loads a large model can be the next",
            "give the host more RAM or swap, or lower the limit of the service that grows",
            needed="RAM for all that runs",
            severity=Severity.DANGER,
        )


def _crashes(host: Host) -> Iterator[Caution]:
    """Processes that crashed, by the kernel's word."""
    crashed = [event for event in host.kernel_events if event.kind == "segfault"]
    if crashed:
        who = ", ".join(dict.fromkeys(event.process or "a process" for event in crashed[-3:]))
        yield Caution(
            "process-crashed",
            f"processes crashed ({len(crashed)} times), last: {who}",
            "nothing now",
            "if a runtime is among them: `coredumpctl list`, and look for Xid lines at that time",
            needed="none since the boot",
            severity=Severity.NOTE,
        )


def _numa(host: Host) -> Iterator[Caution]:
    """Where cards sit is unknown, or the BIOS parts one socket into several nodes."""
    cards = [gpu for gpu in host.usable if not gpu.unified_memory]
    nodes = host.numa_nodes or 1
    if len(cards) < 2 or nodes < 2:
        return
    blind = [gpu.index for gpu in cards if gpu.numa_node is None]
    if blind and not is_virtualized(host):
        yield Caution(
            "numa-unknown",
            f"the firmware names no NUMA node for {names(blind)}, the host has {nodes}",
            "processes and their buffers may land on the far socket: slower loading and prefill",
            "update the BIOS; `lspci -vv` and the board's manual tell which socket owns the slot",
            needed="a node for each card",
            gpus=tuple(blind),
            severity=Severity.NOTE,
        )
    used = {gpu.numa_node for gpu in cards if gpu.numa_node is not None}
    if len(used) > 2 and is_bare(host):
        yield _parted(host, used, nodes, indices(cards))


def _parted(host: Host, used: set[int], nodes: int, cards: tuple[int, ...]) -> Caution:
    setting = "NPS1" if processor_vendor(host) == "AMD" else "NPS1 (AMD) or SNC off (Intel)"
    return Caution(
        "numa-parted",
        f"the cards sit on {len(used)} of {nodes} NUMA nodes: a socket is parted into several",
        "cards of one socket count as further apart than they are, and NCCL avoids the way",
        f"for tensor parallel set the BIOS to {setting}",
        needed="one NUMA node per socket",
        gpus=cards,
        severity=Severity.NOTE,
    )


def _guest(host: Host) -> Iterator[Caution]:
    """What cannot be trusted inside a guest or a container."""
    if not host.gpus or not is_virtualized(host):
        return
    if is_container(host.virtualization):
        yield Caution(
            "container",
            f"this is a container ({host.virtualization}), or an image that looks like one",
            "CPU affinity, other processes on the cards and kernel messages may be hidden",
            "survey the host itself to see them",
            severity=Severity.NOTE,
        )
    else:
        yield Caution(
            "virtual-machine",
            f"this is a virtual machine ({host.virtualization})",
            "lanes, slots, BAR1 size and the way between cards are what the hypervisor shows; half "
            "of the lanes is common here",
            "trust measured bandwidth only; read lanes and ACS on the hypervisor",
            severity=Severity.NOTE,
        )


def _unified(host: Host) -> Iterator[Caution]:
    shared = [gpu for gpu in host.gpus if gpu.unified_memory and not _coherent(gpu, host)]
    if shared:
        cards = indices(shared)
        blind = any(gpu.memory_mib is None for gpu in shared)
        yield Caution(
            "unified-memory",
            f"{names(cards)} {are(cards, 'shares', 'share')} the processor's memory"
            + (", and the driver tells no size of VRAM" if blind else ""),
            "what the system and the page cache hold is missing for the model, and free memory "
            "changes while a model loads" + ("; no plan counts on it yet" if blind else ""),
            "leave room for the system (a lower `--gpu-memory-utilization`), and swap off",
            gpus=cards,
            severity=Severity.LIMIT if blind else Severity.NOTE,
        )


def _coherent(gpu: Gpu, host: Host) -> bool:
    """Grace Hopper and Grace Blackwell: VRAM of its own, which the kernel uses as a NUMA node.

    A GPU whose memory is the processor's has the size of that.
    """
    own = gpu.memory_mib is not None and gpu.memory_mib != host.memory_mib
    return bool(gpu.unified_memory) and gpu.vendor is Vendor.NVIDIA and own


def _coherent_memory(host: Host) -> Iterator[Caution]:
    cards = indices(gpu for gpu in host.gpus if _coherent(gpu, host))
    if cards:
        yield Caution(
            "coherent-memory",
            f"{names(cards)} {are(cards, 'and the processor reach', 'and the processors reach')} "
            "each other's memory",
            "the kernel may put page cache and other programs' memory into VRAM",
            "keep what runs beside the service on the processors' NUMA nodes (`numactl --membind`)",
            gpus=cards,
            severity=Severity.NOTE,
        )


BROKEN = (_problems, _driver)
RULES = (_memory, _numa, _crashes, _unified, _coherent_memory, _guest)
