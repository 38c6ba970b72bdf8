"""vLLM and SGLang on AMD cards: what is refused, what is said, and what processes get.

The tables are read from the runtimes' sources; no AMD card was here. Where this machine has the
0.33.0 wheel unpacked, the tables are compared with it.
"""

from __future__ import annotations

import ast
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multigpu.errors import MultigpuError, NoPlan
from multigpu.flags import check
from multigpu.hardware import Gpu, Host, Vendor
from multigpu.hardware import Path as PciPath
from multigpu.install import Files
from multigpu.parse.capture import read
from multigpu.parse.folder import read_folder
from multigpu.plan import ModelSpec, Plan
from multigpu.planner import plan
from multigpu.runtimes import rocm, runtime, vllm
from multigpu.wish import wishes
from tests.hosts import NAMES, captured
from tests.machines import R9700, RTX_3090, SHARED, dense, gguf, hf, host

OWN = "/opt/rocm/venv/bin/vllm"
AMD = [name for name in NAMES if Vendor.AMD in {g.vendor for g in read(captured(name), name).gpus}]


def card(gfx: str, memory_mib: int = 65520) -> Gpu:
    return replace(R9700, name=gfx, gfx=gfx, memory_mib=memory_mib)


def quantized(**q: Any) -> ModelSpec:
    return hf(dense(quantization_config=q))


def planned(machine: Host, model: ModelSpec | None = None, **keys: Any) -> Plan:
    keys = {"executable": OWN, "runtime": "vllm", **keys}
    model = model or hf()
    (wish,) = wishes({"chat": {"model": model.name, **keys}})
    return plan(machine, model, wish)


def refused(machine: Host, model: ModelSpec | None = None, **keys: Any) -> set[str]:
    with pytest.raises(NoPlan) as error:
        planned(machine, model, **keys)
    return {reason.rule for item in error.value.rejected for reason in item.reasons}


def warned(made: Plan) -> dict[str, str]:
    return {reason.rule: reason.found for reason in made.warnings}


FP8 = quantized(quant_method="fp8", activation_scheme="dynamic")
FP8_BLOCKS = quantized(
    quant_method="fp8", activation_scheme="dynamic", weight_block_size=[128, 128]
)
NF4 = quantized(quant_method="bitsandbytes", load_in_4bit=True)


@pytest.mark.parametrize("gfx", [*rocm.VLLM_ROCM])
def test_vllm_takes_every_card_that_its_documentation_names(gfx: str) -> None:
    assert planned(host(card(gfx), rocm="7.2.1")).chosen.runtime == "vllm"


@pytest.mark.parametrize(
    ("gfx", "release", "model", "keys", "rule"),
    [
        ("gfx900", "6.3.0", None, {}, "gfx-unsupported"),
        ("gfx1036", "7.2.1", None, {}, "gfx-unsupported"),
        ("gfx1030", "7.2.1", None, {"executable": None}, "gfx-unsupported"),
        ("gfx950", "6.4.1", None, {}, "rocm-version"),
        ("gfx1151", "7.0.1", None, {}, "rocm-version"),
        ("gfx1100", "6.2.4", None, {}, "rocm-version"),
        ("gfx90a", "7.0.0", FP8, {}, "quantization-on-rocm"),
        ("gfx1100", "7.0.0", FP8, {}, "quantization-on-rocm"),
        ("gfx942", "7.0.0", NF4, {}, "quantization-on-rocm"),
        ("gfx942", "7.0.0", None, {"kv_cache_dtype": "nvfp4"}, "kv-cache-dtype"),
    ],
)
def test_what_a_card_cannot_serve_is_refused_while_planning(
    gfx: str, release: str, model: ModelSpec | None, keys: dict[str, Any], rule: str
) -> None:
    assert rule in refused(host(card(gfx), rocm=release), model, **keys)


@pytest.mark.parametrize(
    ("gfx", "model"),
    [("gfx942", FP8), ("gfx1201", FP8), ("gfx90a", FP8_BLOCKS), ("gfx1100", FP8_BLOCKS)],
)
def test_fp8_is_served_where_a_kernel_is_for_its_scales(gfx: str, model: ModelSpec) -> None:
    assert planned(host(card(gfx), rocm="7.2.1"), model)


def test_a_build_of_ones_own_may_be_for_cards_that_vllm_only_compiles_for() -> None:
    made = planned(host(card("gfx1030"), rocm="7.2.1"))
    assert "gfx-untested" in warned(made)


def test_an_nvidia_card_hears_nothing_of_rocm() -> None:
    made = planned(host(RTX_3090, RTX_3090), strategy="tensor_parallel")
    assert not {rule for rule in warned(made) if "gfx" in rule or "rccl" in rule}
    assert not {s.name for s in made.environment if s.name.startswith(("HIP", "HSA"))}


def test_what_runs_without_arithmetic_of_its_own_is_said() -> None:
    found = warned(planned(host(card("gfx90a"), rocm="7.2.1"), FP8_BLOCKS))
    assert "gfx90a has no fp8 arithmetic" in found["weight-only"]
    assert "weight-only" not in warned(planned(host(card("gfx942"), rocm="7.2.1"), FP8_BLOCKS))


def test_rccl_reduces_where_vllms_own_kernel_is_not_for_the_cards() -> None:
    split: dict[str, Any] = {"strategy": "tensor_parallel"}
    assert "rccl-all-reduce" in warned(planned(host(*[card("gfx1201")] * 2), **split))
    assert "rccl-all-reduce" not in warned(planned(host(*[card("gfx942")] * 2), **split))


def test_what_a_rocm_wheel_needs_is_said_before_anything_is_installed() -> None:
    made = planned(host(R9700, python=(3, 11, 2), glibc="2.31"), executable=None)
    (reason,) = (r for r in made.warnings if r.rule == "cuda-wheel")
    assert "Python 3.11" in reason.found and "glibc 2.31" in reason.found
    assert "Python 3.12" in (reason.needed or "") and "2.35" in (reason.needed or "")
    fits = planned(host(R9700, python=(3, 12, 3), glibc="2.39"), executable=None)
    assert "Python" not in warned(fits)["cuda-wheel"]


class NoLocks(Files):
    """A controller that has locks of CUDA wheels only."""

    def requirements(self, name: str) -> str:
        raise AssertionError(name)

    def versions(self, name: str) -> tuple[str, ...]:
        return ("0.33.0",) if name == "vllm" else ()

    def identity(self, path: str) -> tuple[str, int]:
        raise AssertionError(path)

    def built(self, kind: str) -> str | None:
        raise AssertionError(kind)


def test_vllm_without_a_rocm_lock_is_refused_in_one_line() -> None:
    (wish,) = wishes({"chat": {"model": "org/model"}})
    with pytest.raises(MultigpuError, match="vllm-rocm-VERSION") as error:
        vllm.recipe(host(R9700), wish, NoLocks())
    assert "\n" not in str(error.value) and "executable" in str(error.value)


def test_sglang_on_amd_needs_a_build_of_the_operators() -> None:
    assert "cuda-wheel" in refused(host(R9700), runtime="sglang", executable=None)
    made = planned(host(R9700), runtime="sglang", executable="/opt/own/bin/sglang")
    assert made.chosen.runtime == "sglang"


def test_rccl_gets_fine_grained_memory_over_pcie_with_large_bars_only() -> None:
    split: dict[str, Any] = {"strategy": "tensor_parallel"}
    large = replace(card("gfx1201"), resizable_bar=True)

    def names(machine: Host) -> set[str]:
        return {setting.name for setting in planned(machine, **split).environment}

    wanted = "HSA_FORCE_FINE_GRAIN_PCIE"
    assert wanted in names(host(large, large))
    assert wanted not in names(host(large, replace(large, resizable_bar=None)))
    bonded = host(large, large)
    pair = replace(bonded.pairs[0], xgmi_links=1, path=PciPath.PIX)
    assert wanted not in names(replace(bonded, pairs=(pair,)))


def test_numbers_are_those_of_hip() -> None:
    turned = host(card("gfx1201"), card("gfx1201"))
    gpus = tuple(replace(gpu, hip_index=1 - gpu.index) for gpu in turned.gpus)
    made = planned(replace(turned, gpus=gpus), strategy="single", gpus=[0])
    assert {s.name: s.value for s in made.environment}["HIP_VISIBLE_DEVICES"] == "1"


# --- machines ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AMD)
@pytest.mark.parametrize("model", [hf(), gguf()], ids=["hf", "gguf"])
@pytest.mark.parametrize("objective", ["latency", "throughput", "context"])
def test_a_rehearsal_machine_with_amd_cards_plans_and_renders(
    name: str, model: ModelSpec, objective: str
) -> None:
    machine = read(captured(name), name)
    made = planned(machine, model, objective=objective, runtime=None)
    chosen = made.chosen.runtime
    services = runtime(chosen).render(made, OWN, model.path)
    for service in services:
        assert not list(check(chosen, list(service.argv[1:])))
        visible = [s.name for s in service.environment if s.name.endswith("VISIBLE_DEVICES")]
        assert visible == ["HIP_VISIBLE_DEVICES"]


CAPTURED = [
    ("rocm_smi_rx6700xt_rocm612.json", "gfx-unsupported"),
    ("rocm_smi_mi100_rocm602.json", "gfx-unsupported"),
    ("rocminfo_8x_vega20.txt", "gfx-unsupported"),
    ("amd_smi_static_4x_mi300a.txt", None),
]


@pytest.mark.skipif(not (SHARED / "rigs").is_dir(), reason="no captured outputs here")
@pytest.mark.parametrize(("name", "rule"), CAPTURED)
def test_a_real_output_of_amds_tools_says_whether_vllm_serves_its_cards(
    name: str, rule: str | None
) -> None:
    text = (SHARED / "rigs" / "h_amd" / name).read_text()
    machine = read_folder({name: text}, "rig").machine
    if rule is None:
        assert planned(machine, executable=None).chosen.runtime == "vllm"
    else:
        assert rule in refused(machine, executable=None)


# --- the wheel -----------------------------------------------------------------------------------

PLATFORM = os.environ.get("VLLM_SOURCE", "")


@pytest.mark.skipif(not PLATFORM, reason="VLLM_SOURCE names no unpacked wheel of vLLM")
def test_the_tables_agree_with_the_wheel() -> None:
    source = (Path(PLATFORM) / "platforms" / "rocm.py").read_text()
    listed = next(
        ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and node.target.id == "supported_quantization"
        and node.value is not None
    )
    assert not rocm.NO_KERNEL & set(listed)
    assert {"awq", "gptq", "fp8", "compressed-tensors", "mxfp4", "quark"} <= set(listed)
    assert 'for gfx in ["gfx94", "gfx95"]' in source
    torch = Path(PLATFORM) / "model_executor/kernels/linear/scaled_mm/pytorch.py"
    assert "on_gfx942() or on_gfx950() or on_gfx12x()" in torch.read_text()
