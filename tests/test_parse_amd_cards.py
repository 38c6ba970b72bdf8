"""AMD hosts put together from PCI, KFD and amdgpu's sysfs, and planned."""

from __future__ import annotations

import pathlib
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given

from multigpu import gfx
from multigpu.choice.ranking import links_name
from multigpu.errors import MultigpuError
from multigpu.groups import best, bonded
from multigpu.hardware import Gpu, GpuPair, Host, P2p, Path, PcieHop, PcieLink, Vendor
from multigpu.parse import pci
from multigpu.parse.amd.amdgpu import read_amdgpu
from multigpu.parse.amd.cards import AmdCards, amd_cards
from multigpu.parse.amd.kfd import read_kfd
from multigpu.plan import ModelSpec, Plan
from multigpu.planner import plan
from multigpu.runtimes.llama_cpp import render
from multigpu.store.recipes import recipe
from multigpu.wish import wishes
from tests.machines import gguf, hf
from tests.rigs import amd_sysfs, strategies

TEMPLATES = pathlib.Path(__file__).parents[1] / "templates"
HOST = strategies.amd_hosts(max_cards=5)


def read(captured: dict[str, object], first_index: int = 0) -> AmdCards:
    return amd_cards(captured, pci.tree(captured["pci"]), first_index)


def card(index: int, name: str, memory_mib: int, link: PcieLink, **facts: Any) -> Gpu:
    """A card as a rig prints it."""
    model = gfx.model(f"0x{amd_sysfs.device_id(Gpu(0, name=name)):04x}")
    target = model.gfx if model else None
    gpu = Gpu(
        index,
        uuid=f"0x{0xA0 + index:016x}",
        name=name,
        vendor=Vendor.AMD,
        gfx=target,
        memory_mib=memory_mib,
        memory_free_mib=memory_mib - 100,
        memory_used_mib=100,
        pci_bus_id=f"0000:{0x10 * index + 3:02x}:00.0",
        pcie=link,
        power_limit_w=300.0,
        power_limit_default_w=300.0,
        power_limit_max_w=300.0,
        power_draw_w=20.0,
        temperature_c=40,
        numa_node=0,
        render_node=f"/dev/dri/renderD{128 + index}",
        vbios_version="113-SIMULATED-1",
        bar1_memory_mib=memory_mib,
        ecc_corrected=0,
        ecc_uncorrected=0,
        hip_index=index,
    )
    return replace(gpu, **facts)


def slot(*addresses: str) -> PcieLink:
    """A full-width link below these ports, nearest first."""
    hops = tuple(
        PcieHop(a, vendor="0x1022", device="0x1483", gen_current=4, gen_max=4) for a in addresses
    )
    wide = tuple(replace(hop, width_current=16, width_max=16) for hop in hops)
    return PcieLink(gen_current=4, gen_max=4, width_current=16, width_max=16, hops=wide)


def desktop() -> Host:
    """Simulated: two RX 7900 XTX in slots of one processor; the driver grants peer access."""
    gpus = tuple(
        card(i, "AMD Radeon RX 7900 XTX", 24560, slot(f"0000:00:0{i + 1}.1")) for i in range(2)
    )
    pair = GpuPair(0, 1, nvlinks=0, p2p_read=P2p.OK, p2p_write=P2p.OK, xgmi_links=0)
    return Host("desktop", gpus=gpus, pairs=(pair,), numa_nodes=1)


def two_hives() -> Host:
    """Simulated: eight MI210, four to a socket in one hive; HIP counts them backwards."""
    gpus = tuple(
        card(
            i,
            "AMD Instinct MI210",
            65520,
            slot(f"0000:{0x10 * i:02x}:01.1"),
            numa_node=i // 4,
            hip_index=7 - i,
        )
        for i in range(8)
    )
    inside = {"xgmi_links": 1, "xgmi_gb_s": 50.0, "p2p_read": P2p.OK, "p2p_write": P2p.OK}
    across = {"xgmi_links": 0, "p2p_read": P2p.OK, "p2p_write": P2p.OK}
    pairs = tuple(
        GpuPair(a, b, nvlinks=0, **(inside if a // 4 == b // 4 else across))
        for a, b in combinations(range(8), 2)
    )
    return Host("hives", gpus=gpus, pairs=pairs, numa_nodes=2)


def seen(host: Host) -> Host:
    """The host as it is read back from its capture."""
    found = read(amd_sysfs.amd_sections(host))
    return replace(host, gpus=found.gpus, pairs=found.pairs)


@given(HOST)
def test_sysfs_gives_the_cards_back(host: Host) -> None:
    found = read(amd_sysfs.amd_sections(host))
    assert found.problems == () and found.left_out == ()
    for gpu, wanted in zip(found.gpus, host.gpus, strict=True):
        assert replace(gpu, pcie=wanted.pcie, resizable_bar=None, processes=()) == replace(
            wanted, architecture=None, processes=()
        )
        assert gpu.resizable_bar is (wanted.bar1_memory_mib == wanted.memory_mib)
        assert gpu.pcie.width_current == wanted.pcie.width_current


@given(HOST)
def test_kfd_gives_links_rates_and_grants_back(host: Host) -> None:
    found = read(amd_sysfs.amd_sections(host))
    assert tuple(replace(pair, path=None) for pair in found.pairs) == host.pairs


@given(HOST)
def test_processes_are_found_by_the_number_that_kfd_gives_a_card(host: Host) -> None:
    pids = [process.pid for gpu in host.gpus for process in gpu.processes]
    found = read(amd_sysfs.amd_sections(host))
    if len(set(pids)) == len(pids):
        assert [gpu.processes for gpu in found.gpus] == [gpu.processes for gpu in host.gpus]


def test_cards_are_numbered_after_those_of_nvidia() -> None:
    found = read(amd_sysfs.amd_sections(desktop()), first_index=2)
    assert [gpu.index for gpu in found.gpus] == [2, 3]
    assert [(pair.a, pair.b) for pair in found.pairs] == [(2, 3)]
    assert [gpu.hip_index for gpu in found.gpus] == [0, 1]


def test_cards_without_their_driver_keep_their_rows_and_say_what_to_do() -> None:
    found = read(amd_sysfs.amd_sections(desktop(), driver=None))
    assert [gpu.name for gpu in found.gpus] == ["AMD Radeon RX 7900 series"] * 2
    assert all("modprobe amdgpu" in (gpu.error or "") for gpu in found.gpus)
    assert any("no kernel driver holds 2 AMD card(s)" in problem for problem in found.problems)
    assert found.gpus[0].memory_mib is None and found.pairs[0].p2p_read is None


def test_a_card_that_a_virtual_machine_owns_is_no_card_of_the_host() -> None:
    found = read(amd_sysfs.amd_sections(desktop(), driver="vfio-pci"))
    assert found.gpus[0].error == "bound to the kernel driver vfio-pci, not to amdgpu"


def test_a_card_that_kfd_does_not_list_is_not_usable_and_does_not_hide_the_other() -> None:
    sections = amd_sysfs.amd_sections(desktop())
    kfd = {k: v for k, v in amd_sysfs.kfd_section(desktop()).items() if not k.startswith("2/")}
    first, second = read({**sections, "kfd": kfd}).gpus
    assert first.error is None and "KFD does not list it" in (second.error or "")
    assert second.memory_mib == 24560


def test_a_capture_of_an_older_probe_asks_for_a_new_one() -> None:
    sections = {"pci": amd_sysfs.pci_section(desktop())}
    assert "take it again" in (read(sections).gpus[0].error or "")


def test_without_its_device_kfd_is_a_problem_of_the_host() -> None:
    found = read({**amd_sysfs.amd_sections(desktop()), "kfd_device": None})
    assert any("/dev/kfd is not there" in problem for problem in found.problems)


def test_graphics_inside_the_processor_is_left_out_but_counts_for_hip() -> None:
    """On a desktop HIP numbers the Raphael's own graphics too."""
    host = desktop()
    sections = amd_sysfs.amd_sections(replace(host, gpus=host.gpus[:1], pairs=()))
    apu = {"cpu_cores_count": 16, "simd_count": 4, "vendor_id": 0x1002, "device_id": 0x9999}
    place = {"location_id": 0x1200, "gfx_target_version": 100306}
    devices = pci.tree(
        [
            *amd_sysfs.pci_section(replace(host, gpus=host.gpus[:1])),
            {
                "address": "0000:12:00.0",
                "vendor": "0x1002",
                "device": "0x1199",
                "class": "0x030000",
            },
        ]
    )
    kfd = {**amd_sysfs.kfd_section(replace(host, gpus=host.gpus[:1], pairs=()))}
    kfd["0/properties"] = amd_sysfs.properties(**apu, **place)
    found = amd_cards({**sections, "kfd": kfd}, devices)
    assert [gpu.hip_index for gpu in found.gpus] == [1]
    assert [(left.pci_bus_id, left.reason) for left in found.left_out] == [
        ("0000:12:00.0", "graphics inside the processor")
    ]


def test_partitions_of_a_card_are_rows_of_their_own_with_their_share_of_memory() -> None:
    """An MI300X in CPX and NPS4 is eight devices to HIP; KFD counts them in the function."""
    gpu = card(0, "AMD Instinct MI300X", 196592, slot("0000:00:01.1"), compute_partition="CPX")
    host = Host("cpx", gpus=(replace(gpu, memory_partition="NPS4"),), numa_nodes=1)
    sections = amd_sysfs.amd_sections(host)
    kfd = {"0/properties": amd_sysfs.properties(cpu_cores_count=32, simd_count=0)}
    for number in range(8):
        one = amd_sysfs.gpu_properties(gpu).replace(
            f"location_id {amd_sysfs.location(gpu)}",
            f"location_id {amd_sysfs.location(gpu) + number}",
        )
        kfd[f"{number + 1}/properties"] = one
        size = amd_sysfs.properties(heap_type=1, size_in_bytes=24574 << 20)
        kfd[f"{number + 1}/mem_banks/0/properties"] = size
    found = read({**sections, "kfd": kfd})
    assert [row.hip_index for row in found.gpus] == list(range(8))
    assert {row.pci_bus_id for row in found.gpus} == {gpu.pci_bus_id}
    assert {(row.memory_mib, row.memory_free_mib) for row in found.gpus} == {(24574, 24474)}
    assert len({row.uuid for row in found.gpus}) == 8
    assert {row.compute_partition for row in found.gpus} == {"CPX"}


def test_amd_smi_fills_what_sysfs_leaves_out_and_never_overrules_it() -> None:
    static = (
        '[{"gpu": 0, "bus": {"bdf": "0000:03:00.0"}, "asic": {"market_name": "Other"},'
        ' "ras": {"ecc_block_state": {"UMC": "ENABLED"}}, "vram": {"size": 1}}]'
    )
    tools = {"amd-smi static --json": {"rc": 0, "stdout": [static]}}
    first, second = read({**amd_sysfs.amd_sections(desktop()), "tools": tools}).gpus
    assert (first.ecc, second.ecc) == (True, None)
    assert (first.name, first.memory_mib) == ("AMD Radeon RX 7900 XTX", 24560)


@pytest.mark.parametrize(
    ("ports", "path"),
    [
        ((("0000:01:00.0", "0000:00:01.1"), ("0000:02:00.0", "0000:00:01.2")), Path.PHB),
        ((("0000:40:01.1",), ("0000:80:01.1",)), Path.NODE),
        (
            (
                ("0000:02:00.0", "0000:01:00.0", "0000:00:01.1"),
                ("0000:02:01.0", "0000:01:00.0", "0000:00:01.1"),
            ),
            Path.PIX,
        ),
        (
            (
                ("0000:04:00.0", "0000:03:00.0", "0000:02:00.0", "0000:01:00.0", "0000:00:01.1"),
                ("0000:06:00.0", "0000:05:00.0", "0000:02:01.0", "0000:01:00.0", "0000:00:01.1"),
            ),
            Path.PXB,
        ),
    ],
)
def test_the_way_between_two_cards_is_named_as_nvidia_smi_would(
    ports: tuple[tuple[str, ...], tuple[str, ...]], path: Path
) -> None:
    gpus = tuple(
        card(i, "AMD Instinct MI210", 65520, slot(*way), pci_bus_id=f"0000:{0xE0 + i:02x}:00.0")
        for i, way in enumerate(ports)
    )
    assert seen(Host("ports", gpus=gpus, numa_nodes=1)).pairs[0].path is path


def test_a_way_across_sockets_is_sys_and_one_without_numa_nodes_is_unknown() -> None:
    host = seen(two_hives())
    assert host.pair(0, 4) and host.pair(0, 4).path is Path.SYS  # type: ignore[union-attr]
    blind = tuple(replace(gpu, numa_node=None) for gpu in two_hives().gpus[:2])
    unknown = seen(Host("blind", gpus=blind, numa_nodes=2))
    assert unknown.pairs[0].path is None


def test_the_switch_on_the_card_does_not_count_as_a_port_between_cards() -> None:
    """A Navi card brings two bridges of vendor 1002 that no other card shares."""
    ways = (("0000:02:00.0", "0000:01:00.0", "0000:00:01.1"), ("0000:06:00.0", "0000:00:01.2"))
    gpus = tuple(card(i, "AMD Radeon RX 7900 XTX", 24560, slot(*way)) for i, way in enumerate(ways))
    sections = amd_sysfs.amd_sections(Host("navi", gpus=gpus, numa_nodes=1))
    entries = amd_sysfs.pci_section(Host("navi", gpus=gpus))
    for entry in entries:
        if entry["address"] in ("0000:01:00.0", "0000:02:00.0", "0000:06:00.0"):
            entry["vendor"] = "0x1002"
    found = read({**sections, "pci": entries})
    assert found.pairs[0].path is Path.PHB


# --- planning --------------------------------------------------------------------------------


def planned(host: Host, model: ModelSpec, **keys: Any) -> Plan:
    (wish,) = wishes({"chat": {"model": model.name, **keys}})
    return plan(host, model, wish)


def test_two_desktop_cards_are_planned_for_llama_cpp_as_rocm_devices() -> None:
    made = planned(seen(desktop()), gguf(blocks=60, block_mib=600.0))
    assert made.chosen.runtime == "llama.cpp" and made.chosen.gpus == (0, 1)
    assert [(s.name, s.value) for s in made.environment] == [("HIP_VISIBLE_DEVICES", "0,1")]
    (service,) = render(made, "/opt/llama-server", "/models/chat.gguf")
    assert service.argv[service.argv.index("--device") + 1] == "ROCm0,ROCm1"


def test_amd_cards_are_planned_with_vllm_and_need_a_build_of_ones_own() -> None:
    host = seen(desktop())
    made = planned(host, hf())
    assert made.chosen.runtime == "vllm"
    assert "cuda-wheel" in {warning.rule for warning in made.warnings}
    with pytest.raises(MultigpuError, match="set executable to a ROCm build"):
        recipe(host, made, TEMPLATES)
    made = planned(host, hf(), executable="/opt/vllm/bin/vllm")
    assert "cuda-wheel" not in {warning.rule for warning in made.warnings}
    assert recipe(host, made, TEMPLATES).executable == "/opt/vllm/bin/vllm"


def test_a_team_of_four_stays_inside_one_hive_and_hip_gets_its_own_numbers() -> None:
    host = seen(two_hives())
    team = best(host, host.gpus, 4)
    assert team in ((0, 1, 2, 3), (4, 5, 6, 7)) and bonded(host, team)
    assert not bonded(host, range(8))
    made = planned(
        host,
        hf(weights_bytes=100 << 30),
        executable="/opt/vllm/bin/vllm",
        strategy="tensor_parallel",
        tensor_parallel_size=4,
    )
    assert made.chosen.gpus == (0, 1, 2, 3)
    values = {s.name: s.value for s in made.environment}
    assert values["HIP_VISIBLE_DEVICES"] == "7,6,5,4"
    assert links_name(host, made.chosen.gpus) == "XGMI"


def test_cards_of_two_vendors_are_never_one_group() -> None:
    amd = seen(desktop())
    nvidia = Gpu(2, name="RTX 3090", memory_mib=24576, compute_capability=(8, 6))
    mixed = replace(amd, gpus=(*amd.gpus, nvidia))
    made = planned(mixed, gguf(blocks=60, block_mib=600.0))
    assert {mixed.gpu(i).vendor for i in made.chosen.gpus} == {Vendor.AMD}


# --- ids -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "name"),
    [
        (90402, "gfx942"),
        (110000, "gfx1100"),
        (90010, "gfx90a"),
        (90012, "gfx90c"),
        (90500, "gfx950"),
        (120001, "gfx1201"),
        (110501, "gfx1151"),
        (0, None),
        (None, None),
        (99999999, None),
        (99999, None),
    ],
)
def test_a_target_version_is_written_as_llvm_writes_it(
    version: int | None, name: str | None
) -> None:
    assert gfx.gfx_of_target_version(version) == name


def test_one_device_id_is_several_products_by_its_revision() -> None:
    assert gfx.product_name("0x744c", "0xc8") == "AMD Radeon RX 7900 XTX"
    assert gfx.product_name("0x744c", "0xcc") == "AMD Radeon RX 7900 XT"
    assert gfx.product_name("0x744c") == "AMD Radeon RX 7900 series"
    assert gfx.product_name("0x10de") is None and gfx.product_name("nonsense") is None


@pytest.mark.parametrize("number", gfx.MODELS)
def test_pci_leaves_out_every_integrated_id_and_no_card(number: int) -> None:
    ids = {"vendor": "0x1002", "device": f"0x{number:04x}", "class": "0x030000"}
    tree = pci.tree([{"address": "0000:05:00.0", **ids}])
    integrated = gfx.MODELS[number].integrated
    assert [bool(pci.gpus(tree)), bool(pci.left_out(tree))] == [not integrated, integrated]


# --- broken sections -------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [None, [], "x", 7, {"a": None}, {"0000:03:00.0": 5}])
def test_a_section_of_another_shape_is_an_empty_one(broken: object) -> None:
    for name in ("kfd", "amdgpu", "kfd_processes", "tools", "system"):
        found = read({**amd_sysfs.amd_sections(desktop()), name: broken})
        assert len(found.gpus) == 2


def test_numbers_that_no_field_holds_are_not_read() -> None:
    files = {
        "2/properties": f"simd_count 416\nlocation_id {10**23}\ndomain 99\nodd line\nunique_id 0",
        "2/mem_banks/0/properties": "heap_type 1\nsize_in_bytes -5",
        "elsewhere": "x",
    }
    reading = read_kfd(files)
    (node,) = reading.value.nodes
    assert node.pci_bus_id is None and node.memory_mib is None and node.unique_id is None
    assert {line.text for line in reading.unread} >= {"odd line", "elsewhere"}


def test_sysfs_files_that_say_nothing_leave_the_value_unknown() -> None:
    files = {"mem_info_vram_total": "", "unique_id": "0000000000000000", "power1_cap": "x"}
    (found,) = read_amdgpu({"0000:03:00.0": {**files, "temp1_input": "-5000"}}).value.values()
    assert found.memory_mib is found.unique_id is found.power_limit_w is None
    assert found.temperature_c == -5
