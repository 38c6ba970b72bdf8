"""PCI addresses in every tool's spelling, and the hop that limits a card."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.hardware import Gpu, HopKind, Host, LeftOut, Limit, PcieLink
from multigpu.parse import pci
from multigpu.parse.pci.device import Device, ResizableBar
from tests.rigs.dialect import Dialect
from tests.rigs.slots import slotted_hosts, unjudged
from tests.rigs.strategies import dialects
from tests.rigs.sysfs import pci_section

CARD = PcieLink(1, 4, 16, 16)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("00000000:01:00.0", "0000:01:00.0"),
        ("0000:0C:00.0", "0000:0c:00.0"),
        ("00010000:65:00.0", "10000:65:00.0"),
        ("01:00.1", "0000:01:00.1"),
        ("0000:9b:00", "0000:9b:00.0"),
        ("PCI:0000:9b:00", "0000:9b:00.0"),
        ("17000", "0000:17:00.0"),
        ("1000", "0000:01:00.0"),
        ("100065000", "1000:65:00.0"),
        ("N/A", None),
        ("", None),
        ("0000:01:00.9", None),
    ],
)
def test_an_address_is_normalised(written: str, expected: str | None) -> None:
    assert pci.address(written) == expected


def entry(address: str, parent: str | None, width: str, width_max: str, **more: str) -> object:
    speeds = {"current_link_speed": "2.5 GT/s PCIe", "max_link_speed": "16.0 GT/s PCIe"}
    widths = {"current_link_width": width, "max_link_width": width_max}
    return {"address": address, "parent": parent, **speeds, **widths, **more}


def test_a_slot_that_is_wired_for_fewer_lanes_is_the_limit() -> None:
    tree = pci.tree(
        [entry("0000:01:00.0", "0000:00:01.0", "8", "16"), entry("0000:00:01.0", None, "8", "8")]
    )
    link = pci.link(tree, "0000:01:00.0", PcieLink())
    assert (link.limited_at, link.limited_at_width_max, link.width_path) == ("0000:00:01.0", 8, 8)
    assert (link.gen_current, link.gen_max, link.behind_chipset) == (1, 4, False)


def test_a_full_slot_that_trained_down_says_that_it_could_carry_more() -> None:
    tree = pci.tree(
        [entry("0000:01:00.0", "0000:00:01.0", "8", "16"), entry("0000:00:01.0", None, "8", "16")]
    )
    assert pci.link(tree, "0000:01:00.0", PcieLink()).limited_at_width_max == 16


def test_a_switch_with_a_narrow_uplink_limits_a_card_at_full_width() -> None:
    tree = pci.tree(
        [
            entry("0000:05:00.0", "0000:04:08.0", "16", "16"),
            entry("0000:04:08.0", "0000:03:00.0", "16", "16"),
            entry("0000:03:00.0", "0000:00:01.0", "4", "16"),
            entry("0000:00:01.0", None, "4", "4"),
        ]
    )
    link = pci.link(tree, "0000:05:00.0", CARD)
    assert (link.width_current, link.width_path, link.limited_at) == (16, 4, "0000:00:01.0")
    assert not link.narrowed


def test_speed_at_idle_is_no_limit() -> None:
    tree = pci.tree(
        [entry("0000:01:00.0", "0000:00:01.0", "16", "16"), entry("0000:00:01.0", None, "16", "16")]
    )
    link = pci.link(tree, "0000:01:00.0", CARD)
    assert (link.gen_current, link.limited_at) == (1, None)


def test_emulated_ports_of_a_guest_limit_nothing() -> None:
    tree = pci.tree(
        [entry("0000:01:00.0", "0000:00:01.0", "16", "16"), entry("0000:00:01.0", None, "1", "1")]
    )
    link = pci.link(tree, "0000:01:00.0", CARD, emulated_ports=True)
    assert (link.limited_at, link.width_path) == (None, None)


def test_ports_that_point_at_each_other_end_the_walk() -> None:
    tree = pci.tree(
        [
            entry("0000:01:00.0", "0000:00:01.0", "4", "16"),
            entry("0000:00:01.0", "0000:01:00.0", "4", "4"),
        ]
    )
    assert len(pci.ports_above(tree, "0000:01:00.0")) <= 2


@pytest.mark.parametrize(
    ("speed", "gen"),
    [("8 GT/s", 3), ("8.0 GT/s PCIe", 3), ("32.0 GT/s PCIe", 5), ("Unknown", None)],
)
def test_both_spellings_of_a_link_speed_are_a_generation(speed: str, gen: int | None) -> None:
    tree = pci.tree([entry("0000:01:00.0", None, "255", "0", max_link_speed=speed)])
    device = tree["0000:01:00.0"]
    assert (device.gen_max, device.width_current, device.width_max) == (gen, None, None)


def test_only_gpus_are_cards() -> None:
    kinds = [("0x10de", "0x030000"), ("0x10de", "0x030200"), ("0x1002", "0x120000")]
    others = [("0x10de", "0x068000"), ("0x10de", "0x040300"), ("0x1a03", "0x030000")]
    section = [
        {"address": f"0000:{bus:02x}:00.0", "vendor": vendor, "class": kind}
        for bus, (vendor, kind) in enumerate([*kinds, *others])
    ]
    assert [d.address for d in pci.gpus(pci.tree(section))] == [
        f"0000:{bus:02x}:00.0" for bus in range(3)
    ]


def port(address: str, parent: str | None, width: int, width_max: int, **more: str) -> object:
    return entry(address, parent, str(width), str(width_max), **{"class": "0x060400", **more})


SLOT_AND_CAUSE = [
    # card and port trained, what the port carries, cause
    (16, 16, None),
    (8, 8, Limit.SLOT),
    (8, 16, Limit.RISER),
    (1, 8, Limit.RISER),
]


@pytest.mark.parametrize(("width", "width_max", "cause"), SLOT_AND_CAUSE)
def test_a_narrow_slot_and_a_riser_are_told_apart(
    width: int, width_max: int, cause: Limit | None
) -> None:
    card = entry("0000:01:00.0", "0000:00:01.0", str(width), "16")
    tree = pci.tree([card, port("0000:00:01.0", None, width, width_max)])
    assert pci.link(tree, "0000:01:00.0", PcieLink()).limited_by is cause


def test_a_narrow_uplink_of_a_switch_is_a_bridge_that_limits() -> None:
    tree = pci.tree(
        [
            entry("0000:05:00.0", "0000:04:08.0", "16", "16"),
            port("0000:04:08.0", "0000:03:00.0", 16, 16, vendor="0x10b5", device="0x8747"),
            port("0000:03:00.0", "0000:00:01.0", 8, 16, vendor="0x10b5", device="0x8747"),
            port("0000:00:01.0", None, 8, 8),
        ]
    )
    link = pci.link(tree, "0000:05:00.0", PcieLink())
    assert (link.limited_by, link.limited_at) == (Limit.BRIDGE, "0000:00:01.0")
    assert [hop.kind for hop in link.hops] == [
        *(HopKind.SWITCH, HopKind.SWITCH, HopKind.ROOT_PORT),
    ]


@pytest.mark.parametrize(
    ("up", "down"),
    [("0x43f4", "0x43f5"), ("0x57ad", "0x57a3"), ("0x43c6", "0x43c7")],
)
def test_a_card_behind_an_amd_chipset_shares_its_uplink(up: str, down: str) -> None:
    tree = pci.tree(
        [
            entry("0000:05:00.0", "0000:04:08.0", "4", "16"),
            port("0000:04:08.0", "0000:03:00.0", 4, 4, vendor="0x1022", device=down),
            port("0000:03:00.0", "0000:00:02.1", 4, 4, vendor="0x1022", device=up),
            port("0000:00:02.1", None, 4, 4, vendor="0x1022", device="0x14db"),
        ]
    )
    link = pci.link(tree, "0000:05:00.0", PcieLink())
    assert (link.behind_chipset, link.limited_by) == (True, Limit.CHIPSET)
    assert [hop.kind for hop in link.hops] == [
        *(HopKind.CHIPSET, HopKind.CHIPSET, HopKind.ROOT_PORT),
    ]


@pytest.mark.parametrize("address", ["0000:00:1c.4", "0000:80:1b.0"])
def test_a_card_at_an_intel_pch_is_behind_the_chipset(address: str) -> None:
    tree = pci.tree(
        [
            entry("0000:05:00.0", address, "4", "16"),
            port(address, None, 4, 4, vendor="0x8086", device="0x7ab8"),
        ]
    )
    assert pci.link(tree, "0000:05:00.0", PcieLink()).behind_chipset


def test_the_link_of_a_card_with_its_own_switch_is_that_of_the_upstream_port() -> None:
    tree = pci.tree(
        [
            entry("0000:03:00.0", "0000:02:00.0", "16", "16", vendor="0x1002"),
            port("0000:02:00.0", "0000:01:00.0", 16, 16, vendor="0x1002", device="0x1479"),
            port("0000:01:00.0", "0000:00:01.1", 4, 16, vendor="0x1002", device="0x1478"),
            port("0000:00:01.1", None, 4, 16, vendor="0x1022", device="0x1483"),
        ]
    )
    link = pci.link(tree, "0000:03:00.0", PcieLink())
    assert (link.width_current, link.width_max, link.narrowed) == (4, 16, True)
    assert (link.limited_at, link.limited_by) == ("0000:00:01.1", Limit.RISER)
    assert [hop.kind for hop in link.hops] == [
        *(HopKind.ON_CARD, HopKind.ON_CARD, HopKind.ROOT_PORT),
    ]


def test_what_card_and_slot_reach_together_is_the_lesser_generation() -> None:
    card = entry("0000:01:00.0", "0000:00:01.0", "16", "16")
    slow = port("0000:00:01.0", None, 16, 16, max_link_speed="8.0 GT/s PCIe")
    link = pci.link(pci.tree([card, slow]), "0000:01:00.0", PcieLink())
    assert (link.gen_gpu_max, link.gen_host_max, link.gen_max) == (4, 3, 3)


@pytest.mark.parametrize(
    ("memory", "bar", "guest", "expected"),
    [
        (24576, 32768, False, True),
        (24576, 256, False, False),
        (24576, 256, True, None),
        (24576, None, False, None),
        (None, 256, False, None),
    ],
)
def test_a_bar_that_covers_all_memory_is_a_resized_one_but_in_a_guest_nobody_knows(
    memory: int | None, bar: int | None, guest: bool, expected: bool | None
) -> None:
    assert pci.resizable_bar(memory, bar, guest) is expected


def test_error_counters_regions_and_sizes_are_read_from_sysfs() -> None:
    zero = "0x0000000000000000 0x0000000000000000 0x0000000000000000"
    device = pci.tree(
        [
            {
                "address": "0000:01:00.0",
                "vendor": "0x10de",
                "numa_node": "-1",
                "aer_dev_correctable": "RxErr 3\nBadTLP 4\nTOTAL_ERR_COR 7\n",
                "aer_dev_nonfatal": "Undefined 0\nDLP 2\n",
                "aer_dev_fatal": "",
                "resource": "0x00000000f5000000 0x00000000f5ffffff 0x0000000000040200\n"
                f"0x0000006000000000 0x00000067ffffffff 0x000000000014220c\n{zero}\n",
                "resource1_resize": "000000000000ffc0",
            }
        ]
    )["0000:01:00.0"]
    assert (device.aer_correctable, device.aer_nonfatal, device.aer_fatal) == (7, 2, None)
    assert device.region_bytes == (16 << 20, 32 << 30)
    assert (device.vram_bar_mib, device.numa_node) == (32768, None)
    assert device.resizable_bars == (
        ResizableBar(1, None, (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)),
    )


@pytest.mark.parametrize(
    ("address", "vendor", "device", "kind", "reason"),
    [
        ("0000:00:02.0", "0x8086", "0xa780", "0x030000", "graphics inside the processor"),
        ("0000:0d:00.0", "0x1002", "0x164e", "0x030000", "graphics inside the processor"),
        ("0000:05:00.0", "0x1a03", "0x2000", "0x030000", "management controller (ASPEED)"),
        ("0000:00:01.0", "0x1234", "0x1111", "0x030000", "virtual machine (QEMU)"),
        ("0000:00:02.0", "0x1013", "0x00b8", "0x030000", "virtual machine (Cirrus)"),
        ("0000:05:00.0", "0x10de", "0x22a3", "0x068000", "NVSwitch"),
        ("0000:03:00.0", "0x8086", "0x56a0", "0x030000", "other than NVIDIA and AMD"),
    ],
)
def test_a_display_that_is_no_card_is_left_out_with_its_reason(
    address: str, vendor: str, device: str, kind: str, reason: str
) -> None:
    entry = {"address": address, "vendor": vendor, "device": device, "class": kind}
    tree = pci.tree([entry])
    assert pci.gpus(tree) == ()
    (out,) = pci.left_out(tree)
    assert isinstance(out, LeftOut)
    assert out.pci_bus_id == address
    assert reason in out.reason


def test_lspci_fills_what_sysfs_left_open_and_changes_nothing_else() -> None:
    sysfs = {"0000:01:00.0": Device("0000:01:00.0", vendor="0x10de", width_current=8)}
    lspci = {
        "0000:01:00.0": Device("0000:01:00.0", width_current=16, acs_redirect=True, iommu_group=3),
        "0000:02:00.0": Device("0000:02:00.0"),
    }
    both = pci.merged(sysfs, lspci)
    assert both["0000:01:00.0"] == Device(
        "0000:01:00.0", vendor="0x10de", width_current=8, acs_redirect=True, iommu_group=3
    )
    assert set(both) == {"0000:01:00.0", "0000:02:00.0"}


def seen_by_sysfs(gpu: Gpu) -> PcieLink:
    """What sysfs tells of a link: no ACS, and what narrows it is for the reader to find."""
    hops = tuple(replace(hop, acs_redirect=None) for hop in gpu.pcie.hops)
    end = [hop for hop in hops if hop.kind is HopKind.ON_CARD]
    if not end:
        return replace(gpu.pcie, hops=hops, replays=None)
    return replace(
        gpu.pcie,
        hops=hops,
        replays=None,
        width_max=end[-1].width_max,
        width_current=end[-1].width_current,
        gen_current=end[-1].gen_current,
        gen_gpu_max=end[-1].gen_max,
        aer_correctable=end[-1].aer_correctable,
    )


@given(slotted_hosts(), dialects())
def test_links_and_ports_are_read_as_they_were_before_the_kernel_showed_them(
    host: Host, dialect: Dialect
) -> None:
    devices = pci.tree(pci_section(host, dialect))
    assert [f"{card.address}" for card in pci.gpus(devices)] == sorted(
        f"{gpu.pci_bus_id}" for gpu in host.gpus
    )
    for gpu in host.gpus:
        link = pci.link(devices, f"{gpu.pci_bus_id}", PcieLink())
        assert unjudged(link) == unjudged(seen_by_sysfs(gpu))
        device = devices[f"{gpu.pci_bus_id}"]
        assert (device.vram_bar_mib, device.numa_node) == (gpu.bar1_memory_mib, gpu.numa_node)
        chipset = any(hop.kind is HopKind.CHIPSET for hop in gpu.pcie.hops)
        assert link.behind_chipset is chipset
        assert (link.limited_at is None) == ((link.width_path or 0) >= (link.width_max or 0))


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=20)), st.text(max_size=99))
def test_no_text_in_a_device_makes_the_reader_crash(more: dict[str, str], text: str) -> None:
    files = ("numa_node", "resource", "aer_dev_correctable", "resource1_resize", "max_link_speed")
    section = [{"address": "0000:01:00.0", **more, **dict.fromkeys(files, text)}]
    for device in pci.tree(section).values():
        assert device.gen_max in (None, 1, 2, 3, 4, 5, 6)
        assert all(size is None or size > 0 for size in device.region_bytes)


@given(st.text())
def test_an_address_is_normal_or_nothing_and_normalising_twice_changes_nothing(text: str) -> None:
    once = pci.address(text)
    assert once is None or pci.address(once) == once
