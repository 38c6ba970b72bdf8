"""Put the cards of a host together: what the driver lists, what PCI shows, and why they differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from multigpu.hardware import Gpu, PcieLink, Vendor
from multigpu.parse import nvidia, pci
from multigpu.parse.shape import Tool, mapping, text, tool
from multigpu.parse.system import is_virtual_machine
from multigpu.parse.units import unit_of

QUERY = "nvidia-smi -q -x"
NUMBERS = "nvidia-smi --query-gpu=index,pci.bus_id,compute_cap --format=csv,noheader"


@dataclass(frozen=True)
class Cards:
    """The GPUs of one host by index, and what stood in the way of seeing them."""

    gpus: tuple[Gpu, ...]
    driver: str | None
    cuda: str | None
    simulated: bool
    problems: tuple[str, ...]


def read_cards(
    tools: dict[str, object], devices: pci.Tree, processes: object, virtualization: str | None
) -> Cards:
    """Every GPU that the driver lists or that PCI shows.

    A card that only PCI shows (lost, bound to another driver, no driver at all, AMD) is a row with
    an error. Indices are those of NVML; rows that NVML does not know take the ones left over.
    """
    query = tool(tools, QUERY)
    listed, numbered = _listed(tools, query, devices)
    on_bus = pci.gpus(devices)
    unlisted = _unlisted(on_bus, listed, query)
    cgroups = {pid: text(cgroup) for pid, cgroup in mapping(processes).items()}
    emulated = is_virtual_machine(virtualization)
    gpus = [
        _placed(_attributed(gpu, cgroups), devices, emulated)
        for gpu in (*numbered, *_fill_indices(numbered, unlisted))
    ]
    return Cards(
        gpus=tuple(sorted(gpus, key=lambda gpu: gpu.index)),
        driver=listed.driver,
        cuda=listed.cuda,
        simulated=listed.simulated,
        problems=tuple(_problems(query, listed, on_bus)),
    )


def _listed(
    tools: dict[str, object], query: Tool, devices: pci.Tree
) -> tuple[nvidia.Query, tuple[Gpu, ...]]:
    """What the driver lists, and its cards with their NVML indices.

    The index comes from the CSV query, else from the place in the list, else (cards asked one by
    one) from the order of the cards on PCI that the nvidia driver holds.
    """
    listed = nvidia.read_query(query.stdout)
    order: dict[str | None, int] = {gpu.pci_bus_id: gpu.index for gpu in listed.gpus}
    if not listed.gpus:
        singles = [nvidia.read_query(tool(tools, c).stdout) for c in tools if c.startswith(SINGLE)]
        listed = _joined(listed, [single for single in singles if single.gpus])
        held = [d.address for d in pci.gpus(devices) if d.driver in ("nvidia", None)]
        order = {name: index for index, name in enumerate(held)}
    numbers = nvidia.read_numbers(tool(tools, NUMBERS).stdout)
    return listed, _numbered(listed.gpus, order, numbers)


SINGLE = f"{QUERY} -i "


def _joined(listed: nvidia.Query, singles: list[nvidia.Query]) -> nvidia.Query:
    """Cards that were asked one by one, as one list."""
    if not singles:
        return listed
    gpus = tuple(gpu for single in singles for gpu in single.gpus)
    return replace(singles[0], gpus=gpus, whole=False)


def _numbered(
    gpus: tuple[Gpu, ...],
    order: dict[str | None, int],
    numbers: dict[str, nvidia.Numbered],
) -> tuple[Gpu, ...]:
    """The cards with index and compute capability; two that claim one index are told apart."""
    taken: dict[int, Gpu] = {}
    for gpu in gpus:
        row = numbers.get(gpu.pci_bus_id or "")
        index = row.index if row else order.get(gpu.pci_bus_id, gpu.index)
        while index in taken:
            index += 1
        capability = row.compute_capability if row else None
        known = capability or gpu.compute_capability
        taken[index] = replace(gpu, index=index, compute_capability=known)
    return tuple(taken.values())


def _unlisted(on_bus: tuple[pci.Device, ...], listed: nvidia.Query, query: Tool) -> tuple[Gpu, ...]:
    """Cards on PCI that the driver does not list, each with the reason as far as it is known."""
    seen = {gpu.pci_bus_id for gpu in listed.gpus}
    refused = nvidia.read_refusals(query.stdout + "\n" + query.stderr)
    return tuple(
        Gpu(
            index=0,
            vendor=pci.VENDORS[device.vendor or ""],
            pci_bus_id=device.address,
            error=_why_unlisted(device, listed, query, refused),
        )
        for device in on_bus
        if device.address not in seen
    )


def _why_unlisted(
    device: pci.Device, listed: nvidia.Query, query: Tool, refused: dict[str, str]
) -> str:
    if pci.VENDORS[device.vendor or ""] is Vendor.AMD:
        return "AMD cards are read from PCI only, and no plan uses them yet"
    if device.address in refused:
        return f"the driver has no handle of it: {refused[device.address]}"
    if device.driver not in ("nvidia", None):
        return f"bound to the kernel driver {device.driver}, not to nvidia"
    if listed.gpus:
        return "on PCI, but nvidia-smi does not list it"
    return f"the driver does not answer: {_short(query)}"


def _short(query: Tool) -> str:
    """Why there is no list of cards, in a few words."""
    if query.missing:
        return "nvidia-smi is not installed"
    return "nvidia-smi timed out" if query.timed_out else query.said.split(". ")[0]


def _fill_indices(numbered: Iterable[Gpu], unlisted: tuple[Gpu, ...]) -> Iterable[Gpu]:
    """Cards without an NVML index take the lowest free ones, in PCI order."""
    taken = {gpu.index for gpu in numbered}
    free = (index for index in range(len(taken) + len(unlisted)) if index not in taken)
    return [replace(gpu, index=index) for gpu, index in zip(unlisted, free, strict=False)]


def _attributed(gpu: Gpu, cgroups: dict[str, str | None]) -> Gpu:
    """The card with the systemd unit of each process that holds its memory."""
    processes = tuple(replace(p, unit=unit_of(cgroups.get(str(p.pid)))) for p in gpu.processes)
    return replace(gpu, processes=processes)


def _placed(gpu: Gpu, devices: pci.Tree, emulated: bool) -> Gpu:
    """The card with what sysfs knows of its slot."""
    if gpu.pci_bus_id is None or gpu.pci_bus_id not in devices:
        return gpu
    link: PcieLink = pci.link(devices, gpu.pci_bus_id, gpu.pcie, emulated)
    return replace(gpu, pcie=link, numa_node=devices[gpu.pci_bus_id].numa_node)


def _problems(query: Tool, listed: nvidia.Query, on_bus: tuple[pci.Device, ...]) -> Iterable[str]:
    """What keeps the driver's list of cards from being whole: found, needed, what to do."""
    cards = sum(pci.VENDORS[device.vendor or ""] is Vendor.NVIDIA for device in on_bus)
    if not on_bus and not listed.gpus and query.missing:
        yield (
            "no GPU found: PCI shows no NVIDIA or AMD card and nvidia-smi is not installed; "
            "needed: at least one card; do: check power cables and slots, then `lspci -nn`"
        )
    elif query.missing and (cards or listed.gpus):
        yield (
            f"nvidia-smi is not installed, but PCI shows {cards} NVIDIA card(s); needed: the "
            "NVIDIA driver with its tools; do: install the distribution's driver package and reboot"
        )
    elif query.timed_out:
        after = f"{query.seconds:.0f} s" if query.seconds else "its time"
        yield (
            f"nvidia-smi gave no answer within {after}; needed: a driver that answers; do: look "
            "for NVRM Xid lines in `journalctl -k`, then reboot"
        )
    elif not query.missing and not query.ok and not _asked_singly(query, listed):
        ended = "could not be started" if query.rc is None else f"ended with status {query.rc}"
        yield (
            f'nvidia-smi {ended}: "{query.said}"; needed: a driver that answers; do: {_cure(query)}'
        )
    elif query.ok and not listed.whole:
        yield (
            "nvidia-smi -q -x printed no whole document; needed: its XML; do: run it on the host "
            "and look at its end"
        )


def _asked_singly(query: Tool, listed: nvidia.Query) -> bool:
    """One card without a handle ended the whole query, and the others answered when asked alone.

    The row of that card says it then.
    """
    return bool(listed.gpus) and "device handle" in query.stdout + query.stderr


def _cure(query: Tool) -> str:
    """What to do about a failure that nvidia-smi names."""
    said = query.stdout + query.stderr
    if "communicate with the NVIDIA driver" in said:
        return (
            "`modprobe nvidia` and read its message; after a kernel update the module has to be "
            "built for the running kernel (`dkms status`)"
        )
    if "version mismatch" in said:
        return "reboot: the loaded module is older or newer than the libraries after an update"
    if "No devices were found" in said:
        return "look for NVRM lines in `journalctl -k`: the driver refused the cards it saw"
    if "device handle" in said:
        return "look for NVRM Xid lines in `journalctl -k` for the card that is lost, then reboot"
    return "run `nvidia-smi` on the host and look for NVRM lines in `journalctl -k`"
