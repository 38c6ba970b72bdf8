"""Readers of rocm-smi, amd-smi and rocminfo against what the tools of every release print."""

from __future__ import annotations

import json
from dataclasses import replace
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.hardware import Gpu, GpuPair, Host, P2p, PcieLink
from multigpu.parse.amd import amd_smi, rocm_smi, rocminfo
from multigpu.parse.amd.rocm_smi_card import unique_id
from multigpu.parse.kinds import guess
from tests.rigs import amd_amd_smi, amd_rocm_smi, amd_rocminfo, strategies
from tests.rigs.amd_ids import release
from tests.rigs.dialect import Dialect

HOST = strategies.amd_hosts(max_cards=4)
KINDS = (*rocm_smi.KINDS, *amd_smi.KINDS, *rocminfo.KINDS)


def bare(gpu: Gpu, **known: object) -> Gpu:
    """A card with nothing but what a tool prints."""
    return replace(Gpu(gpu.index, vendor=gpu.vendor), **known)  # type: ignore[arg-type]


def link(gpu: Gpu, *names: str) -> PcieLink:
    return PcieLink(**{name: getattr(gpu.pcie, name) for name in names})


def plain(pairs: tuple[GpuPair, ...]) -> tuple[GpuPair, ...]:
    """Pairs as rocm-smi tells them: XGMI or not."""
    return tuple(GpuPair(p.a, p.b, nvlinks=0, xgmi_links=min(1, p.xgmi_links or 0)) for p in pairs)


def by_rocm_smi(gpu: Gpu, version: tuple[int, ...]) -> Gpu:
    modes = version >= (5, 7)
    return bare(
        gpu,
        uuid=gpu.uuid,
        name=gpu.name if version >= (5, 0) else None,
        memory_mib=gpu.memory_mib,
        memory_free_mib=gpu.memory_free_mib,
        memory_used_mib=gpu.memory_used_mib,
        pci_bus_id=gpu.pci_bus_id,
        pcie=link(gpu, "gen_current", "width_current", "replays"),
        numa_node=gpu.numa_node,
        gfx=gpu.gfx,
        power_limit_w=gpu.power_limit_w,
        power_draw_w=gpu.power_draw_w,
        temperature_c=gpu.temperature_c,
        vbios_version=gpu.vbios_version,
        compute_partition=gpu.compute_partition if modes else None,
        memory_partition=gpu.memory_partition if modes else None,
    )


@given(HOST, strategies.dialects())
def test_rocm_smi_json_of_every_release_gives_the_cards_back(host: Host, dialect: Dialect) -> None:
    reading = rocm_smi.read_json(amd_rocm_smi.rocm_smi_json(host, dialect))
    version = release(dialect.rocm)
    assert [line.text for line in reading.unread] == [amd_rocm_smi.LOW_POWER] * (version >= (6, 1))
    assert reading.value.gpus == tuple(by_rocm_smi(gpu, version) for gpu in host.gpus)
    assert reading.value.pairs == plain(host.pairs)


@given(HOST, strategies.dialects())
def test_rocm_smi_csv_says_of_the_cards_what_its_json_says(host: Host, dialect: Dialect) -> None:
    reading = rocm_smi.read_csv(amd_rocm_smi.rocm_smi_csv(host, dialect))
    version = release(dialect.rocm)
    assert reading.unread == ()
    assert reading.value.gpus == tuple(by_rocm_smi(gpu, version) for gpu in host.gpus)


def test_the_hardware_table_of_every_release_names_the_card() -> None:
    old = (
        "GPU  DID   GFX RAS  SDMA RAS  UMC RAS  VBIOS            BUS           \n"
        "0    164e  N/A      N/A       N/A      102-RAPHAEL-008  0000:12:00.0  \n"
        "1    744c  N/A      N/A       N/A      115-D702BS0-101  0000:03:00.0  \n"
    )
    new = (
        "GPU  NODE  DID     GUID   GFX VER  VBIOS              BUS           PARTITION ID\n"
        "0    1     0x744c  17758  gfx1100  113-EXT88490-001  0000:03:00.0  0\n"
    )
    reading = rocm_smi.read_text(old)
    assert reading.unread == ()
    assert [(g.index, g.gfx, g.pci_bus_id, g.vbios_version) for g in reading.value.gpus] == [
        (0, "gfx1036", "0000:12:00.0", "102-RAPHAEL-008"),
        (1, "gfx1100", "0000:03:00.0", "115-D702BS0-101"),
    ]
    (gpu,) = rocm_smi.read_text(new).value.gpus
    assert (gpu.gfx, gpu.pci_bus_id) == ("gfx1100", "0000:03:00.0")


def test_amd_smi_partition_tells_the_memory_mode_of_every_card() -> None:
    text = "GPU: 0\n    MEMORY_PARTITION:\n        CAPS: NPS1, NPS4\n        CURRENT: NPS4\n"
    (gpu,) = amd_smi.read_text(text).value.gpus
    assert gpu.memory_partition == "NPS4"
    known = guess(text)
    assert known is not None and known.name == "amd-smi"


def test_indented_json_of_rocm_smi_is_known_as_such_too() -> None:
    indented = '{\n    "card0": {\n        "Device ID": "0x74a1"\n    }\n}\n'
    for text in (indented, '{"card0": {"Device ID": "0x74a1"}}', '{ "card3" : { } }'):
        known = guess(text)
        assert known is not None and known.name == "rocm-smi-json"


@given(HOST, strategies.dialects())
def test_rocm_smi_lines_say_what_its_json_says(host: Host, dialect: Dialect) -> None:
    reading = rocm_smi.read_text(amd_rocm_smi.rocm_smi_lines(host, dialect))
    version = release(dialect.rocm)
    assert reading.unread == () and reading.value.driver == "6.3.6"
    assert reading.value.gpus == tuple(by_rocm_smi(gpu, version) for gpu in host.gpus)


@given(HOST, strategies.dialects())
def test_the_table_of_rocm_smi_gives_power_and_partitions(host: Host, dialect: Dialect) -> None:
    reading = rocm_smi.read_text(amd_rocm_smi.rocm_smi_table(host, dialect))
    version = release(dialect.rocm)
    named, ids = (6, 0) <= version < (6, 1, 2), version >= (6, 0)
    assert reading.value.gpus == tuple(
        bare(
            gpu,
            name=(gpu.name or "")[:20].strip() if named else None,
            gfx=gpu.gfx if ids else None,
            power_limit_w=gpu.power_limit_w,
            power_draw_w=gpu.power_draw_w,
            temperature_c=gpu.temperature_c,
            compute_partition=gpu.compute_partition if ids else None,
            memory_partition=gpu.memory_partition if ids else None,
        )
        for gpu in host.gpus
    )
    errors = [line.text for line in reading.unread]
    warned = [amd_rocm_smi.LOW_POWER, "Exception caught: map::at"]
    assert errors == (warned if version >= (6, 1) else [])


@given(HOST, strategies.dialects())
def test_the_matrices_of_showtopo_give_the_pairs(host: Host, dialect: Dialect) -> None:
    reading = rocm_smi.read_text(amd_rocm_smi.rocm_smi_topo(host, dialect))
    assert reading.unread == ()
    assert reading.value.pairs == plain(host.pairs)
    assert [(g.index, g.numa_node) for g in reading.value.gpus] == [
        (gpu.index, gpu.numa_node) for gpu in host.gpus
    ]


def by_amd_smi(gpu: Gpu, whole: bool) -> Gpu:
    """A card as `static` shows it; with `whole` also `metric` and `process`."""
    known = bare(
        gpu,
        uuid=gpu.uuid,
        name=gpu.name,
        memory_mib=gpu.memory_mib,
        pci_bus_id=gpu.pci_bus_id,
        pcie=link(gpu, "gen_max", "width_max"),
        numa_node=gpu.numa_node,
        gfx=gpu.gfx,
        power_limit_w=gpu.power_limit_w,
        power_limit_max_w=gpu.power_limit_max_w,
        vbios_version=gpu.vbios_version,
        ecc=bool(gpu.ecc),
        compute_partition=gpu.compute_partition,
        memory_partition=gpu.memory_partition,
    )
    if not whole:
        return known
    return replace(
        known,
        pcie=link(gpu, "gen_max", "width_max", "gen_current", "width_current", "replays"),
        memory_free_mib=gpu.memory_free_mib,
        memory_used_mib=gpu.memory_used_mib,
        power_draw_w=gpu.power_draw_w,
        temperature_c=gpu.temperature_c,
        ecc_corrected=gpu.ecc_corrected,
        ecc_uncorrected=gpu.ecc_uncorrected,
        processes=tuple(replace(p, unit=None) for p in gpu.processes),
    )


@given(HOST, strategies.dialects(), st.booleans(), st.booleans())
def test_amd_smi_gives_the_cards_back(
    host: Host, dialect: Dialect, whole: bool, as_text: bool
) -> None:
    commands = ("list", "static", "metric", "process") if whole else ("static",)
    if as_text:
        reading = amd_smi.read_text(amd_amd_smi.amd_smi_text(host, dialect, *commands))
    else:
        reading = amd_smi.read_json(amd_amd_smi.amd_smi_json(host, dialect, *commands))
    assert reading.unread == () and reading.value.driver == "6.12.12"
    assert reading.value.gpus == tuple(by_amd_smi(gpu, whole) for gpu in host.gpus)


@given(HOST, strategies.dialects())
def test_the_uuid_of_amd_smi_list_holds_the_unique_id(host: Host, dialect: Dialect) -> None:
    reading = amd_smi.read_json(amd_amd_smi.amd_smi_json(host, dialect, "list"))
    assert [gpu.uuid for gpu in reading.value.gpus] == [gpu.uuid for gpu in host.gpus]


@given(HOST, strategies.dialects())
def test_amd_smi_topology_gives_links_rates_and_grants(host: Host, dialect: Dialect) -> None:
    reading = amd_smi.read_json(amd_amd_smi.amd_smi_topology_json(host, dialect))
    assert reading.unread == () and reading.value.pairs == host.pairs


@given(HOST, strategies.dialects())
def test_rocminfo_gives_the_cards_in_the_order_of_hip(host: Host, dialect: Dialect) -> None:
    reading = rocminfo.read_rocminfo(amd_rocminfo.rocminfo(host, dialect))
    ordered = sorted(host.gpus, key=lambda gpu: gpu.hip_index or 0)
    new = release(dialect.rocm) >= (5, 0)
    assert [line.text for line in reading.unread] == ["ROCk module is loaded"]
    assert reading.value.gpus == tuple(
        bare(
            replace(gpu, index=place),
            uuid=gpu.uuid if new else None,
            name=gpu.name,
            memory_mib=gpu.memory_mib,
            pci_bus_id=gpu.pci_bus_id,
            gfx=gpu.gfx,
        )
        for place, gpu in enumerate(ordered)
    )
    kinds = [agent.type for agent in reading.value.agents]
    assert kinds == ["CPU"] * (host.numa_nodes or 1) + ["GPU"] * len(host.gpus)


def test_two_cards_with_one_bdfid_have_no_address() -> None:
    """rocminfo prints no domain: the four MI300A of a board all show bus 1."""
    printed = "".join(
        f"Agent {n}\n  Name: gfx942\n  Device Type: GPU\n  BDFID: 256\n" for n in range(1, 5)
    )
    assert {g.pci_bus_id for g in rocminfo.read_rocminfo(printed).value.gpus} == {None}


def test_an_integrated_gpu_is_told_by_its_memory_properties() -> None:
    printed = "Agent 2\n  Name:  gfx1151\n  Uuid:  GPU-XX\n  Device Type:  GPU\n"
    (agent,) = rocminfo.read_rocminfo(printed + "  Memory Properties:  APU\n").value.agents
    assert (agent.apu, agent.uuid, agent.gfx) == (True, None, "gfx1151")


def test_the_box_of_the_newest_amd_smi_is_refused_with_a_word_of_json() -> None:
    reading = amd_smi.read_text(amd_amd_smi.BOX)
    assert reading.value.gpus == () and "--json" in (reading.value.refusal or "")
    assert len(reading.unread) == reading.lines


def test_json_that_is_cut_gives_what_came_before() -> None:
    printed = json.dumps([{"gpu": n, "bdf": f"0000:0{n}:00.0"} for n in range(3)], indent=1)
    (first, second) = amd_smi.read_json(printed[: printed.index("0000:02")]).value.gpus[:2]
    assert (first.pci_bus_id, second.pci_bus_id) == ("0000:00:00.0", "0000:01:00.0")


def test_a_warning_before_the_json_is_not_read_and_hides_nothing() -> None:
    printed = 'WARNING: user is in no render group\n[\n {"gpu": 0, "bdf": "0000:03:00.0"}\n]\n'
    reading = amd_smi.read_json(printed)
    assert [line.line for line in reading.unread] == [1]
    assert reading.value.gpus[0].pci_bus_id == "0000:03:00.0"


def test_a_card_that_rocm_smi_cannot_ask_keeps_its_row() -> None:
    printed = json.dumps({"card0": {"VRAM Total Memory (B)": "17163091968"}, "card1": {}})
    first, second = rocm_smi.read_json(printed).value.gpus
    assert first.memory_mib == 16368 and second == Gpu(1, vendor=first.vendor)


@pytest.mark.parametrize("written", ["N/A", "0x0", "0", "", "0x" + "f" * 17, "None"])
def test_a_card_without_a_unique_id_has_no_uuid(written: str) -> None:
    assert unique_id(written) is None


def test_a_table_row_without_a_power_cap_is_read() -> None:
    row = "1       2     0x15bf,   11294  36.0°C  27.178W  N/A, N/A, 0  None 2800Mhz 0% auto"
    (gpu,) = rocm_smi.read_text(f"{row}  Unsupported  17%    0%").value.gpus
    assert (gpu.index, gpu.power_draw_w, gpu.power_limit_w) == (1, 27.178, None)
    assert gpu.gfx == "gfx1103" and gpu.compute_partition is None


@given(HOST, strategies.dialects())
def test_every_output_is_known_by_its_kind_alone(host: Host, dialect: Dialect) -> None:
    printed = {
        "rocm-smi-json": amd_rocm_smi.rocm_smi_json(host, dialect),
        "rocm-smi-csv": amd_rocm_smi.rocm_smi_csv(host, dialect),
        "rocm-smi": amd_rocm_smi.rocm_smi_table(host, dialect),
        "rocm-smi-showtopo": amd_rocm_smi.rocm_smi_topo(host, dialect),
        "amd-smi-json": amd_amd_smi.amd_smi_json(host, dialect, "static"),
        "amd-smi": amd_amd_smi.amd_smi_text(host, dialect, "static"),
        "rocminfo": amd_rocminfo.rocminfo(host, dialect),
    }
    for name, text in printed.items():
        sure = {kind.name: kind.recognise(text) for kind in KINDS}
        assert max(sure, key=lambda key: sure[key]) == name, sure


@given(HOST, strategies.dialects(), st.data())
def test_no_cut_output_raises_or_invents_a_card(
    host: Host, dialect: Dialect, data: st.DataObject
) -> None:
    printed = data.draw(
        st.sampled_from(
            [
                amd_rocm_smi.rocm_smi_json(host, dialect),
                amd_rocm_smi.rocm_smi_csv(host, dialect),
                amd_rocm_smi.rocm_smi_table(host, dialect),
                amd_rocm_smi.rocm_smi_topo(host, dialect),
                amd_amd_smi.amd_smi_json(host, dialect, "static", "metric"),
                amd_amd_smi.amd_smi_text(host, dialect, "static", "metric"),
            ]
        )
    )
    cut = printed[: data.draw(st.integers(0, len(printed)))]
    known = {gpu.index for gpu in host.gpus}
    for reading in (rocm_smi.read_json(cut), rocm_smi.read_csv(cut), rocm_smi.read_text(cut)):
        assert {gpu.index for gpu in reading.value.gpus} <= known
    for other in (amd_smi.read_json(cut), amd_smi.read_text(cut)):
        assert {gpu.index for gpu in other.value.gpus} <= known


@given(st.text(max_size=400))
def test_no_text_raises(text: str) -> None:
    for kind in KINDS:
        reading = kind.read(text)
        assert 0 <= kind.recognise(text) <= 1 and len(reading.unread) <= reading.lines + 20


@pytest.mark.parametrize(
    "text",
    [
        '{"card0": {"VRAM Total Memory (B)": "99999999999999999999999999"}}',
        '{"card0": {"PCI Bus": "\\ud800", "Unique ID": 1e999, "Temperature": 1}}',
        '[{"gpu": 1e999, "bus": {"bdf": 5}}, {"gpu": 0, "vram": {"size": {"value": NaN}}}]',
        '[{"gpu": 0, "links": [{"gpu": 1, "bandwidth": "0-0", "link_type": "XGMI"}, 7]}]',
        '{"gpu_data": {"gpu": 0}}',
        "[" * 5000,
        '{"a":' * 3000,
        "GPU: 0\n    ASIC: x\n        MARKET_NAME: y\n    ASIC:\n\0",
        "Agent 1\n  BDFID: 99999999999999999999\n  Chip ID: 1(0xfffffffff)\n",
    ],
)
def test_hostile_values_count_as_absent(text: str) -> None:
    for kind in KINDS:
        for gpu in getattr(kind.read(text).value, "gpus", ()):
            assert gpu.memory_mib is None and gpu.uuid is None


@pytest.mark.parametrize("piece", ["\n", " ", "[", "{\n", "0 x ", "GPU: 0\n", '"card0": {', "a: "])
def test_a_long_text_of_one_piece_is_read_in_linear_time(piece: str) -> None:
    started = process_time()
    for kind in KINDS:
        kind.recognise(piece * 20_000)
        kind.read(piece * 20_000)
    assert process_time() - started < 5


def test_p2p_of_the_topology_is_a_grant_in_both_directions() -> None:
    text = '[{"gpu":0,"links":[{"gpu":1,"link_type":"PCIE","link_status":"DISABLED"}]}]'
    (pair,) = amd_smi.read_json(text).value.pairs
    assert pair.p2p_read is pair.p2p_write is P2p.NOT_SUPPORTED
