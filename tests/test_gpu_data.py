"""The table of GPU models: its figures agree with each other, and names find their rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.gpus import gpu_names
from multigpu.gpus.gpu_data import GpuData, consumer, gpu_data, matches, models, named, near
from multigpu.hardware import Gpu, Vendor

ALL = models()


def data(text: str) -> GpuData:
    found = named(text)
    assert found is not None, text
    return found


@pytest.mark.parametrize("card", ALL, ids=lambda card: card.name)
def test_the_bandwidth_is_bus_width_times_data_rate(card: GpuData) -> None:
    assert card.memory_bus_width_bits and card.memory_gbit_s
    computed = card.memory_bus_width_bits * card.memory_gbit_s / 8
    assert card.memory_bandwidth_gb_s == pytest.approx(computed, rel=0.002)


@pytest.mark.parametrize("card", ALL, ids=lambda card: card.name)
def test_arithmetic_is_multiprocessors_times_clock_times_rate(card: GpuData) -> None:
    assert card.multiprocessors
    if card.boost_mhz is None:
        assert card.fma_per_clock is None
        return
    assert card.fma_per_clock
    computed = card.multiprocessors * card.boost_mhz * card.fma_per_clock * 2 / 1e6
    assert card.fp16_tflops == pytest.approx(computed, rel=0.01, abs=0.06)


@pytest.mark.parametrize("card", ALL, ids=lambda card: card.name)
def test_smaller_types_are_not_slower_and_not_faster_than_they_can_be(card: GpuData) -> None:
    fp16 = card.fp16_tflops
    assert card.fp8_tflops is None or 0.98 <= card.fp8_tflops / fp16 / 2 <= 1.02
    assert card.fp4_tflops is None or 3.9 <= card.fp4_tflops / fp16 <= 8.1
    reduced = card.compute_capability == (10, 3)
    assert card.int8_tops is None or reduced or 0.99 <= card.int8_tops / fp16 <= 4.1


@pytest.mark.parametrize("card", ALL, ids=lambda card: card.name)
def test_a_card_has_what_its_generation_has(card: GpuData) -> None:
    capability = card.compute_capability
    assert (capability is None) is (card.vendor is Vendor.AMD)
    assert (card.gfx is None) is (card.vendor is Vendor.NVIDIA)
    assert card.source and card.pcie_gen in (3, 4, 5, 6) and card.pcie_lanes in (8, 16)
    assert card.power_w and 30 <= card.power_w <= 1400
    if capability:
        assert (card.fp8_tflops is not None) is (capability >= (8, 9))
        assert (card.fp4_tflops is not None) is (capability >= (10, 0))
    assert 2 * 1024 <= card.memory_mib <= 300 * 1024


def test_names_are_unique() -> None:
    assert len({card.name for card in ALL}) == len(ALL) > 180


@pytest.mark.parametrize("card", ALL, ids=lambda card: card.name)
def test_a_full_name_finds_its_card_whatever_the_spelling(card: GpuData) -> None:
    size = f" {round(card.memory_mib / 1024)}GB"
    plain = card.name if gpu_names.size_gb(card.name) else card.name + size
    maker = card.vendor.upper()
    for text in (plain, plain.lower(), f"{maker} {plain}", plain.replace(" ", "_")):
        assert data(text).name == card.name


@pytest.mark.parametrize("card", ALL, ids=lambda card: card.name)
def test_an_alias_with_its_memory_size_resolves_to_one_card(card: GpuData) -> None:
    for alias in card.aliases:
        assert card in matches(alias) or card.needs_size
        text = alias if gpu_names.size_gb(alias) else f"{alias} {round(card.memory_mib / 1024)}GB"
        assert data(text).name == card.name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("RTX 3090", "GeForce RTX 3090"),
        ("rtx3090", "GeForce RTX 3090"),
        ("NVIDIA GeForce RTX 3090", "GeForce RTX 3090"),
        ("3090", "GeForce RTX 3090"),
        ("3090 ti", "GeForce RTX 3090 Ti"),
        ("h100_sxm", "H100 80GB HBM3"),
        ("H100 80GB", "H100 80GB HBM3"),
        ("NVIDIA H100 80GB HBM3", "H100 80GB HBM3"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("h200_sxm", "H200"),
        ("H200 141GB", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("A100 40GB", "A100-SXM4-40GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB PCIe"),
        ("RTX PRO 6000 96GB", "RTX PRO 6000 Blackwell Workstation Edition"),
        (
            "NVIDIA RTX PRO 6000 Blackwell Server Edition",
            "RTX PRO 6000 Blackwell Server Edition",
        ),
        ("RTX 5000 Ada 32GB", "RTX 5000 Ada Generation"),
        ("AMD Radeon AI PRO R9700 32GB", "Radeon AI PRO R9700"),
        ("MI300X", "Instinct MI300X"),
        ("RTX 4090 24GB", "GeForce RTX 4090"),
        ("RTX 4090 48GB", "GeForce RTX 4090 48GB"),
        ("RTX 3080 20 GB", "GeForce RTX 3080 20GB"),
        ("L40S 48GB", "L40S"),
        ("Tesla T4", "Tesla T4"),
        ("NVIDIA GH200 480GB", "GH200 96GB"),
        ("NVIDIA TITAN X (Pascal)", "TITAN X Pascal"),
        ("Tesla V100-SXM2-32GB", "Tesla V100-SXM2-32GB"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "GeForce RTX 4090 Laptop GPU"),
        ("w7900", "Radeon PRO W7900"),
        ("p40", "Tesla P40"),
    ],
)
def test_what_people_and_drivers_write_is_understood(text: str, name: str) -> None:
    assert data(text).name == name


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("A100", "A100-SXM4-80GB"),
        ("RTX 4060 Ti", "GeForce RTX 4060 Ti 16GB"),
        ("RTX 3090 48GB", "GeForce RTX 3090"),
        ("RTX 6000", "RTX 6000 Ada Generation"),
        ("RTX 3909", "GeForce RTX 3090"),
    ],
)
def test_what_is_unknown_or_shared_has_near_names_instead(text: str, offered: str) -> None:
    assert named(text) is None
    assert offered in near(text)


@given(st.text(max_size=40))
def test_no_text_raises_and_what_is_found_is_in_the_table(text: str) -> None:
    found = named(text)
    assert found is None or found in ALL
    assert len(near(text)) <= 3


def test_published_figures_are_those_of_the_whitepapers() -> None:
    assert data("RTX 3090").fp16_tflops == pytest.approx(71, rel=0.01)
    assert data("RTX 4090").fp16_tflops == pytest.approx(165.2, rel=0.01)
    assert data("RTX 5090").fp16_tflops == pytest.approx(209.5, rel=0.01)
    assert data("RTX PRO 6000").fp16_tflops == pytest.approx(503.8, rel=0.01)
    assert data("A100 80GB").fp16_tflops == pytest.approx(312, rel=0.01)
    assert data("H100").fp16_tflops == pytest.approx(989.4, rel=0.01)
    assert data("MI300X").fp16_tflops == pytest.approx(1307.4, rel=0.01)
    assert data("RTX 5090").memory_bandwidth_gb_s == 1792
    assert data("RTX 3090").nvlink_gb_s == 112.5


def test_memory_tells_variants_of_one_driver_name_apart() -> None:
    name = "NVIDIA GeForce RTX 4060 Ti"
    small, large = (gpu_data(Gpu(0, name=name, memory_mib=mib)) for mib in (8188, 16380))
    assert small and large
    assert (small.name, large.name) == ("GeForce RTX 4060 Ti 8GB", "GeForce RTX 4060 Ti 16GB")


def test_a_modded_card_keeps_its_bandwidth_and_has_its_own_memory() -> None:
    card = gpu_data(Gpu(0, name="NVIDIA GeForce RTX 3070", memory_mib=16384))
    assert card and (card.memory_mib, card.memory_bandwidth_gb_s) == (16384, 448)


def test_clock_and_bus_width_of_the_card_win_over_the_table() -> None:
    name = "NVIDIA GeForce RTX 3090"
    card = gpu_data(
        Gpu(0, name=name, memory_mib=24576, memory_clock_max_mhz=10251, memory_bus_width_bits=384)
    )
    assert card and card.memory_bandwidth_gb_s == pytest.approx(984.1)


def test_a_clock_without_a_width_takes_the_width_of_the_table() -> None:
    card = gpu_data(Gpu(0, name="NVIDIA L40S", memory_mib=46068, memory_clock_max_mhz=9001))
    assert card and card.memory_bandwidth_gb_s == pytest.approx(864.1)


def test_a_clock_that_is_counted_in_another_way_is_not_believed() -> None:
    card = gpu_data(Gpu(0, name="NVIDIA L40S", memory_mib=46068, memory_clock_max_mhz=405))
    assert card and card.memory_bandwidth_gb_s == 864


@pytest.mark.parametrize(
    ("gfx", "name", "clock_mhz", "width", "gb_s"),
    [
        ("gfx1100", "AMD Radeon RX 7900 XTX", 1249, 384, 960),
        ("gfx90a", "AMD Instinct MI210", 1600, 4096, 1638),
        ("gfx942", "AMD Instinct MI300X", 1300, 8192, 5325),
    ],
)
def test_amdgpu_counts_the_clock_of_each_memory_type_in_its_own_way(
    gfx: str, name: str, clock_mhz: int, width: int, gb_s: float
) -> None:
    card = gpu_data(
        Gpu(
            0,
            name=name,
            vendor=Vendor.AMD,
            gfx=gfx,
            memory_clock_max_mhz=clock_mhz,
            memory_bus_width_bits=width,
        )
    )
    assert card and card.memory_bandwidth_gb_s == pytest.approx(gb_s, rel=0.002)


def test_a_pci_name_of_several_models_promises_no_more_than_the_slowest() -> None:
    name = "Navi 21 [Radeon RX 6800/6800 XT / 6900 XT]"
    card = gpu_data(Gpu(0, name=name, vendor=Vendor.AMD, gfx="gfx1030", memory_mib=16368))
    assert card and card.name == "Radeon RX 6800"


def test_an_unknown_model_is_known_by_what_its_driver_says() -> None:
    card = gpu_data(
        Gpu(
            0,
            name="NVIDIA GeForce RTX 4095",
            memory_mib=24564,
            compute_capability=(8, 9),
            memory_clock_max_mhz=11001,
            memory_bus_width_bits=384,
            multiprocessors=128,
        )
    )
    assert card and card.memory_bandwidth_gb_s == pytest.approx(1056.1)
    assert card.fp16_tflops == pytest.approx(165.2, rel=0.01)
    assert "driver" in card.source


def test_a_card_of_which_nothing_is_known_has_no_data() -> None:
    assert gpu_data(Gpu(0)) is None
    assert gpu_data(Gpu(0, name="NVIDIA GeForce RTX 9990", memory_mib=65536)) is None


def test_an_nvidia_card_is_never_taken_for_an_amd_one() -> None:
    assert gpu_data(Gpu(0, name="MI300X", vendor=Vendor.NVIDIA)) is None


def test_half_rate_is_that_of_consumer_cards_only() -> None:
    ampere = [card for card in ALL if card.compute_capability == (8, 6)]
    rates = {consumer(card.name): card.fma_per_clock for card in ampere if card.name != "A10G"}
    assert rates == {True: 256, False: 512}
