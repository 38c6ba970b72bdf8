"""PCI addresses in every tool's spelling, and the hop that limits a card."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.hardware import PcieLink
from multigpu.parse import pci

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


@given(st.text())
def test_an_address_is_normal_or_nothing_and_normalising_twice_changes_nothing(text: str) -> None:
    once = pci.address(text)
    assert once is None or pci.address(once) == once
