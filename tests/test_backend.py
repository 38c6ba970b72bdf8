"""llama.cpp's backends by the cards of a host: which one, built how, devices called what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu import backend, devices
from multigpu.backend import Backend
from multigpu.decide import check_cards
from multigpu.errors import MultigpuError, NoPlan, WishError
from multigpu.hardware import Gpu, Host, LeftOut, Vendor
from multigpu.plain import to_plain, to_plan
from multigpu.plan import Plan, Wish
from multigpu.planner import plan
from multigpu.runtimes import llama_cpp, runtime
from multigpu.wish import wishes
from tests.machines import R9700, RTX_3090, RTX_4090, RTX_5090, gguf, hf, host

XTX = replace(R9700, name="RX 7900 XTX", memory_mib=24560, gfx="gfx1100")
MI50 = replace(R9700, name="MI50", memory_mib=32752, gfx="gfx906")
W6600 = replace(R9700, name="W6600", memory_mib=8176, gfx="gfx1032")
GFX = [*backend.HIP_TARGETS, "gfx1032", "gfx900", None]


def wish(**keys: Any) -> Wish:
    return wishes({"chat": {"model": "models/chat.gguf", **keys}})[0]


def planned(machine: Host, **keys: Any) -> Plan:
    return plan(machine, gguf(), wish(**keys))


def refused(machine: Host, **keys: Any) -> set[str]:
    """Rules that refused ways of serving with llama.cpp."""
    with pytest.raises(NoPlan) as error:
        planned(machine, **keys)
    return {reason.rule for item in error.value.rejected for reason in item.reasons}


@pytest.mark.parametrize(
    ("cards", "rocm", "expected"),
    [
        ((RTX_3090, RTX_4090), None, Backend.CUDA),
        ((XTX, XTX), "6.4.1-47", Backend.HIP),
        ((XTX, XTX), None, Backend.HIP),
        ((R9700,), "6.3.4", Backend.VULKAN),
        ((R9700,), "6.4.0", Backend.HIP),
        ((MI50, MI50), "6.3.1", Backend.HIP),
        ((MI50, MI50), "6.4.0", Backend.VULKAN),
        ((MI50, MI50), None, Backend.VULKAN),
        ((W6600,), "7.0.2", Backend.VULKAN),
        ((XTX, RTX_3090), "7.0.2", Backend.VULKAN),
        ((), None, Backend.CPU),
    ],
)
def test_cards_and_rocm_choose_the_backend(
    cards: tuple[Gpu, ...], rocm: str | None, expected: Backend
) -> None:
    assert backend.choose(cards, wish(), rocm) is expected


def test_the_wish_chooses_before_the_cards_and_devices_name_a_backend_too() -> None:
    assert backend.choose((XTX,), wish(backend="vulkan")) is Backend.VULKAN
    assert backend.choose((XTX,), wish(devices=["Vulkan1", "Vulkan0"])) is Backend.VULKAN
    assert backend.choose((RTX_3090,), wish(devices=["RPC0", "RPC1"])) is Backend.CPU
    assert backend.choose((RTX_3090,), wish(devices=["CUDA0", "RPC0"])) is Backend.CUDA


def test_an_override_lets_hip_serve_a_card_and_compiles_for_the_one_it_names() -> None:
    told = wish(env={"HSA_OVERRIDE_GFX_VERSION": "10.3.0"})
    assert backend.choose((W6600,), told, "7.0.2") is Backend.HIP
    arguments = backend.cmake_arguments(Backend.HIP, (W6600,), override="10.3.0")
    assert arguments == ("-DGGML_HIP=ON", "-DGPU_TARGETS=gfx1030")
    assert "gfx90a" in backend.cmake_arguments(Backend.HIP, (W6600,), override="9.0.10")[1]
    with pytest.raises(WishError, match="three numbers"):
        backend.cmake_arguments(Backend.HIP, (W6600,), override="1030")


@pytest.mark.parametrize(
    ("kind", "cards", "expected"),
    [
        (
            Backend.CUDA,
            (RTX_5090, RTX_3090, RTX_4090, RTX_3090),
            ("-DGGML_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=86;89;120"),
        ),
        (
            Backend.HIP,
            (XTX, R9700, MI50),
            ("-DGGML_HIP=ON", "-DGPU_TARGETS=gfx906;gfx1100;gfx1201"),
        ),
        (Backend.VULKAN, (XTX, RTX_3090), ("-DGGML_VULKAN=ON",)),
        (Backend.CPU, (), ()),
    ],
)
def test_a_build_has_code_for_exactly_the_cards(
    kind: Backend, cards: tuple[Gpu, ...], expected: tuple[str, ...]
) -> None:
    assert backend.cmake_arguments(kind, cards) == expected


def test_rccl_is_built_in_where_a_tensor_split_spans_more_than_two_amd_cards() -> None:
    split = wish(strategy="tensor_split")
    assert backend.wants_rccl(Backend.HIP, split, (XTX,) * 3)
    assert not backend.wants_rccl(Backend.HIP, split, (XTX,) * 2)
    assert not backend.wants_rccl(Backend.HIP, wish(), (XTX,) * 3)
    assert not backend.wants_rccl(Backend.CUDA, split, (RTX_3090,) * 3)
    assert "-DGGML_HIP_RCCL=ON" in backend.cmake_arguments(Backend.HIP, (XTX,), rccl=True)


@pytest.mark.parametrize(
    ("kind", "card"),
    [
        (Backend.CUDA, replace(RTX_3090, compute_capability=None)),
        (Backend.HIP, replace(XTX, gfx=None)),
        (Backend.HIP, RTX_3090),
    ],
)
def test_a_card_of_unknown_architecture_is_not_built_for(kind: Backend, card: Gpu) -> None:
    with pytest.raises(WishError, match="built for exactly the cards"):
        backend.cmake_arguments(kind, (card,))


@given(
    gfx=st.lists(st.sampled_from(GFX), min_size=1, max_size=4),
    rocm=st.one_of(st.none(), st.sampled_from(["6.0.2", "6.2.4", "6.3.0-39", "6.4.3", "7.1", "x"])),
)
def test_what_hip_is_chosen_for_can_be_built_or_its_card_is_unknown(
    gfx: list[str | None], rocm: str | None
) -> None:
    cards = [replace(XTX, index=i, gfx=word) for i, word in enumerate(gfx)]
    chosen = backend.choose(cards, wish(), rocm)
    assert chosen in (Backend.HIP, Backend.VULKAN)
    if chosen is Backend.HIP and None not in gfx:
        targets = backend.cmake_arguments(chosen, cards)[1].removeprefix("-DGPU_TARGETS=")
        assert set(targets.split(";")) == set(gfx)
        assert set(gfx) <= backend.HIP_TARGETS.keys()


def test_every_backend_says_what_its_build_needs() -> None:
    programs = {kind: {tool.program for tool in backend.tools(kind)} for kind in Backend}
    assert {"g++"} <= set.intersection(*programs.values())
    assert "nvcc" in programs[Backend.CUDA] and "hipconfig" in programs[Backend.HIP]
    assert "glslc" in programs[Backend.VULKAN]
    assert dict(backend.build_environment(Backend.HIP))["HIPCXX"] == '"$(hipconfig -l)/clang"'
    assert backend.build_environment(Backend.CUDA) == ()


# --- plans ---------------------------------------------------------------------------------------


def device_names(made: Plan) -> list[str]:
    services = llama_cpp.render(made, "/opt/r/bin/llama-server", "/m.gguf")
    return [s.argv[s.argv.index("--device") + 1] for s in services]


def variables(made: Plan) -> dict[str, str]:
    return {setting.name: setting.value for setting in made.environment}


def test_hip_counts_from_zero_in_each_process_and_vulkan_counts_all_cards() -> None:
    copies = {"strategy": "replicas"}
    hip = planned(host(XTX, XTX, rocm="7.0.2"), **copies)
    assert device_names(hip) == ["ROCm0", "ROCm0"]
    assert variables(hip) == {"HIP_VISIBLE_DEVICES": "0,1"}
    vulkan = planned(host(XTX, XTX, rocm="7.0.2"), backend="vulkan", **copies)
    assert device_names(vulkan) == ["Vulkan0", "Vulkan1"] and variables(vulkan) == {}
    split = planned(host(MI50, MI50, rocm="7.0.2"), strategy="layer_split")
    assert device_names(split) == ["Vulkan0,Vulkan1"]


def test_a_plan_of_vulkan_says_what_it_costs() -> None:
    made = planned(host(MI50, rocm="7.0.2"))
    assert made.backend is Backend.VULKAN
    assert "vulkan-speed" in {reason.rule for reason in made.warnings}


def test_old_headers_of_a_distribution_are_said_where_llama_cpp_is_built_on_the_host() -> None:
    """The build was run on Debian 12 and ended in ggml-vulkan.cpp."""
    old = host(MI50, rocm="7.0.2", os="Debian GNU/Linux 12 (bookworm)")

    def rules(machine: Host, **keys: Any) -> set[str]:
        return {reason.rule for reason in planned(machine, **keys).warnings}

    assert "vulkan-headers" in rules(old)
    assert "vulkan-headers" not in rules(old, executable="/opt/own/llama-server")
    assert "vulkan-headers" not in rules(replace(old, os="Ubuntu 24.04.2 LTS"))


def seated(*cards: Gpu) -> Host:
    """AMD cards in slots 03, 04 .. of a host with ROCm 7, which has left gfx906."""
    machine = host(*cards, rocm="7.0.2")
    gpus = [replace(g, pci_bus_id=f"0000:{3 + g.index:02x}:00.0") for g in machine.gpus]
    return replace(machine, gpus=tuple(gpus))


def opened(made: Plan) -> list[tuple[str, ...]]:
    """DeviceAllow= of each process."""
    services = llama_cpp.render(made, "/opt/r/bin/llama-server", "/m.gguf")
    return [devices.device_allow(made, service.gpus) for service in services]


def test_a_process_over_vulkan_opens_its_own_cards_which_count_from_zero() -> None:
    two = seated(MI50, MI50)
    one = planned(two, gpus=[1], strategy="single")
    assert device_names(one) == ["Vulkan0"]
    assert opened(one) == [("/dev/dri/by-path/pci-0000:04:00.0-render",)]
    copies = planned(two, strategy="replicas")
    assert device_names(copies) == ["Vulkan0", "Vulkan0"]
    assert [words[0][-14:] for words in opened(copies)] == ["03:00.0-render", "04:00.0-render"]
    split = planned(two, strategy="layer_split")
    assert device_names(split) == ["Vulkan0,Vulkan1"] and len(opened(split)[0]) == 2
    inside = LeftOut("0000:30:00.0", "Raphael", "graphics inside the processor")
    assert planned(replace(two, left_out=(inside,)), strategy="layer_split")


def test_unlike_cards_over_vulkan_need_their_names() -> None:
    unlike = seated(MI50, replace(MI50, memory_mib=16368))
    assert "device-names" in refused(unlike, strategy="layer_split")
    made = planned(unlike, strategy="layer_split", devices=["Vulkan1", "Vulkan0"])
    assert device_names(made) == ["Vulkan1,Vulkan0"]
    assert "char-drm" in opened(made)[0]
    assert device_names(planned(unlike, strategy="replicas")) == ["Vulkan0", "Vulkan0"]


def test_cards_that_cannot_be_opened_alone_are_named_unless_all_are_used_and_alike() -> None:
    """NVIDIA's over Vulkan, or cards without an address."""
    two = host(RTX_3090, RTX_3090)
    assert "device-names" in refused(two, backend="vulkan", gpus=[1], strategy="single")
    inside = LeftOut("0000:30:00.0", "Raphael", "graphics inside the processor")
    odd = replace(two, left_out=(inside,))
    assert "device-names" in refused(odd, backend="vulkan", strategy="layer_split")
    made = planned(two, backend="vulkan", strategy="replicas")
    assert device_names(made) == ["Vulkan0", "Vulkan1"]
    assert opened(made)[0] == devices.VULKAN_DEVICES


def test_cards_of_two_vendors_share_a_process_over_vulkan_only() -> None:
    both = host(RTX_3090, XTX, rocm="7.0.2")
    asked = {"strategy": "layer_split", "devices": ["Vulkan0", "Vulkan1"]}
    assert planned(both, **asked).backend is Backend.VULKAN
    assert "one-vendor" in refused(both, strategy="layer_split")
    names = ["CUDA0", "ROCm0"]
    assert "backend-mixed" in refused(both, strategy="layer_split", devices=names)
    own = planned(both, strategy="layer_split", devices=names, executable="/opt/own/llama-server")
    assert devices.device_allow(own, (0, 1)) == (*devices.CUDA_DEVICES, *devices.HIP_DEVICES)


def test_a_backend_of_the_other_vendor_is_refused() -> None:
    assert "backend-cards" in refused(host(XTX), backend="cuda")
    assert "backend-cards" in refused(host(RTX_3090), backend="hip")
    assert "backend-cards" in refused(host(RTX_3090), backend="cpu")
    assert "gfx-unsupported" in refused(host(MI50, rocm="6.4.0"), backend="hip")
    assert "rocm-version" in refused(host(XTX, rocm="5.7.1"), backend="hip")
    assert "tensor-split-backend" in refused(
        host(XTX, XTX), backend="vulkan", strategy="tensor_split"
    )


def test_an_override_is_repeated_as_a_caution() -> None:
    env = {"HSA_OVERRIDE_GFX_VERSION": "10.3.0"}
    card = replace(W6600, memory_mib=16368)
    made = planned(host(card, rocm="7.0.2"), env=env)
    assert made.backend is Backend.HIP
    assert "gfx-override" in {reason.rule for reason in made.warnings}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"backend": "rocm"}, "use one of cuda, hip, vulkan, cpu"),
        ({"backend": "hip", "runtime": "vllm"}, "vllm cannot serve a GGUF"),
        ({"backend": "hip", "devices": ["CUDA0"]}, "does not have devices"),
    ],
)
def test_a_wrong_backend_is_one_line(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(WishError, match=message) as error:
        planned(host(XTX), **keys)
    assert "\n" not in str(error.value)


def test_a_backend_is_not_wished_of_vllm() -> None:
    (asked,) = wishes({"chat": {"model": "org/model", "backend": "hip"}})
    with pytest.raises(WishError, match=r"backend is llama\.cpp's"):
        plan(host(R9700), hf(), asked)


def test_a_plan_keeps_its_backend_in_a_file_and_one_without_is_told_by_its_variable() -> None:
    for made in (planned(host(XTX, XTX, rocm="7.0.2")), planned(seated(MI50, MI50))):
        again = to_plan(to_plain(made))
        assert (again.backend, again.gpu_addresses) == (made.backend, made.gpu_addresses)
    old = to_plain(planned(host(XTX, XTX, rocm="7.0.2")))
    del old["backend"]
    assert to_plan(old).backend is Backend.HIP


def test_a_card_over_vulkan_that_moved_to_another_address_is_refused() -> None:
    machine = seated(MI50)
    made = planned(machine)
    check_cards(machine, made, "plans/tower.yaml")
    moved = replace(machine, gpus=(replace(machine.gpus[0], pci_bus_id="0000:09:00.0"),))
    with pytest.raises(MultigpuError, match=r"at 0000:03:00\.0, on tower it is at 0000:09:00\.0"):
        check_cards(moved, made, "plans/tower.yaml")


# --- devices of the unit -------------------------------------------------------------------------


def test_a_unit_opens_the_devices_of_its_backend_and_no_other() -> None:
    cuda, hip = planned(host(RTX_3090)), planned(host(XTX, rocm="7.0.2"))
    vulkan = planned(host(MI50, rocm="7.0.2"))
    assert devices.device_allow(cuda, (0,)) == devices.CUDA_DEVICES and devices.groups(cuda) == ()
    assert devices.device_allow(hip, (0,)) == ("char-kfd", "char-drm")
    assert devices.groups(hip) == devices.groups(vulkan) == ("render", "video")
    assert "char-drm" in devices.device_allow(vulkan, (0,))
    assert "char-kfd" not in devices.device_allow(vulkan, (0,))
    assert devices.nodes(hip) == ("/dev/kfd", "/dev/dri")
    remote = planned(
        host(RTX_3090, RTX_3090),
        strategy="layer_split",
        devices=["RPC0", "RPC1"],
        flags={"--rpc": "127.0.0.1:1,127.0.0.1:2"},
    )
    assert devices.device_allow(remote, (0, 1)) == devices.nodes(remote) == ()


def test_vllm_on_amd_cards_opens_those_of_rocm() -> None:
    (asked,) = wishes({"chat": {"model": "org/model", "executable": "/opt/rocm-vllm/bin/vllm"}})
    made = plan(host(R9700, R9700), hf(), asked)
    assert made.backend is Backend.HIP
    assert devices.device_allow(made, (0, 1)) == devices.HIP_DEVICES
    for service in runtime("vllm").render(made, "/opt/rocm-vllm/bin/vllm", "org/model"):
        names = {setting.name for setting in service.environment}
        assert "HIP_VISIBLE_DEVICES" in names
        assert not names & {"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"}
    assert {card.vendor for card in host(R9700).gpus} == {Vendor.AMD}
