"""lspci in full, short and as a tree, and a copied sysfs."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.errors import CaptureError
from multigpu.hardware import Gpu, HopKind, Host, PcieLink
from multigpu.parse import pci
from multigpu.parse.kinds import guess
from multigpu.parse.pci.device import Device, ResizableBar
from multigpu.parse.pci.lspci import KINDS, read_lspci, read_lspci_tree
from multigpu.store.sysfs import pci_section
from tests.rigs import sysfs
from tests.rigs.dialect import Dialect
from tests.rigs.lspci import lspci_nn, lspci_tv, lspci_vvv
from tests.rigs.slots import slotted_hosts, unjudged
from tests.rigs.strategies import dialects

CARD = "01:00.0 VGA compatible controller: NVIDIA Corporation GA102 [GeForce RTX 3090] (rev a1)\n"


def device(text: str) -> Device:
    (found,) = read_lspci(text).value.devices
    return found


@pytest.mark.parametrize(
    ("state", "gen", "width"),
    [
        ("Speed 2.5GT/s, Width x16, TrErr- Train- SlotClk+ DLActive-", 1, 16),
        ("Speed 8GT/s (ok), Width x16 (ok)", 3, 16),
        ("Speed 2.5GT/s (downgraded), Width x8 (downgraded)", 1, 8),
        ("Speed 32GT/s, Width x4", 5, 4),
        ("Speed unknown (downgraded), Width x0 (downgraded)", None, None),
        ("Speed 16GT/s (overdriven), Width x8 (strange)", 4, 8),
    ],
)
def test_a_link_is_read_in_the_words_of_every_release(
    state: str, gen: int | None, width: int | None
) -> None:
    reading = read_lspci(f"{CARD}\t\tLnkSta:\t{state}\n")
    (card,) = reading.value.devices
    assert (card.gen_current, card.width_current) == (gen, width)
    assert reading.unread == ()


def test_a_link_in_unknown_words_stays_unread() -> None:
    reading = read_lspci(f"{CARD}\t\tLnkSta:\tfast and wide\n\t\tLnkCap2: anything\n")
    assert [line.text for line in reading.unread] == ["\t\tLnkSta:\tfast and wide"]


@pytest.mark.parametrize(
    ("line", "vendor", "number", "kind", "gpus"),
    [
        (CARD, "0x10de", None, "0x030000", 1),
        (
            "19:00.0 3D controller: NVIDIA Corporation Device 2330 (rev a1)",
            "0x10de",
            "0x2330",
            "0x030200",
            1,
        ),
        ("01:00.0 3D controller: Device 10de:2330", "0x10de", "0x2330", "0x030200", 1),
        ("01:00.0 0302: 10de:2330 (rev a1)", "0x10de", "0x2330", "0x030200", 1),
        ("01:00.0 Class 0302: Device 10de:2330 (rev a1)", "0x10de", "0x2330", "0x030200", 1),
        (
            "0001:01:00.0 3D controller [0302]: NVIDIA Corporation GA100 [10de:20b2] (rev a1)",
            "0x10de",
            "0x20b2",
            "0x030200",
            1,
        ),
        (
            "03:00.0 Processing accelerators [1200]: Advanced Micro Devices, Inc. [AMD/ATI] "
            "Aqua Vanjaram [Instinct MI300X] [1002:74a1]",
            "0x1002",
            "0x74a1",
            "0x120000",
            1,
        ),
        (
            "03:00.0 Display controller: Advanced Micro Devices, Inc. [AMD/ATI] Aldebaran (rev 02)",
            "0x1002",
            None,
            "0x038000",
            1,
        ),
        (
            "83:00.0 Bridge: NVIDIA Corporation Device 22a3 (rev a1)",
            "0x10de",
            "0x22a3",
            "0x068000",
            0,
        ),
        (
            "01:00.1 Audio device: NVIDIA Corporation GA102 High Definition Audio Controller",
            "0x10de",
            None,
            "0x040300",
            0,
        ),
        (
            "0d:00.0 VGA compatible controller: Advanced Micro Devices, Inc. [AMD/ATI] Raphael "
            "(rev c5)",
            "0x1002",
            None,
            "0x030000",
            0,
        ),
        (
            "00:01.0 VGA compatible controller [0300]: Red Hat, Inc. Virtio GPU [1af4:1050]",
            "0x1af4",
            "0x1050",
            "0x030000",
            0,
        ),
    ],
)
def test_a_device_is_known_by_numbers_or_by_names(
    line: str, vendor: str, number: str | None, kind: str, gpus: int
) -> None:
    found = read_lspci(line).value
    (card,) = found.devices
    assert (card.vendor, card.device, card.pci_class) == (vendor, number, kind)
    assert len(found.gpus) == gpus


def test_a_device_that_answers_with_ones_only_is_dead_and_keeps_its_row() -> None:
    text = (
        "01:00.0 VGA compatible controller: NVIDIA Corporation GA102 [GeForce RTX 3090] (rev ff) "
        "(prog-if ff)\n\t!!! Unknown header type 7f\n\tKernel driver in use: nvidia\n"
    )
    found = read_lspci(text).value
    (card,) = found.gpus
    assert (card.dead, card.width_current, card.pci_class) == (True, None, "0x030000")


def test_capabilities_that_only_root_may_see_stay_unknown() -> None:
    text = f"{CARD}\tCapabilities: <access denied>\n\tKernel driver in use: nvidia\n"
    card = device(text)
    assert (card.acs_redirect, card.aer_correctable_seen, card.width_max) == (None, None, None)
    assert card.driver == "nvidia"


def test_a_card_tells_its_regions_its_sizes_and_its_group() -> None:
    card = device(
        CARD + "\tNUMA node: 1\n\tIOMMU group: 17\n"
        "\tRegion 0: Memory at f5000000 (32-bit, non-prefetchable) [size=16M]\n"
        "\tRegion 1: Memory at f000000000 (64-bit, prefetchable) [size=32G]\n"
        "\tRegion 5: I/O ports at f000 [size=128]\n"
        "\tCapabilities: [bb0 v1] Physical Resizable BAR\n"
        "\t\tBAR 1: current size: 32GB, supported: 256MB 16GB 32GB\n"
        "\tCapabilities: [bc0 v1] Virtual Resizable BAR\n"
        "\t\tBAR 1: current size: 1GB, supported: 1GB\n"
        "\t\tCESta:\tRxErr+ BadTLP- BadDLLP- Rollover- Timeout+ AdvNonFatalErr-\n"
    )
    assert (card.numa_node, card.iommu_group) == (1, 17)
    assert card.region_bytes == (16 << 20, 32 << 30, None, None, None, 128)
    assert card.vram_bar_mib == 32768
    assert card.resizable_bars == (ResizableBar(1, 32768, (256, 16384, 32768)),)
    assert card.aer_correctable_seen == ("RxErr", "Timeout")


BRIDGE = (
    "00:01.0 PCI bridge: Intel Corporation Device 352a (rev 11) (prog-if 00 [Normal decode])\n"
    "\tBus: primary=00, secondary=01, subordinate=01, sec-latency=0\n"
    "\tCapabilities: [40] Express (v2) Root Port (Slot+), MSI 00\n"
)


@pytest.mark.parametrize(
    ("rest", "redirect"),
    [
        ("\t\tACSCtl:\tSrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+\n", True),
        ("\t\tACSCtl:\tSrcValid+ TransBlk- ReqRedir- CmpltRedir- UpstreamFwd-\n", False),
        (
            "\tCapabilities: [100 v1] Advanced Error Reporting\n\tKernel driver in use: pcieport\n",
            False,
        ),
        ("\tCapabilities: [100 v1] Advanced Error Reporting\n", None),
        (
            "\tCapabilities: [100 v1] Access Control Services\n\tKernel driver in use: pcieport\n",
            None,
        ),
        ("\tKernel driver in use: pcieport\n", None),
    ],
)
def test_a_port_without_acs_cannot_redirect_but_a_cut_paragraph_says_nothing(
    rest: str, redirect: bool | None
) -> None:
    port = device(BRIDGE + rest)
    assert (port.port, port.secondary, port.acs_redirect) == ("Root Port", 1, redirect)


def test_the_number_of_the_bus_below_a_bridge_makes_it_the_parent() -> None:
    found = read_lspci(BRIDGE + "\n" + CARD).value
    assert found.tree["0000:01:00.0"].parent == "0000:00:01.0"
    (hop,) = pci.link(found.tree, "0000:01:00.0", PcieLink()).hops
    assert hop.kind is HopKind.ROOT_PORT


def test_the_chipset_of_a_tree_without_names_is_known_by_what_hangs_behind_it() -> None:
    text = (
        "-[0000:00]-+-01.1-[01]----00.0  NVIDIA Corporation AD102 [GeForce RTX 4090]\n"
        "           \\-02.1-[02-05]----00.0-[03-05]--+-00.0-[04]--+-00.0  NVIDIA Corporation "
        "AD102 [GeForce RTX 4090]\n"
        "                                           |            \\-00.1  NVIDIA Corporation "
        "AD102 High Definition Audio Controller\n"
        "                                           \\-0c.0-[05]----00.0  Advanced Micro Devices, "
        "Inc. [AMD] 600 Series Chipset USB 3.2 Controller\n"
    )
    reading = read_lspci_tree(text)
    found = reading.value
    assert reading.unread == ()
    assert [card.address for card in found.gpus] == ["0000:01:00.0", "0000:04:00.0"]
    links = [pci.link(found.tree, card.address, PcieLink()) for card in found.gpus]
    assert [link.behind_chipset for link in links] == [False, True]


def test_several_host_bridges_and_empty_slots_of_a_tree_are_followed() -> None:
    text = (
        "-+-[0001:20]-+-00.0  Intel Corporation Device 09a2\n"
        " |           +-01.0-[21]--\n"
        " |           \\-02.0-[22]----00.0  NVIDIA Corporation Device 2330\n"
        " \\-[0000:00]---1c.0-[01]----00.0  ASPEED Technology, Inc. ASPEED Graphics Family\n"
    )
    found = read_lspci_tree(text).value
    assert [(d.address, d.parent) for d in found.devices] == [
        ("0001:20:00.0", None),
        ("0001:20:01.0", None),
        ("0001:20:02.0", None),
        ("0001:22:00.0", "0001:20:02.0"),
        ("0000:00:1c.0", None),
        ("0000:01:00.0", "0000:00:1c.0"),
    ]
    assert found.gpus[0].device == "0x2330"
    assert "ASPEED" in found.left_out[0].reason


def seen_by_lspci(gpu: Gpu) -> PcieLink:
    """What lspci tells of a link: bits that were set, but no counts."""
    hops = tuple(replace(hop, aer_correctable=None) for hop in gpu.pcie.hops)
    link = replace(gpu.pcie, hops=hops, replays=None, aer_correctable=None)
    end = [hop for hop in hops if hop.kind is HopKind.ON_CARD]
    if not end:
        return link
    return replace(
        link,
        width_max=end[-1].width_max,
        width_current=end[-1].width_current,
        gen_current=end[-1].gen_current,
        gen_gpu_max=end[-1].gen_max,
    )


@given(slotted_hosts(), dialects(), st.booleans(), st.booleans())
def test_links_and_ports_are_read_as_they_were_before_lspci_printed_them(
    host: Host, dialect: Dialect, numbers: bool, domains: bool
) -> None:
    reading = read_lspci(lspci_vvv(host, dialect, numbers, domains))
    assert reading.unread == ()
    tree = reading.value.tree
    assert {card.address for card in reading.value.gpus} == {f"{g.pci_bus_id}" for g in host.gpus}
    for gpu in host.gpus:
        link = pci.link(tree, f"{gpu.pci_bus_id}", PcieLink())
        hops = tuple(
            replace(hop, device=ours.device, vendor=ours.vendor)
            for hop, ours in zip(link.hops, gpu.pcie.hops, strict=True)
        )
        assert unjudged(replace(link, hops=hops)) == unjudged(seen_by_lspci(gpu))
        card = tree[f"{gpu.pci_bus_id}"]
        assert (card.numa_node, card.vram_bar_mib) == (gpu.numa_node, gpu.bar1_memory_mib)


@given(slotted_hosts())
def test_the_way_up_is_read_as_it_was_before_the_tree_was_drawn(host: Host) -> None:
    reading = read_lspci_tree(lspci_tv(host))
    assert reading.unread == ()
    tree = reading.value.tree
    assert {card.address for card in reading.value.gpus} == {f"{g.pci_bus_id}" for g in host.gpus}
    for gpu in host.gpus:
        above = pci.ports_above(tree, f"{gpu.pci_bus_id}")
        assert [port.address for port in above] == [hop.address for hop in gpu.pcie.hops]


@given(slotted_hosts(), dialects())
def test_cards_are_found_among_bridges_and_audio_functions(host: Host, dialect: Dialect) -> None:
    reading = read_lspci(lspci_nn(host, dialect))
    assert reading.unread == ()
    assert {card.address for card in reading.value.gpus} == {f"{g.pci_bus_id}" for g in host.gpus}
    assert [out.pci_bus_id for out in reading.value.left_out] == ["0000:ff:00.0"]


@given(slotted_hosts(), dialects(), st.sampled_from(["lspci-vv", "lspci-nn", "lspci-tv"]))
def test_each_listing_is_taken_for_what_it_is(host: Host, dialect: Dialect, name: str) -> None:
    text = {
        "lspci-vv": lspci_vvv(host, dialect),
        "lspci-nn": lspci_nn(host, dialect),
        "lspci-tv": lspci_tv(host),
    }[name]
    assert [kind.name for kind in KINDS if kind.recognise(text) > 0.5] == [name]


def test_a_piece_of_a_paragraph_is_still_taken_for_lspci_in_full() -> None:
    piece = "\t\tLnkCap:\tPort #0, Speed 16GT/s, Width x16\n\t\tLnkSta:\tSpeed 16GT/s, Width x8\n"
    assert [kind.name for kind in KINDS if kind.recognise(piece) > 0.5] == ["lspci-vv"]


@given(slotted_hosts(), dialects(), st.data())
def test_a_cut_listing_keeps_the_devices_that_came(
    host: Host, dialect: Dialect, data: st.DataObject
) -> None:
    text = lspci_vvv(host, dialect)
    end = data.draw(st.integers(0, len(text)))
    whole = read_lspci(text).value.tree
    for found in read_lspci(text[:end]).value.devices[:-1]:
        assert found.width_max == whole[found.address].width_max


PIECES = st.sampled_from(
    [
        *(CARD, BRIDGE, "\t\tLnkSta:\tSpeed ", "9" * 30, "\tRegion 1: Memory [size=9G]\n", "\x00"),
        *("\ud800", "-[0000:00]-+-01.0-[", "+-", "\\-", "[??]-", "00.0", "\n", " |"),
        *("\tBAR 1: current size: ", "\tCapabilities: [bb0 v1] Physical Resizable BAR\n"),
        "\tNUMA node: -1\n",
    ]
)


@given(st.lists(PIECES | st.text(max_size=5)).map("".join))
def test_no_text_makes_the_readers_crash(text: str) -> None:
    for kind in KINDS:
        assert 0 <= kind.recognise(text) <= 1
        reading = kind.read(text)
        assert all(pci.address(found.address) == found.address for found in reading.value.devices)
        assert len(reading.unread) <= reading.lines


@given(host=slotted_hosts(), dialect=dialects())
def test_a_copied_sysfs_gives_the_section_of_the_probe(
    tmp_path_factory: pytest.TempPathFactory, host: Host, dialect: Dialect
) -> None:
    section = sysfs.pci_section(host, dialect)
    root = tmp_path_factory.mktemp("host")
    sysfs.write(section, root)
    archive = root / "sys.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root / "sys", "copy/sys")
    expected = pci.tree(section)
    assert pci.tree(pci_section(root)) == expected
    assert pci.tree(pci_section(archive)) == expected


def test_a_loop_of_links_and_a_way_out_of_the_archive_lead_nowhere(tmp_path: Path) -> None:
    device_folder = tmp_path / "tree/sys/devices/pci0000:00/0000:00:01.0"
    device_folder.mkdir(parents=True)
    (device_folder / "vendor").write_text("0x10de\n", encoding="utf-8")
    (device_folder / "loop").symlink_to(device_folder.parent)
    secret = tmp_path / "0000:09:00.0"
    secret.mkdir()
    (secret / "vendor").write_text("secret\n", encoding="utf-8")
    (device_folder / "class").symlink_to(secret / "vendor")
    archive = tmp_path / "copy.tar.bz2"
    with tarfile.open(archive, "w:bz2") as tar:
        tar.add(tmp_path / "tree")
        tar.add(secret, "../../0000:09:00.0")
    for path in (tmp_path / "tree", archive):
        (entry,) = pci_section(path)
        assert (entry["address"], entry["vendor"], entry["class"]) == (
            *("0000:00:01.0", "0x10de", None),
        )


@pytest.mark.parametrize(
    "content", [b"", b"no archive", b"BZh91AY&SY\x00\x01", b"\x1f\x8b\x08\x00"]
)
def test_a_file_that_is_no_archive_is_refused_in_one_sentence(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "sys.tar"
    path.write_bytes(content)
    with pytest.raises(CaptureError, match=r"sys\.tar: "):
        pci_section(path)


def test_a_folder_without_devices_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="no PCI device in it"):
        pci_section(tmp_path)


def test_blanks_behind_a_line_that_was_pasted_hide_no_device() -> None:
    line = "17:00.0 3D controller: NVIDIA Corporation Device 2330 (rev a1)"
    other = "18:00.0 Bridge: NVIDIA Corporation Device 22a3"
    pasted = read_lspci(f"{line}   \n{other}   \n").value
    assert pasted == read_lspci(f"{line}\n{other}\n").value
    assert [device.device for device in pasted.devices] == ["0x2330", "0x22a3"]


def test_a_list_of_iommu_groups_is_a_list_of_devices() -> None:
    text = (
        "IOMMU Group 15: 5d:00.0 3D controller [0302]: NVIDIA Corporation GH100 [H200 SXM 141GB] "
        "[10de:2335] (rev a1) (driver: nvidia)\n"
        "IOMMU Group 41 3a:00.0 3D controller [0302]: NVIDIA Corporation GH100 [H200 SXM 141GB] "
        "[10de:2335] (rev a1)\n"
    )
    kind = guess(text)
    assert kind is not None and kind.name == "lspci-nn"
    devices = kind.read(text).value.devices
    assert [(d.address, d.vendor, d.device) for d in devices] == [
        ("0000:5d:00.0", "0x10de", "0x2335"),
        ("0000:3a:00.0", "0x10de", "0x2335"),
    ]
