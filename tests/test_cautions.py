"""What an operator is told to mind, and what is normal and never said."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.cautions import Caution, Severity, warnings
from multigpu.cautions.kernel import AER_MANY, OTHERS
from multigpu.hardware import (
    Gpu,
    GpuPair,
    GpuProcess,
    HopKind,
    Host,
    KernelEvent,
    Limit,
    MigDevice,
    P2p,
    Path,
    PcieHop,
    PcieLink,
    RemappedRows,
    Vendor,
)
from tests.rigs.strategies import amd_hosts, mig_devices, nvidia_hosts, remapped_rows

FULL = PcieLink(1, 4, 16, 16, width_path=16)
CARD = Gpu(
    0,
    name="NVIDIA RTX A6000",
    memory_mib=49140,
    memory_free_mib=48500,
    memory_reserved_mib=600,
    pcie=FULL,
    compute_capability=(8, 6),
)


def rig(count: int = 2, **changes: Any) -> Host:
    """Healthy matched cards on bare metal, granted over NVLink; `changes` are of the host."""
    gpus = tuple(replace(CARD, index=i, pci_bus_id=f"0000:{i + 1:02x}:00.0") for i in range(count))
    pairs = tuple(
        GpuPair(a, b, Path.PHB, 4, P2p.OK, p2p_write=P2p.OK)
        for a, b in combinations(range(count), 2)
    )
    known = {"driver": "580.105.08", "virtualization": "none", "gpus": gpus, "pairs": pairs}
    return Host("rig", **{**known, **changes})


def with_card(index: int, count: int = 2, **changes: Any) -> Host:
    """The healthy rig with one card changed."""
    host = rig(count)
    gpus = tuple(replace(g, **changes) if g.index == index else g for g in host.gpus)
    return replace(host, gpus=gpus)


def over_pcie(host: Host, grant: P2p = P2p.OK, **changes: Any) -> Host:
    pairs = tuple(
        replace(pair, nvlinks=0, p2p_read=grant, p2p_write=grant, **changes) for pair in host.pairs
    )
    return replace(host, pairs=pairs)


def one(host: Host) -> Caution:
    (caution,) = warnings(host)
    return caution


def rules(host: Host) -> list[str]:
    return [caution.rule for caution in warnings(host)]


def test_a_healthy_rig_has_nothing_to_mind() -> None:
    assert warnings(rig()) == ()
    assert warnings(over_pcie(rig(4))) == ()


# --- health -------------------------------------------------------------------------------------


def xid(code: int, index: int = 1, **changes: Any) -> KernelEvent:
    return KernelEvent("xid", f"0000:{index + 1:02x}:00.0", code, **changes)


def test_a_card_that_fell_off_the_bus_is_named_with_the_kernel_s_words() -> None:
    event = xid(79, text="GPU has fallen off the bus.", time="10:22")
    caution = one(rig(kernel_events=(event,)))
    assert (caution.rule, caution.severity, caution.gpus) == ("gpu-lost", Severity.BROKEN, (1,))
    assert "GPU 1" in caution.found and "fallen off the bus" in caution.found


def test_a_card_that_left_the_bus_and_the_list_is_named_by_its_address() -> None:
    caution = one(rig(kernel_events=(KernelEvent("off-the-bus", "0000:81:00.0"),)))
    assert "0000:81:00.0" in caution.found and "reboot" in (caution.do or "")


def test_a_lost_card_keeps_the_findings_of_the_others() -> None:
    host = with_card(0, error="GPU is lost")
    capped = replace(host.gpus[1], power_limit_w=200.0, power_limit_default_w=300.0)
    assert rules(replace(host, gpus=(host.gpus[0], capped))) == ["gpu-unusable", "power-cap"]


def test_seconds_since_1970_are_shown_as_a_date() -> None:
    caution = one(rig(kernel_events=(xid(31, time="1747296001.000000"),)))
    assert "last 2025-05-15 08:00:01 UTC" in caution.found
    assert "last 77.5" in one(rig(kernel_events=(xid(31, time="77.5"),))).found


@pytest.mark.parametrize("action", ["None", "N/A", "", None])
def test_no_recovery_asked_is_no_caution(action: str | None) -> None:
    assert warnings(with_card(1, recovery_action=action)) == ()


@pytest.mark.parametrize(
    ("action", "step"),
    [
        ("GPU Reset", "--gpu-reset -i 1"),
        ("Node Reboot", "reboot the host"),
        ("Drain P2P", "uses P2P"),
        ("Drain and Reset", "--gpu-reset -i 1"),
    ],
)
def test_the_recovery_that_the_driver_asks_for_is_spelled_out(action: str, step: str) -> None:
    caution = one(with_card(1, recovery_action=action))
    assert caution.rule == "recovery-action" and step in (caution.do or "")


def test_uncorrectable_memory_errors_are_a_danger_and_corrected_ones_are_not() -> None:
    caution = one(with_card(1, ecc_uncorrected=3, ecc_corrected=900))
    assert (caution.rule, caution.severity) == ("ecc-uncorrected", Severity.DANGER)
    assert warnings(with_card(1, ecc_uncorrected=0, ecc_corrected=900)) == ()


def test_rows_that_wait_and_rows_that_failed_are_two_findings() -> None:
    rows = RemappedRows(1, 2, pending=True, failure=True)
    assert rules(with_card(0, remapped_rows=rows)) == ["row-remap-failure", "row-remap-pending"]
    assert warnings(with_card(0, remapped_rows=RemappedRows(4, 0, False, False))) == ()


def test_one_xid_on_several_cards_is_one_caution_with_its_meaning() -> None:
    events = (xid(31, 0), xid(31, 1, text="MMU Fault", time="10:22"), xid(31, 1))
    caution = one(rig(kernel_events=events))
    assert caution.rule == "xid-history" and caution.gpus == (0, 1)
    assert "Xid 31 on GPUs 0 and 1, 3 times" in caution.found


def test_an_xid_that_ends_a_process_weighs_less_than_one_that_asks_for_a_reset() -> None:
    found = warnings(rig(kernel_events=(xid(13), xid(119))))
    assert [c.severity for c in found] == [Severity.DANGER, Severity.NOTE]
    assert "119" in found[0].found and "reset the GPU" in (found[0].do or "")


def test_an_xid_that_nobody_knows_is_shown_with_the_driver_s_text() -> None:
    caution = one(rig(kernel_events=(xid(9999, text="something new"),)))
    assert "not in the catalogue" in caution.found and "something new" in caution.found


def test_a_fatal_sxid_is_worse_than_one_that_was_corrected() -> None:
    events = tuple(
        KernelEvent("sxid", "0000:c1:00.0", code, fatal=fatal)
        for code, fatal in ((11004, False), (20034, True))
    )
    found = warnings(rig(kernel_events=events))
    assert [c.severity for c in found] == [Severity.BROKEN, Severity.NOTE]
    assert "20034" in found[0].found and "0000:c1:00.0" in found[0].found


def test_many_corrected_pcie_errors_mark_the_riser_and_few_do_not() -> None:
    def host(count: int) -> Host:
        port = PcieHop("0000:00:01.0", HopKind.ROOT_PORT, aer_correctable=count)
        return with_card(1, pcie=replace(FULL, hops=(port,)))

    caution = one(host(AER_MANY))
    assert caution.rule == "aer-errors" and "0000:00:01.0" in caution.found
    assert warnings(host(AER_MANY - 1)) == ()


def test_a_few_corrected_errors_in_the_log_are_no_finding_and_one_that_is_not_is() -> None:
    corrected = KernelEvent("aer", "0000:02:00.0", fatal=False, lines=2)
    assert warnings(rig(kernel_events=(corrected,))) == ()
    assert rules(rig(kernel_events=(corrected, corrected))) == ["aer-errors"]
    fatal = one(rig(kernel_events=(replace(corrected, fatal=True),)))
    assert fatal.severity is Severity.DANGER


@pytest.mark.parametrize("kind", [*OTHERS])
def test_a_failure_without_an_xid_is_said_with_the_card(kind: str) -> None:
    event = KernelEvent(kind, "0000:02:00.0", text="made up")
    caution = one(rig(kernel_events=(event, event)))
    assert caution.rule == "driver-error" and "GPU 1, 2 times" in caution.found


def test_an_event_that_names_the_card_by_uuid_alone_finds_it() -> None:
    host = with_card(1, uuid="GPU-1")
    event = KernelEvent("xid", None, 31, uuid="GPU-1")
    assert one(replace(host, kernel_events=(event,))).gpus == (1,)


def test_a_recovery_that_makes_a_card_unusable_is_said_once() -> None:
    said = with_card(1, error="the driver asks for: GPU Reset", recovery_action="GPU Reset")
    assert rules(said) == ["recovery-action"]
    required = one(with_card(1, error="the driver asks for: GPU reset"))
    assert required.rule == "gpu-unusable" and "--gpu-reset -i 1" in (required.do or "")


def test_pages_that_wait_to_be_retired_are_said() -> None:
    assert rules(with_card(1, retired_pages_pending=True)) == ["retired-pages-pending"]
    assert warnings(with_card(1, retired_pages=5, retired_pages_pending=False)) == ()


def test_a_crashed_process_is_a_note() -> None:
    event = KernelEvent("segfault", process="VLLM::Worker")
    assert one(rig(kernel_events=(event,))).severity is Severity.NOTE


def test_a_pcie_error_of_another_device_is_no_finding_about_a_card() -> None:
    assert warnings(rig(kernel_events=(KernelEvent("aer", "0000:e1:00.0"),))) == ()
    assert rules(rig(kernel_events=(KernelEvent("aer", "0000:02:00.0"),))) == ["aer-errors"]


@pytest.mark.parametrize(
    ("reasons", "word"),
    [
        (("sw_thermal_slowdown",), "heat"),
        (("HW Slowdown", "HW Thermal Slowdown"), "heat"),
        (("hw_power_brake_slowdown", "hw_slowdown"), "power brake"),
        (("hw_slowdown",), "hardware slowdown"),
    ],
)
def test_a_card_that_is_slowed_down_now_says_by_what(reasons: tuple[str, ...], word: str) -> None:
    caution = one(with_card(1, throttle_reasons=reasons, temperature_c=92))
    assert caution.rule == "throttling" and word in caution.found and "92 C" in caution.found


def test_idle_clocks_and_a_power_cap_in_force_are_no_throttling() -> None:
    reasons = ("gpu_idle", "sw_power_cap", "applications_clocks_setting")
    assert warnings(with_card(1, throttle_reasons=reasons)) == ()


# --- links --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "cure"),
    [
        (Limit.SLOT, "wider one"),
        (Limit.RISER, "reseat"),
        (Limit.BRIDGE, "switch"),
        (Limit.CHIPSET, "CPU lanes"),
    ],
)
def test_each_limit_of_the_lanes_has_its_own_cure_and_names_the_hop(
    limit: Limit, cure: str
) -> None:
    link = PcieLink(1, 4, 4, 16, "0000:03:04.0", limited_by=limit)
    caution = one(with_card(1, pcie=link))
    assert caution.rule == "narrow-link" and cure in (caution.do or "")
    assert "0000:03:04.0" in caution.found


def test_two_cards_that_are_narrow_alike_are_one_caution() -> None:
    host = rig()
    gpus = tuple(replace(g, pcie=PcieLink(1, 4, 8, 16)) for g in host.gpus)
    caution = one(replace(host, gpus=gpus))
    assert caution.gpus == (0, 1) and "8 of 16 lanes" in caution.found


def test_a_switch_further_up_counts_for_the_lanes() -> None:
    link = PcieLink(1, 4, 16, 16, width_path=8, limited_by=Limit.BRIDGE)
    assert "8 of 16" in one(with_card(0, pcie=link)).found


def test_a_card_with_a_slower_generation_than_its_own_or_its_twin_s_is_noticed() -> None:
    own = replace(FULL, gen_max=3, gen_gpu_max=4)
    assert "PCIe 3.0" in one(with_card(0, pcie=own)).found
    caution = one(with_card(1, pcie=replace(FULL, gen_max=3)))
    assert caution.rule == "pcie-generation" and caution.gpus == (1,)
    assert "same name" in caution.found


def test_the_idle_speed_says_nothing() -> None:
    assert warnings(with_card(0, pcie=replace(FULL, gen_current=1, gen_gpu_max=4))) == ()


@pytest.mark.parametrize("link", [PcieLink(1, 4, 8, 16), replace(FULL, gen_max=3, gen_gpu_max=5)])
def test_links_in_a_guest_are_the_hypervisor_s(link: PcieLink) -> None:
    host = replace(with_card(0, pcie=link), virtualization="kvm")
    assert rules(host) == ["virtual-machine"]


def test_an_nvlink_that_is_down_is_noticed_and_a_missing_bridge_is_not() -> None:
    up = (14.0, 14.0, 14.0, 14.0)
    down = (14.0, None, 14.0, None)
    both = rig()
    some = tuple(
        replace(g, nvlinks_gb_s=links) for g, links in zip(both.gpus, (up, down), strict=True)
    )
    assert "2 of 4 NVLinks" in one(replace(both, gpus=some)).found
    none = tuple(replace(g, nvlinks_gb_s=(None,) * 4) for g in both.gpus)
    assert warnings(over_pcie(replace(both, gpus=none))) == ()


def test_a_third_card_without_a_bridge_is_no_fault_and_on_a_baseboard_it_is() -> None:
    host = rig(3)
    links: list[tuple[float | None, ...]] = [(14.0,) * 4, (14.0,) * 4, (None,) * 4]
    gpus = tuple(replace(g, nvlinks_gb_s=x) for g, x in zip(host.gpus, links, strict=True))
    assert warnings(replace(host, gpus=gpus)) == ()
    sxm = tuple(replace(g, name="NVIDIA A100-SXM4-80GB") for g in gpus)
    assert one(replace(host, gpus=sxm)).rule == "nvlink-inactive"


@pytest.mark.parametrize("state", ["In Progress", "Not Started"])
def test_a_fabric_that_is_not_set_up_keeps_cuda_from_starting(state: str) -> None:
    caution = one(with_card(0, fabric_state=state))
    assert caution.rule == "fabric-manager" and caution.severity is Severity.BROKEN
    assert "580.105.08" in (caution.do or "")


@pytest.mark.parametrize("state", ["Completed", "N/A", "Not Supported"])
def test_a_fabric_that_is_done_or_not_there_is_no_caution(state: str) -> None:
    assert warnings(with_card(0, fabric_state=state)) == ()


# --- peer access --------------------------------------------------------------------------------


def test_a_refusal_on_some_pairs_names_them_and_those_that_are_granted() -> None:
    host = rig(4)
    refused = over_pcie(host, P2p.CHIPSET_NOT_SUPPORTED).pairs
    pairs = tuple(
        pair if (pair.a, pair.b) in ((0, 1), (2, 3)) else other
        for pair, other in zip(host.pairs, refused, strict=True)
    )
    caution = one(replace(host, pairs=pairs))
    assert caution.rule == "p2p-refused" and caution.severity is Severity.LIMIT
    assert "0-2, 0-3, 1-2, 1-3" in caution.found and "granted on 0-1, 2-3" in caution.found


def test_a_grant_in_one_direction_is_a_danger() -> None:
    host = rig()
    pair = replace(host.pairs[0], p2p_write=P2p.NOT_SUPPORTED)
    caution = one(replace(host, pairs=(pair,)))
    assert caution.rule == "p2p-one-way" and "writing" in caution.found


def test_a_translating_iommu_matters_only_where_p2p_over_pcie_is_granted() -> None:
    assert rules(replace(over_pcie(rig()), iommu="translating")) == ["iommu-translating"]
    assert warnings(rig(iommu="translating")) == ()
    refused = over_pcie(rig(), P2p.CHIPSET_NOT_SUPPORTED)
    assert rules(replace(refused, iommu="translating")) == ["p2p-refused"]


def redirecting(shared: bool) -> Host:
    """Two cards below one switch; ACS redirects above both of them or below."""
    ports = tuple(PcieHop(f"0000:0{n}:00.0", acs_redirect=not shared) for n in (5, 6))
    root = PcieHop("0000:00:01.0", HopKind.ROOT_PORT, acs_redirect=shared)
    host = over_pcie(rig(), path=Path.PIX)
    gpus = tuple(
        replace(g, pcie=replace(FULL, hops=(port, root)))
        for g, port in zip(host.gpus, ports, strict=True)
    )
    return replace(host, gpus=gpus)


def test_acs_redirect_matters_on_the_way_between_two_cards_with_a_grant() -> None:
    caution = one(redirecting(shared=False))
    assert caution.rule == "acs-redirect" and caution.severity is Severity.DANGER
    assert "0000:05:00.0, 0000:06:00.0" in caution.found
    assert warnings(redirecting(shared=True)) == ()


def test_a_grant_in_a_guest_is_only_asserted() -> None:
    host = replace(over_pcie(rig()), virtualization="kvm")
    assert rules(host) == ["p2p-in-guest", "virtual-machine"]


def geforce(**changes: Any) -> Host:
    host = over_pcie(rig(**changes), P2p.CHIPSET_NOT_SUPPORTED)
    gpus = tuple(
        replace(g, name="NVIDIA GeForce RTX 3090", memory_mib=24576, memory_free_mib=24200)
        for g in host.gpus
    )
    return replace(host, gpus=tuple(replace(g, memory_reserved_mib=300) for g in gpus))


def bar1(host: Host, mib: int) -> Host:
    return replace(host, gpus=tuple(replace(g, bar1_memory_mib=mib) for g in host.gpus))


def test_a_small_bar1_is_said_with_what_it_is_for() -> None:
    found = warnings(bar1(geforce(), 256))
    assert [c.rule for c in found] == ["p2p-refused", "bar1-small"]
    assert found[1].severity is Severity.NOTE and "patched" in (found[1].costs or "")
    assert rules(bar1(geforce(), 32768)) == ["p2p-refused"]


@pytest.mark.parametrize("virtualization", ["kvm", "docker", None])
def test_bar1_is_never_judged_off_bare_metal(virtualization: str | None) -> None:
    assert "bar1-small" not in rules(bar1(geforce(virtualization=virtualization), 256))


def test_a_small_bar1_matters_neither_for_one_card_nor_with_a_bridge() -> None:
    assert warnings(bar1(rig(), 256)) == ()
    assert warnings(bar1(rig(1), 256)) == ()


def test_the_closed_module_is_named_where_only_the_open_one_could_be_patched() -> None:
    assert rules(geforce(module_license="NVIDIA")) == ["p2p-refused", "module-closed"]
    assert rules(geforce(module_license="Dual MIT/GPL")) == ["p2p-refused"]
    assert warnings(rig(module_license="NVIDIA")) == ()


def test_registry_keys_are_shown_and_weighed_by_whether_p2p_is_on() -> None:
    keys = "RMForceStaticBar1=1;PeerMappingOverride=1"
    useless = next(c for c in warnings(geforce(registry_dwords=keys)) if "registry" in c.rule)
    useful = one(replace(over_pcie(rig()), registry_dwords=keys))
    assert (useless.severity, useful.severity) == (Severity.SLOW, Severity.NOTE)
    assert keys in useful.found


# --- cards, tenants, mixtures -------------------------------------------------------------------


def test_slices_are_counted_by_profile() -> None:
    slices = tuple(MigDevice(i, "1g.10gb") for i in range(7))
    caution = one(with_card(1, mig=True, mig_devices=slices))
    assert "7x 1g.10gb" in caution.found and caution.severity is Severity.LIMIT


def test_amd_partitions_are_no_cards() -> None:
    gpus = tuple(
        Gpu(i, memory_mib=24564, vendor=Vendor.AMD, gfx="gfx942", compute_partition="CPX")
        for i in range(8)
    )
    caution = one(Host("rig", gpus=gpus, rocm="6.4.1", virtualization="none"))
    assert caution.rule == "compute-partition" and "GPUs 0-7" in caution.found
    whole = tuple(replace(g, compute_partition="SPX", memory_partition="NPS1") for g in gpus)
    assert warnings(Host("rig", gpus=whole, virtualization="none")) == ()


def test_equal_power_caps_are_one_caution_with_one_command() -> None:
    host = rig()
    gpus = tuple(replace(g, power_limit_w=200.0, power_limit_default_w=300.0) for g in host.gpus)
    caution = one(replace(host, gpus=gpus))
    assert caution.gpus == (0, 1) and "nvidia-smi -i 0,1 -pl 300" in (caution.do or "")


def test_a_compute_mode_that_keeps_processes_out_is_noticed() -> None:
    assert one(with_card(0, compute_mode="Exclusive_Process")).severity is Severity.LIMIT
    assert one(with_card(0, compute_mode="Prohibited")).severity is Severity.BROKEN
    assert warnings(with_card(0, compute_mode="Default")) == ()


def test_persistence_off_matters_with_several_cards() -> None:
    off = tuple(replace(g, persistence_mode=False) for g in rig().gpus)
    assert one(rig(gpus=off)).rule == "persistence-off"
    assert warnings(rig(1, gpus=off[:1])) == ()


def test_a_display_that_shows_nothing_is_normal_and_a_desktop_is_not() -> None:
    desktop = (GpuProcess(1, "/usr/lib/xorg/Xorg", 40),)
    assert warnings(with_card(0, display_attached=True)) == ()
    assert warnings(with_card(0, display_attached=False, processes=desktop)) == ()
    caution = one(with_card(0, display_attached=True, processes=desktop))
    assert caution.rule == "display-attached" and "Xorg" in caution.found


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"vendor": Vendor.AMD, "gfx": "gfx1100", "compute_capability": None}, "mixed-vendor"),
        ({"compute_capability": (12, 0)}, "mixed-architecture"),
        ({"memory_mib": 24576, "memory_free_mib": 23900}, "mixed-memory"),
    ],
)
def test_a_mixture_says_what_it_closes_and_opens(changes: dict[str, Any], rule: str) -> None:
    caution = one(with_card(1, **changes))
    assert (caution.rule, caution.severity) == (rule, Severity.LIMIT)
    assert caution.do


def test_an_architecture_that_was_not_seen_is_not_called_different() -> None:
    assert warnings(with_card(1, compute_capability=None)) == ()


# --- machine ------------------------------------------------------------------------------------


def test_a_driver_that_is_missing_is_said_unless_the_reader_did() -> None:
    gpus = tuple(Gpu(i, error="the driver does not answer: no output") for i in range(2))
    assert rules(Host("rig", gpus=gpus)) == ["driver-missing", "gpu-unusable"]
    assert rules(Host("rig", gpus=gpus, problems=("no driver",))) == ["capture-problem"]


def test_cards_whose_driver_nobody_asked_are_not_said_to_lack_one() -> None:
    assert rules(Host("rig", gpus=(Gpu(0), Gpu(1)), partial=True)) == []


def test_numa_nodes_that_nobody_names_matter_with_several_nodes() -> None:
    assert rules(rig(numa_nodes=2)) == ["numa-unknown"]
    assert warnings(rig(numa_nodes=1)) == ()


def test_a_socket_in_several_numa_nodes_asks_for_nps1() -> None:
    host = rig(4, numa_nodes=8)
    gpus = tuple(replace(g, numa_node=2 * g.index) for g in host.gpus)
    caution = one(replace(host, gpus=gpus))
    assert caution.rule == "numa-parted" and "NPS1" in (caution.do or "")
    two = tuple(replace(g, numa_node=g.index % 2) for g in host.gpus)
    assert warnings(replace(host, gpus=two)) == ()


def test_processes_that_the_kernel_killed_for_memory_are_named() -> None:
    event = KernelEvent("oom", process="VLLM::EngineCore")
    assert "VLLM::EngineCore" in one(rig(kernel_events=(event,))).found


# --- order and totality -------------------------------------------------------------------------


def test_the_worst_comes_first_whatever_rule_found_it() -> None:
    gpus = list(rig(2, numa_nodes=2).gpus)
    gpus[0] = replace(gpus[0], power_limit_w=200.0, power_limit_default_w=300.0)
    gpus[1] = replace(gpus[1], recovery_action="Reset", ecc_uncorrected=1)
    found = warnings(rig(2, numa_nodes=2, gpus=tuple(gpus)))
    assert [c.rule for c in found] == [
        "recovery-action",
        "ecc-uncorrected",
        "power-cap",
        "numa-unknown",
    ]


EVENTS = st.builds(
    KernelEvent,
    kind=st.sampled_from(
        ["xid", "sxid", "aer", "pcie-bandwidth", "off-the-bus", "oom", "dpc", "segfault", "new"]
    ),
    address=st.none() | st.sampled_from(["0000:01:00.0", "0000:0a:00.0", "0000:ff:00.0"]),
    code=st.none() | st.integers(0, 200),
    text=st.none() | st.text(max_size=200),
    fatal=st.none() | st.booleans(),
)


@st.composite
def troubled(draw: st.DrawFn) -> Host:
    """A random machine with random trouble."""
    host = draw(nvidia_hosts(4) | amd_hosts(4))
    gpus = tuple(
        replace(
            gpu,
            error=draw(st.none() | st.sampled_from(["GPU is lost", "Unknown Error"])),
            remapped_rows=draw(st.none() | remapped_rows),
            recovery_action=draw(st.sampled_from([None, "None", "Reset"])),
            fabric_state=draw(st.sampled_from([None, "Completed", "In Progress"])),
            mig_devices=tuple(draw(st.lists(mig_devices, max_size=2))),
            numa_node=draw(st.none() | st.integers(0, 7)),
        )
        for gpu in host.gpus
    )
    return replace(
        host,
        gpus=gpus,
        kernel_events=tuple(draw(st.lists(EVENTS, max_size=6))),
        virtualization=draw(st.sampled_from([None, "none", "kvm", "docker"])),
        iommu=draw(st.sampled_from([None, "off", "translating"])),
        numa_nodes=draw(st.none() | st.integers(1, 8)),
    )


SAYS_BOTH = {"power-cap", "pcie-generation", "capture-problem"}
"""What they found names what was expected."""


@given(troubled())
def test_every_caution_of_a_troubled_machine_is_whole_and_in_order(host: Host) -> None:
    found = warnings(host)
    ranks = [list(Severity).index(caution.severity) for caution in found]
    assert ranks == sorted(ranks)
    known = {gpu.index for gpu in host.gpus}
    for caution in found:
        assert caution.found and caution.costs
        assert caution.needed or caution.severity is Severity.NOTE or caution.rule in SAYS_BOTH
        assert set(caution.gpus) <= known
        assert "None" not in (caution.do or "").replace("None)", "")


@given(troubled())
def test_a_card_with_an_error_is_always_among_the_unusable(host: Host) -> None:
    said = {i for c in warnings(host) if c.rule == "gpu-unusable" for i in c.gpus}
    assert said == {gpu.index for gpu in host.gpus if gpu.error is not None}


@given(troubled())
def test_whoever_finds_a_fact_unknown_finds_nothing_wrong_with_it(host: Host) -> None:
    blind = replace(
        host,
        gpus=tuple(Gpu(g.index, vendor=g.vendor, memory_mib=24576) for g in host.gpus),
        pairs=(),
        kernel_events=(),
        virtualization=None,
        numa_nodes=None,
    )
    assert {c.rule for c in warnings(blind)} <= {"mixed-vendor"}


def test_memory_errors_of_an_amd_card_name_its_own_tool_and_its_address() -> None:
    host = with_card(1, vendor=Vendor.AMD, gfx="gfx90a", ecc_uncorrected=3)
    (caution,) = (c for c in warnings(host) if c.rule == "ecc-uncorrected")
    assert f"amd-smi reset --gpureset --gpu {host.gpus[1].pci_bus_id}" in (caution.do or "")
    assert "nvidia-smi" not in (caution.do or "")


def test_nouveau_is_no_guest_that_a_card_could_be_left_to() -> None:
    error = "bound to the kernel driver nouveau, not to nvidia"
    (caution,) = (c for c in warnings(with_card(1, error=error)) if c.rule == "gpu-unusable")
    assert "NVIDIA driver package" in (caution.do or "") and "guest" not in (caution.do or "")


def test_a_link_that_is_down_on_a_baseboard_has_no_bridge_to_reseat() -> None:
    links = (26.562,) * 17 + (None,)
    for name, bridge in (("NVIDIA H100 80GB HBM3 SXM", False), ("NVIDIA RTX A6000", True)):
        (caution,) = (
            c
            for c in warnings(with_card(1, name=name, nvlinks_gb_s=links))
            if c.rule == "nvlink-inactive"
        )
        assert ("bridge" in (caution.do or "")) is bridge


def test_the_lines_of_one_reset_are_one_reset() -> None:
    texts = ("GPU reset begin!", "GPU reset succeeded, trying to resume", "GPU reset(2) succeeded!")
    events = tuple(KernelEvent("amdgpu-reset", "0000:01:00.0", text=text) for text in texts)
    (caution,) = (c for c in warnings(rig(kernel_events=events)) if c.rule == "driver-error")
    assert ", once" in caution.found and "GPU reset(2) succeeded!" in caution.found


def test_a_machine_whose_cards_share_memory_of_no_told_size_is_not_called_well() -> None:
    host = with_card(0, 1, memory_mib=None, unified_memory=True)
    (caution,) = warnings(host)
    assert (caution.rule, caution.severity) == ("unified-memory", Severity.LIMIT)
    assert "tells no size" in caution.found


def test_memory_in_use_on_an_amd_card_is_noticed_without_a_reserve_that_is_told_apart() -> None:
    held = {"memory_reserved_mib": None, "memory_used_mib": 20_000, "processes": ()}
    assert "vram-in-use" in rules(with_card(1, vendor=Vendor.AMD, gfx="gfx90a", **held))


def test_a_superchip_with_vram_of_its_own_shares_nothing_but_reaches_it() -> None:
    assert rules(with_card(0, 1, unified_memory=True)) == ["coherent-memory"]
    apu = {"unified_memory": True, "vendor": Vendor.AMD, "gfx": "gfx942"}
    assert rules(with_card(0, 1, **apu)) == ["unified-memory"]


def test_a_gpu_whose_memory_is_the_processors_is_no_superchip() -> None:
    host = replace(with_card(0, 1, memory_mib=64_000, unified_memory=True), memory_mib=64_000)
    assert "unified-memory" in rules(host) and "coherent-memory" not in rules(host)


def test_a_direction_that_the_driver_does_not_know_is_no_refusal() -> None:
    host = rig(2)
    pairs = tuple(replace(p, p2p_read=P2p.OK, p2p_write=P2p.UNKNOWN) for p in host.pairs)
    assert "p2p-one-way" not in rules(replace(host, pairs=pairs))
    refused = tuple(replace(p, p2p_write=P2p.NOT_SUPPORTED) for p in pairs)
    assert "p2p-one-way" in rules(replace(host, pairs=refused))
