"""Put the AMD cards of a host together: PCI shows them, KFD and amdgpu's sysfs tell what they are.

No tool is needed; `amd-smi static --json` fills what sysfs leaves out. A card that is cut into
partitions (DPX, QPX, CPX) has one row for each: HIP counts them as devices of their own. They share
the address, and what is in use on the card counts against the free memory of every one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from multigpu import gfx
from multigpu.hardware import Gpu, GpuPair, LeftOut, PcieLink, Vendor
from multigpu.parse import pci
from multigpu.parse.amd.amdgpu import AmdgpuCard
from multigpu.parse.amd.kfd import KfdNode, KfdTopology
from multigpu.parse.amd.other_outputs import amd_outputs, renumbered
from multigpu.parse.amd.pairs import pairs_between
from multigpu.parse.amd.seen import Seen, seen_of
from multigpu.parse.pci.cards import PCI_ONLY
from multigpu.parse.same_card import filled
from multigpu.parse.shape import integer, mapping

INSIDE = "graphics inside the processor"


@dataclass(frozen=True)
class AmdCards:
    """The AMD part of a host. `left_out` are functions that PCI alone takes for cards."""

    gpus: tuple[Gpu, ...] = ()
    pairs: tuple[GpuPair, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    problems: tuple[str, ...] = ()


def amd_cards(
    captured: dict[str, object],
    devices: pci.Tree,
    first_index: int = 0,
    emulated_ports: bool = False,
) -> AmdCards:
    """Every AMD card in PCI order, numbered from `first_index`, and every pair of them.

    `emulated_ports` as for `pci.link`. A card that no service can use keeps its row with an error.
    """
    found = [d for d in pci.gpus(devices) if pci.VENDORS[d.vendor or ""] is Vendor.AMD]
    seen = seen_of(captured)
    rows: list[tuple[Gpu, KfdNode | None]] = []
    left_out = []
    for device in found:
        nodes = nodes_of(seen.kfd, device, devices)
        if _integrated(device, nodes):
            name = gfx.product_name(device.device)
            left_out.append(LeftOut(device.address, name, INSIDE))
        else:
            rows += _rows(device, nodes, seen, devices, emulated_ports)
    told, ways = amd_outputs(mapping(captured.get("tools"))) if _partial(captured) else ((), ())
    if told and not rows:
        return AmdCards(*renumbered(told, ways, first_index))
    gpus = tuple(
        replace(_told(gpu, told), index=first_index + i) for i, (gpu, _) in enumerate(rows)
    )
    numa_nodes = integer(mapping(captured.get("system")).get("numa_nodes"))
    pairs = pairs_between(gpus, [node for _, node in rows], seen.kfd, devices, numa_nodes)
    return AmdCards(gpus, pairs, tuple(left_out), tuple(_problems(captured, gpus, seen)))


def _partial(captured: dict[str, object]) -> bool:
    """True for a folder of saved outputs."""
    return captured.get("partial") is True


def _told(gpu: Gpu, told: tuple[Gpu, ...]) -> Gpu:
    """A card of PCI with what a tool says of it, where the capture has nothing better."""
    other = next((card for card in told if card.pci_bus_id == gpu.pci_bus_id), None)
    if other is None or gpu.memory_mib is not None:
        return gpu
    return filled(replace(gpu, error=other.error), other)


def nodes_of(kfd: KfdTopology | None, device: pci.Device, devices: pci.Tree) -> tuple[KfdNode, ...]:
    """KFD's nodes of one card: several when it is partitioned.

    KFD adds a partition's number to the function of the address, where no device may be.
    """

    def place(node: KfdNode) -> str | None:
        bus = node.pci_bus_id
        return bus if bus is None or bus in devices else f"{bus[:-1]}0"

    return tuple(node for node in (kfd.gpus if kfd else ()) if place(node) == device.address)


def _integrated(device: pci.Device, nodes: tuple[KfdNode, ...]) -> bool:
    """Processor graphics by its id, or a KFD node that has processor cores as well."""
    model = gfx.model(device.device)
    if model is not None:
        return model.integrated
    return any(node.cpu_cores for node in nodes)


def _rows(
    device: pci.Device,
    nodes: tuple[KfdNode, ...],
    seen: Seen,
    devices: pci.Tree,
    emulated_ports: bool,
) -> Iterator[tuple[Gpu, KfdNode | None]]:
    """One row per partition; one for a card that KFD does not list."""
    card = _card(device, seen, devices, emulated_ports)
    if len(nodes) < 2:
        node = nodes[0] if nodes else None
        yield _with_node(card, node, seen), node
        return
    used = seen.cards.get(device.address, AmdgpuCard()).memory_used_mib
    uuids = {node.unique_id for node in nodes}
    for number, node in enumerate(nodes):
        row = _with_node(card, node, seen)
        size = node.memory_mib or (card.memory_mib // len(nodes) if card.memory_mib else None)
        own = node.unique_id if len(uuids) == len(nodes) else None
        yield (
            replace(
                row,
                uuid=own or (f"{card.uuid}/{number}" if card.uuid else None),
                memory_mib=size,
                memory_free_mib=max(0, size - used) if size and used is not None else None,
                memory_used_mib=None,
            ),
            node,
        )


def _card(device: pci.Device, seen: Seen, devices: pci.Tree, emulated_ports: bool) -> Gpu:
    """The whole card from sysfs, with what amd-smi adds."""
    card = seen.cards.get(device.address, AmdgpuCard())
    smi = seen.smi.get(device.address, Gpu(0, vendor=Vendor.AMD))
    model = gfx.model(device.device)
    total, used = card.memory_mib, card.memory_used_mib
    window = card.memory_visible_mib or device.vram_bar_mib
    return Gpu(
        index=0,
        uuid=card.unique_id or smi.uuid,
        name=_name(device, card, smi),
        vendor=Vendor.AMD,
        memory_mib=total or smi.memory_mib,
        memory_free_mib=None if total is None or used is None else max(0, total - used),
        memory_used_mib=used,
        pci_bus_id=device.address,
        pcie=pci.link(devices, device.address, PcieLink(), emulated_ports),
        numa_node=device.numa_node,
        gfx=smi.gfx or (model.gfx if model else None),
        power_limit_w=card.power_limit_w or smi.power_limit_w,
        power_limit_default_w=card.power_limit_default_w,
        power_limit_max_w=card.power_limit_max_w or smi.power_limit_max_w,
        power_draw_w=card.power_draw_w,
        temperature_c=card.temperature_c,
        ecc=smi.ecc,
        ecc_corrected=card.ecc_corrected,
        ecc_uncorrected=card.ecc_uncorrected,
        vbios_version=card.vbios_version or smi.vbios_version,
        bar1_memory_mib=window,
        resizable_bar=pci.resizable_bar(total, window, emulated_ports),
        cpu_affinity=device.local_cpulist,
        compute_partition=card.compute_partition or smi.compute_partition,
        memory_partition=card.memory_partition or smi.memory_partition,
        unified_memory=True if model and model.unified_memory else None,
        render_node=card.render_node,
        error=_error(device, seen),
    )


def _name(device: pci.Device, card: AmdgpuCard, smi: Gpu) -> str | None:
    """The board's own name, else the product of the ids, else what amd-smi calls the chip."""
    revision = card.revision or device.revision
    model = gfx.model(device.device)
    known = gfx.product_name(device.device, revision)
    if model and len(model.names) > 1 and known == model.names[0]:
        return card.product_name or smi.name or known
    return card.product_name or known or smi.name


def _with_node(card: Gpu, node: KfdNode | None, seen: Seen) -> Gpu:
    """The row with what KFD knows; a card that amdgpu holds but KFD does not list has an error."""
    if node is None or seen.kfd is None:
        return card if card.error else replace(card, error=_not_listed(seen))
    return replace(
        card,
        uuid=card.uuid or node.unique_id,
        gfx=node.gfx or card.gfx,
        memory_mib=card.memory_mib or node.memory_mib,
        render_node=node.render_node or card.render_node,
        hip_index=seen.kfd.gpus.index(node),
        processes=seen.processes.get(node.gpu_id or 0, ()),
        memory_bus_width_bits=node.memory_bus_width_bits,
        memory_clock_max_mhz=node.memory_clock_max_mhz,
        sm_clock_max_mhz=node.sm_clock_max_mhz,
        multiprocessors=node.compute_units,
    )


def _not_listed(seen: Seen) -> str:
    if seen.kfd is None:
        return (
            "amdgpu holds it, but there is no KFD (/sys/class/kfd): load amdgpu with CONFIG_HSA_AMD"
        )
    return "amdgpu holds it, but KFD does not list it: look for kfd in `journalctl -k`"


def _error(device: pci.Device, seen: Seen) -> str | None:
    if device.dead:
        return "it does not answer on PCI: look for its address in `journalctl -k`, then reboot"
    if seen.partial and not seen.captured and device.driver in (None, "amdgpu"):
        return f"{PCI_ONLY}: neither amd-smi's nor rocm-smi's output was given"
    if device.driver is None:
        return "no kernel driver holds it: `modprobe amdgpu`, and read its lines in `journalctl -k`"
    if device.driver != "amdgpu":
        return f"bound to the kernel driver {device.driver}, not to amdgpu"
    if not seen.captured:
        return "the capture holds only its PCI data: take it again with this release's probe"
    return None


def _problems(captured: dict[str, object], gpus: tuple[Gpu, ...], seen: Seen) -> Iterator[str]:
    """What keeps all AMD cards of the host from work: found, needed, what to do."""
    if not gpus or not seen.captured:
        return
    driverless = [gpu for gpu in gpus if gpu.error and "no kernel driver" in gpu.error]
    if driverless:
        yield (
            f"no kernel driver holds {len(driverless)} AMD card(s); needed: amdgpu; do: `modprobe "
            "amdgpu`, or install the distribution's kernel modules and linux-firmware, and reboot"
        )
    if any(gpu.hip_index is not None for gpu in gpus) and captured.get("kfd_device", {}) is None:
        yield (
            "/dev/kfd is not there; needed: KFD's device, through which HIP reaches the cards; do: "
            "`udevadm trigger`, and in a container pass /dev/kfd and /dev/dri"
        )
