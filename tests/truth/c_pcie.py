"""Captured `lspci` and a sysfs tree: what the index says of each file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from multigpu.links import HopKind, PcieLink
from multigpu.parse import pci
from multigpu.parse.pci.device import Device
from multigpu.parse.pci.lspci import KINDS, Listing
from multigpu.store.sysfs import pci_section

FOLDER = "c_pcie"
VV, NN, TV = "lspci-vv", "lspci-nn", "lspci-tv"


def listing(path: Path, kind: str) -> Listing:
    """The devices of a file, which only the reader of that kind recognises."""
    text = path.read_text(encoding="utf-8")
    known = [k for k in KINDS if k.recognise(text) > 0.5]
    assert [k.name for k in known] == [kind]
    reading = known[0].read(text)
    assert all("```" in u.text or ":" in u.text or "GPU #1" in u.text for u in reading.unread)
    assert len(reading.unread) < 10
    found = reading.value
    assert isinstance(found, Listing)
    return found


def addresses(devices: tuple[Device, ...]) -> list[str]:
    return [device.address for device in devices]


def bus_of(devices: tuple[Device, ...]) -> list[str]:
    return [device.address.split(":")[1] for device in devices]


def bifurcated_4090s(path: Path) -> None:
    found = listing(path, VV)
    first, second = found.gpus
    assert (first.address, second.address) == ("0000:01:00.0", "0000:03:00.0")
    assert (first.gen_max, first.width_max, first.gen_current, first.width_current) == (3, 16, 1, 8)
    assert (second.gen_max, second.width_max) == (4, 16)
    assert (second.gen_current, second.width_current) == (1, 8)
    for card in (first, second):
        link = pci.link(found.tree, card.address, PcieLink())
        assert link.narrowed
        assert (link.hops, link.limited_at, link.limited_by) == ((), None, None)
        assert card.vram_bar_mib == 32768
    assert (first.iommu_group, second.iommu_group) == (15, 17)
    assert first.aer_correctable_seen == ("BadTLP",)


def four_ada_on_four_host_bridges(path: Path) -> None:
    found = listing(path, TV)
    assert bus_of(found.gpus) == ["01", "41", "c1", "e1"]
    roots = []
    for card in found.gpus:
        (hop,) = pci.link(found.tree, card.address, PcieLink()).hops
        assert hop.kind is HopKind.ROOT_PORT
        roots.append(hop.address)
    assert roots == ["0000:00:01.1", "0000:40:01.1", "0000:c0:01.1", "0000:e0:01.1"]
    assert [out.pci_bus_id for out in found.left_out] == ["0000:75:00.0"]
    above = [port.address for port in pci.ports_above(found.tree, "0000:65:00.0")]
    assert above == [
        *("0000:64:10.0", "0000:63:00.0", "0000:62:00.0", "0000:61:00.0", "0000:60:01.1"),
    ]


def ada_with_the_new_words(path: Path) -> None:
    (card,) = listing(path, VV).gpus
    assert "(ok)" not in path.read_text(encoding="utf-8")
    assert (card.gen_max, card.width_max) == (4, 16)
    assert (card.gen_current, card.width_current) == (1, 16)
    assert not pci.link({card.address: card}, card.address, PcieLink()).narrowed


def eight_h100_without_names(path: Path) -> None:
    found = listing(path, VV)
    assert len(found.devices) == 517
    assert bus_of(found.gpus) == ["19", "3b", "4c", "5d", "9b", "bb", "cb", "db"]
    for card in found.gpus:
        assert (card.vendor, card.device) == ("0x10de", "0x2330")
        assert card.name == "NVIDIA Corporation Device 2330"
        assert (card.gen_current, card.width_current) == (5, 16)
        link = pci.link(found.tree, card.address, PcieLink())
        assert (link.limited_at, link.narrowed, link.behind_chipset) == (None, False, False)
        kinds = [hop.kind for hop in link.hops]
        assert kinds == [HopKind.SWITCH, HopKind.SWITCH, HopKind.ROOT_PORT]
        assert card.vram_bar_mib == 131072
        assert (card.driver, card.numa_node is not None) == ("nvidia", True)
    switches = [out for out in found.left_out if "NVSwitch" in out.reason]
    assert [out.pci_bus_id for out in switches] == [f"0000:{bus}:00.0" for bus in (83, 84, 85, 86)]
    below_maximum = {
        device.address
        for device in found.devices
        if (device.width_current or 0, device.gen_current or 0)
        < (device.width_max or 0, device.gen_max or 0)
    }
    lines = path.read_text(encoding="utf-8").splitlines()
    assert sum("downgraded" in line for line in lines) == 16
    assert 0 < len(below_maximum) <= 16
    assert not below_maximum & set(addresses(found.gpus))


def eight_a100(path: Path) -> None:
    found = listing(path, NN)
    nvidia = [device for device in found.devices if device.vendor == "0x10de"]
    assert len(nvidia) == 14
    assert len(found.gpus) == 8
    assert {(card.device, card.pci_class) for card in found.gpus} == {("0x20b2", "0x030200")}
    assert {card.name for card in found.gpus} == {"NVIDIA Corporation GA100 [A100 SXM4 80GB]"}
    switches = [device for device in nvidia if device not in found.gpus]
    assert {(device.device, device.pci_class) for device in switches} == {("0x1af1", "0x068000")}
    assert [out.pci_bus_id for out in found.left_out] == [device.address for device in switches]


def one_a10_in_a_guest(path: Path) -> None:
    found = listing(path, NN)
    (card,) = found.gpus
    assert (card.address, card.vendor, card.device) == ("0000:06:00.0", "0x10de", "0x2236")
    assert card.name == "NVIDIA Corporation GA102GL [A10]"
    (display,) = found.left_out
    assert (display.pci_bus_id, "virtual machine" in display.reason) == ("0000:00:01.0", True)


def two_idle_ada(path: Path) -> None:
    found = listing(path, VV)
    assert addresses(found.gpus) == ["0000:c1:00.0", "0000:c2:00.0"]
    for card in found.gpus:
        assert (card.gen_max, card.width_max) == (4, 16)
        assert (card.gen_current, card.width_current) == (1, 16)
        link = pci.link(found.tree, card.address, PcieLink())
        assert (link.narrowed, link.limited_at) == (False, None)
        assert card.vram_bar_mib == 65536


def eight_vega(path: Path) -> None:
    found = listing(path, NN)
    assert bus_of(found.gpus) == ["07", "0a", "2a", "2d", "45", "48", "65", "68"]
    assert {card.vendor for card in found.gpus} == {"0x1002"}
    (display,) = found.left_out
    assert (display.pci_bus_id, "ASPEED" in display.reason) == ("0000:24:00.0", True)


def sysfs_of_a_server_without_gpus(path: Path) -> None:
    section = pci_section(path)
    linked = {e["address"]: e for e in section if e["current_link_speed"]}
    assert sorted(f"{e['current_link_speed']}" for e in linked.values()) == [
        *("2.5 GT/s", "5 GT/s", "8 GT/s"),
    ]
    assert sorted(f"{e['current_link_width']}" for e in linked.values()) == ["1", "2", "4"]
    devices = pci.tree(section)
    assert all(device.vendor != "0x10de" for device in devices.values())
    assert pci.gpus(devices) == ()
    read = {(devices[f"{n}"].gen_current, devices[f"{n}"].width_current) for n in linked}
    assert read == {(1, 1), (2, 2), (3, 4)}


TRUTH: dict[str, Callable[[Path], None]] = {
    f"{FOLDER}/{name}": truth
    for name, truth in {
        "2x_rtx4090_x8x8_riser_lspci_vv.txt": bifurcated_4090s,
        "4x_rtx6000ada_lspci_tv.txt": four_ada_on_four_host_bridges,
        "rtx6000ada_lspci_vvv_newformat.txt": ada_with_the_new_words,
        "8x_h100_dell_xe9680_lspci_vvv.txt": eight_h100_without_names,
        "lspci_nn_a100.txt": eight_a100,
        "lspci_nn_a10.txt": one_a10_in_a_guest,
        "2x_rtx6000ada_lspci_vvv.txt": two_idle_ada,
        "8x_vega20_lspci.txt": eight_vega,
        "sysfs_40intel_pcilocality.tar.bz2": sysfs_of_a_server_without_gpus,
    }.items()
}
