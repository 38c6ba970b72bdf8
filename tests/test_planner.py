"""Planning: every rule has a case, pins are obeyed, and the invariants of a plan hold."""

from __future__ import annotations

import ast
import pathlib
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.errors import NoPlan, WishError
from multigpu.hardware import Gpu, GpuPair, Host, P2p, Path
from multigpu.plan import ModelSpec, Plan, Strategy, Wish
from multigpu.planner import plan
from multigpu.wish import wishes
from tests.machines import (
    H100,
    R9700,
    RTX_2080,
    RTX_3060,
    RTX_3090,
    RTX_4090,
    RTX_5090,
    V100,
    dense,
    gguf,
    hf,
    host,
    llama_70b,
)

PACKAGE = pathlib.Path(__file__).parents[1] / "multigpu"
TWO = host(RTX_3090, RTX_3090)
FOUR = host(*[RTX_3090] * 4)
QWEN_0_6B = hf(
    dense(
        num_hidden_layers=28,
        hidden_size=1024,
        intermediate_size=3072,
        num_attention_heads=16,
        head_dim=128,
        vocab_size=151936,
        tie_word_embeddings=True,
    )
)


def make(machine: Host, model: ModelSpec | None = None, **keys: Any) -> Plan:
    model = model or hf()
    (wish,) = wishes({"chat": {"model": model.name, **keys}})
    return plan(machine, model, wish)


def every_rule(machine: Host, model: ModelSpec | None = None, **keys: Any) -> set[str]:
    """Rules of everything that a plan, or the refusal of one, says."""
    try:
        made = make(machine, model, **keys)
    except NoPlan as error:
        return {reason.rule for item in error.rejected for reason in item.reasons}
    reasons = [reason for item in made.rejected for reason in item.reasons]
    return {reason.rule for reason in (*reasons, *made.reasons, *made.warnings)}


def awq(**changes: Any) -> ModelSpec:
    return hf(dense(quantization_config={"quant_method": "awq", "group_size": 128}, **changes))


def fp8(**changes: Any) -> ModelSpec:
    block = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    return hf(dense(quantization_config=block, **changes))


MIXTURE = hf(dense(num_local_experts=8, num_experts_per_tok=2, moe_intermediate_size=1024))
BROKEN = replace(RTX_3090, error="Unable to determine the device handle: Unknown Error")
MOE = {"num_local_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 1001}
EXPERTS = {"num_experts_per_tok": 1, "moe_intermediate_size": 1024}
IN_USE = replace(RTX_3090, memory_free_mib=20000)

CASES: dict[str, tuple[Host, ModelSpec, dict[str, Any]]] = {
    "attention-heads": (host(*[RTX_3090] * 3), hf(), {}),
    "bfloat16": (host(RTX_2080, RTX_2080), hf(), {"flags": {"--dtype": "bfloat16"}}),
    "card-left-out": (host(RTX_3090, BROKEN), hf(), {}),
    "compute-capability": (host(V100, V100), hf(dense(torch_dtype="float16")), {}),
    "context-largest-cache": (TWO, hf(), {"objective": "context"}),
    "context-length": (TWO, hf(), {"context": 200_000}),
    "cuda-wheel": (host(R9700, R9700), hf(), {}),
    "device-count": (host(*[RTX_3090] * 17), gguf(), {}),
    "device-names": (TWO, gguf(), {"devices": ["CUDA0"]}),
    "expert-parallel": (FOUR, hf(dense(**EXPERTS, num_local_experts=2)), {"expert_parallel": True}),
    "expert-size": (TWO, hf(dense(**MOE)), {}),
    "ffn-size": (TWO, hf(dense(intermediate_size=14337)), {}),
    "float16-instead": (host(RTX_2080, RTX_2080), hf(dense(num_hidden_layers=16)), {}),
    "hidden-size": (TWO, hf(dense(hidden_size=4097, head_dim=128)), {}),
    "host-memory": (
        host(RTX_3090, RTX_3090, memory_available_mib=8192),
        hf(dense(num_hidden_layers=64)),
        {"cpu_offload_gib": 8},
    ),
    "kv-cache-dtype": (TWO, hf(), {"kv_cache_dtype": "nvfp4"}),
    "kv-dtype-kernel": (TWO, hf(), {"kv_cache_dtype": "fp8"}),
    "kv-heads": (TWO, hf(dense(num_key_value_heads=3)), {}),
    "layer-counts": (host(*[RTX_3090] * 3), gguf(blocks=1), {}),
    "layer-split": (TWO, gguf(block_mib=900), {"objective": "throughput"}),
    "memory-fit": (TWO, llama_70b(), {}),
    "model-format": (TWO, hf(), {}),
    "one-card-too-small": (TWO, hf(dense(num_hidden_layers=64)), {}),
    "one-vendor": (host(RTX_3090, R9700), hf(), {}),
    "only-one": (host(RTX_3090), hf(), {}),
    "peer-access-unproven": (
        host(RTX_3090, RTX_3090, p2p=P2p.OK, virtualization="kvm"),
        hf(),
        {},
    ),
    "pinned": (TWO, hf(), {"strategy": "single"}),
    "pipeline-parallel": (
        host(*[RTX_3090] * 3, path=Path.SYS),
        llama_70b(num_hidden_layers=24),
        {"objective": "latency", "context": 2048},
    ),
    "pipeline-stages": (TWO, hf(dense(num_hidden_layers=1)), {}),
    "pipeline-support": (TWO, hf(dense(model_type="zamba2")), {}),
    "quantization-capability": (host(RTX_2080, RTX_2080), fp8(torch_dtype="float16"), {}),
    "quantization-groups": (host(*[RTX_3090] * 4), awq(intermediate_size=13824 + 256), {}),
    "ranked-lower": (TWO, hf(), {}),
    "requests-wait": (TWO, hf(), {"context": 8192, "concurrency": 400}),
    "replicas": (TWO, hf(), {"strategy": "replicas", "gpus": [0, 1], "port": 9000}),
    "single-card": (TWO, QWEN_0_6B, {}),
    "slow-link": (host(RTX_3090, RTX_3090, path=Path.SYS), hf(), {}),
    "tensor-parallel": (TWO, hf(), {}),
    "throughput-engines": (TWO, hf(), {"objective": "throughput"}),
    "usable-card": (host(RTX_3090, BROKEN), hf(), {"gpus": [0, 1]}),
    "utilization-lowered": (host(IN_USE, IN_USE), hf(), {}),
    "vocab-size": (host(*[RTX_3090] * 3), hf(dense(vocab_size=128000)), {}),
    "weight-only": (TWO, fp8(), {}),
}
# A single candidate has no rival, so its strength is not told.
UNTOLD = {"replicas", "pipeline-parallel", "layer-split"}
# Which way is chosen, and why, is of tests/test_ranking.py and tests/test_choice.py.
UNTOLD |= {"throughput-engines"}


@pytest.mark.parametrize("rule", sorted(set(CASES) - UNTOLD))
def test_every_rule_speaks_in_its_case(rule: str) -> None:
    machine, model, keys = CASES[rule]
    assert rule in every_rule(machine, model, **keys)


def test_an_older_card_computes_a_bfloat16_model_in_float16_as_vllm_does() -> None:
    """`_resolve_auto_dtype` of vLLM falls back; Gemma may not, it would be float32."""
    small = dense(num_hidden_layers=8)
    pair = host(RTX_2080, RTX_2080)
    assert make(pair, hf(small)).chosen.runtime == "vllm"
    assert "bfloat16" in every_rule(pair, hf({**small, "model_type": "gemma2"}))


@pytest.mark.parametrize("rule", sorted(set(CASES) - {"only-one", "model-format"} - UNTOLD))
def test_a_rule_is_silent_where_nothing_is_wrong(rule: str) -> None:
    """One H100 with a small GGUF: no reason but the trivial ones."""
    assert rule not in every_rule(host(H100), gguf())


def test_every_rule_in_the_source_has_a_case() -> None:
    """The ids are read from `Reason("...")` in the rooms of the planner."""
    runtimes = ("vllm_rules", "sharding", "llama_cpp")
    names = ("rules", "planner", "choice/ranking", *(f"runtimes/{name}" for name in runtimes))
    found = {
        node.args[0].value
        for name in names
        for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "Reason"
        and isinstance(node.args[0], ast.Constant)
    }
    assert found <= set(CASES)


def test_latency_splits_a_model_worth_splitting() -> None:
    chosen = make(TWO).chosen
    assert (chosen.strategy, chosen.tensor_parallel_size) == (Strategy.TENSOR_PARALLEL, 2)


def test_latency_keeps_a_small_model_on_one_card() -> None:
    made = make(TWO, QWEN_0_6B)
    assert made.chosen.strategy is Strategy.SINGLE
    assert Strategy.TENSOR_PARALLEL in {item.candidate.strategy for item in made.rejected}


def test_copies_on_every_card_are_proposed_where_one_holds_the_model() -> None:
    chosen = make(FOUR, strategy="replicas", tensor_parallel_size=1).chosen
    assert (chosen.replicas, chosen.gpus) == (4, (0, 1, 2, 3))


def test_throughput_serves_teams_where_one_card_is_too_small() -> None:
    chosen = make(FOUR, hf(dense(num_hidden_layers=64)), objective="throughput").chosen
    assert (chosen.replicas, chosen.tensor_parallel_size) == (2, 2)


def test_context_takes_the_largest_cache() -> None:
    made = make(FOUR, objective="context")
    others = [r.candidate.kv_tokens or 0 for r in made.rejected if len(r.reasons) == 1]
    assert (made.chosen.kv_tokens or 0) >= 0.95 * max(others)
    assert len(made.chosen.gpus) == 4


def test_the_nvlinked_pair_is_taken_and_not_the_first_two() -> None:
    pairs = tuple(
        replace(pair, nvlinks=4 if (pair.a, pair.b) == (1, 3) else 0) for pair in FOUR.pairs
    )
    made = make(replace(FOUR, pairs=pairs), tensor_parallel_size=2, strategy="tensor_parallel")
    assert made.chosen.gpus == (1, 3)


def test_three_cards_fall_back_to_a_valid_size_and_say_so() -> None:
    made = make(host(*[RTX_3090] * 3))
    assert made.chosen.tensor_parallel_size == 2
    (three,) = [r for r in made.rejected if r.candidate.tensor_parallel_size == 3]
    assert three.reasons[0].rule == "attention-heads"
    assert "TP=2 is the next valid size" in (three.reasons[0].hint or "")


def test_mixed_memory_gets_a_partitioned_pipeline() -> None:
    made = make(host(RTX_3090, RTX_3060), hf(dense(num_hidden_layers=48)), context=16384)
    chosen = made.chosen
    assert chosen.strategy is Strategy.PIPELINE_PARALLEL and chosen.layers is not None
    assert sum(chosen.layers) == 48 and chosen.layers[0] != chosen.layers[1]
    large = chosen.layers[chosen.gpus.index(0)]
    assert large == max(chosen.layers)
    environment = {setting.name: setting.value for setting in made.environment}
    assert environment["VLLM_PP_LAYER_PARTITION"] == ",".join(str(n) for n in chosen.layers)


def test_the_lowest_compute_capability_comes_first() -> None:
    made = make(host(RTX_5090, RTX_3090), strategy="tensor_parallel")
    assert made.chosen.gpus == (1, 0)
    assert {s.name: s.value for s in made.environment}["CUDA_VISIBLE_DEVICES"] == "1,0"


def test_a_gguf_too_large_for_one_card_is_split_by_layer() -> None:
    chosen = make(TWO, gguf(block_mib=900), strategy="layer_split").chosen
    assert chosen.layers is not None and sum(chosen.layers) == 33
    rejected = make(TWO, gguf(block_mib=900)).rejected
    single = [r for r in rejected if r.candidate.strategy is Strategy.SINGLE]
    assert "memory-fit" in {reason.rule for r in single for reason in r.reasons}


def test_a_broken_card_is_left_out_with_its_error() -> None:
    made = make(host(RTX_3090, BROKEN, RTX_3090))
    assert made.chosen.gpus == (0, 2)
    assert any("Unknown Error" in warning.found for warning in made.warnings)


def test_mig_slices_are_left_out() -> None:
    made = make(host(replace(H100, mig=True), H100), gguf())
    assert made.chosen.gpus == (1,)
    assert any("MIG" in warning.found for warning in made.warnings)


def test_own_builds_serve_older_cards() -> None:
    model = hf(dense(torch_dtype="float16"))
    assert make(host(V100, V100), model, executable="/opt/vllm").chosen.runtime == "vllm"


def test_a_doubtful_grant_in_a_virtual_machine_is_turned_off() -> None:
    machine = host(RTX_3090, RTX_3090, p2p=P2p.OK, virtualization="kvm")
    names = {s.name: s.value for s in make(machine).environment}
    assert names["NCCL_P2P_DISABLE"] == "1"


def test_a_grant_on_bare_metal_is_tested_by_vllm() -> None:
    names = {s.name: s.value for s in make(host(RTX_3090, RTX_3090, p2p=P2p.OK)).environment}
    assert names["VLLM_SKIP_P2P_CHECK"] == "0" and "NCCL_P2P_DISABLE" not in names


def test_the_inventory_overrides_a_setting() -> None:
    made = make(TWO, env={"CUDA_DEVICE_ORDER": "FASTEST_FIRST"})
    found = next(s for s in made.environment if s.name == "CUDA_DEVICE_ORDER")
    assert (found.value, found.why) == ("FASTEST_FIRST", "set in the inventory")


def test_device_names_of_the_runtime_need_no_visible_devices() -> None:
    made = make(TWO, gguf(), runtime="llama.cpp", devices=["RPC0", "RPC1"], strategy="layer_split")
    assert made.environment == () and made.chosen.gpus == (0, 1)


def test_amd_cards_are_named_to_hip_only() -> None:
    names = [s.name for s in make(host(R9700, R9700), gguf()).environment]
    assert names == ["HIP_VISIBLE_DEVICES"]


CONTRADICTIONS: list[tuple[ModelSpec, dict[str, Any], str]] = [
    (hf(), {"tensor_parallel_size": 2, "gpus": [0]}, "2 x 1 ranks need 2 cards"),
    (hf(), {"tensor_parallel_size": 4}, "need 4 cards"),
    (hf(), {"strategy": "single", "tensor_parallel_size": 2}, "strategy single contradicts"),
    (hf(), {"strategy": "single", "gpus": [0, 1]}, "name one card"),
    (hf(), {"strategy": "layer_split"}, "needs a GGUF"),
    (hf(), {"strategy": "tensor_parallel", "tensor_parallel_size": 1}, "contradicts"),
    (
        hf(),
        {"strategy": "tensor_parallel", "pipeline_parallel_size": 2},
        "use tensor_pipeline_parallel",
    ),
    (
        hf(),
        {"strategy": "pipeline_parallel", "tensor_parallel_size": 2},
        "use tensor_pipeline_parallel",
    ),
    (hf(), {"strategy": "tensor_pipeline_parallel", "tensor_parallel_size": 1}, "contradicts"),
    (hf(), {"strategy": "tensor_split"}, "needs a GGUF: use tensor_parallel"),
    (gguf(), {"strategy": "tensor_pipeline_parallel"}, "split by layer"),
    (gguf(), {"expert_parallel": True}, "leave it out for a GGUF"),
    (gguf(), {"gpu_memory_utilization": 0.85}, "leave it out for a GGUF"),
    (hf(), {"expert_parallel": True}, "org/model is dense: leave it out"),
    (hf(), {"kv_cache_dtype": "q8_0"}, "which vLLM has not: use one of auto"),
    (gguf(), {"kv_cache_dtype": "fp8"}, "which llama.cpp has not: use one of f32"),
    (hf(), {"kv_cache_dtype": "fp8", "flags": {"--kv-cache-dtype": "fp8"}}, "say the same"),
    (hf(), {"flags": {"--enable-expert-parallel": None}}, "set the key 'expert_parallel'"),
    (hf(), {"strategy": "pipeline_parallel", "pipeline_parallel_size": 1}, "contradicts"),
    (hf(), {"tensor_parallel_size": 1, "pipeline_parallel_size": 1, "gpus": [0, 1]}, "do not use"),
    (hf(), {"runtime": "llama.cpp"}, "needs a GGUF"),
    (hf(), {"layers": [20, 20]}, "add up to 40"),
    (hf(), {"layers": [8, 8, 16], "pipeline_parallel_size": 2}, "3 stages"),
    (hf(), {"layers": [16, 16], "gpus": [1]}, "one count per card"),
    (hf(), {"layers": [16, 16], "strategy": "replicas"}, "does not split by layer"),
    (hf(), {"gpus": [0, 0]}, "twice"),
    (hf(), {"gpus": [7]}, "names GPU 7, tower has GPU 0, 1: name those"),
    (hf(), {"gpus": []}, "empty"),
    (hf(), {"devices": ["CUDA0"]}, "pin gpus"),
    (hf(), {"flags": {"--tensor-parallel": "2"}}, "write --tensor-parallel-size"),
    (hf(), {"flags": {"--port": "1"}}, "written from the plan: set the key 'port' instead"),
    (gguf(), {"flags": {"--ubatch-size": "many"}}, "--ubatch-size many, needs a whole number"),
    (gguf(), {"flags": {"--tensor-split": "1,0"}}, "set the key 'layers' instead"),
    (hf(), {"flags": {"--max-num-seqs": "many"}}, "--max-num-seqs many, needs a whole number"),
    (gguf(), {"runtime": "vllm"}, "cannot serve a GGUF"),
    (gguf(), {"tensor_parallel_size": 2}, "split by layer"),
    (gguf(), {"layers": [16, 16]}, "33 units"),
    (gguf(), {"strategy": "layer_split", "pipeline_parallel_size": 2}, "pin layers or gpus"),
    (gguf(), {"devices": ["A", "A"]}, "twice"),
    (gguf(), {"devices": ["A"], "gpus": [0, 1]}, "one name per card"),
]


@pytest.mark.parametrize(("model", "keys", "said"), CONTRADICTIONS)
def test_contradicting_pins_are_one_line(model: ModelSpec, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(WishError) as caught:
        make(TWO, model, **keys)
    assert said in str(caught.value) and "\n" not in str(caught.value)


PINS: list[tuple[ModelSpec, dict[str, Any]]] = [
    (hf(), {"strategy": "pipeline_parallel"}),
    (hf(), {"strategy": "pipeline_parallel", "layers": [10, 22]}),
    (hf(), {"gpus": [3]}),
    (hf(), {"gpus": [2, 1]}),
    (hf(), {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}),
    (hf(), {"strategy": "tensor_pipeline_parallel", "layers": [10, 22]}),
    (hf(), {"gpus": [3, 1, 0, 2], "strategy": "tensor_pipeline_parallel"}),
    (MIXTURE, {"expert_parallel": True, "strategy": "tensor_parallel"}),
    (hf(), {"gpu_memory_utilization": 0.85}),
    (gguf(), {"strategy": "layer_split", "layers": [3, 30]}),
    (gguf(), {"strategy": "layer_split", "gpus": [3, 0]}),
    (gguf(), {"runtime": "llama.cpp", "strategy": "replicas"}),
]


@pytest.mark.parametrize(("model", "keys"), PINS)
def test_pins_are_obeyed_and_named(model: ModelSpec, keys: dict[str, Any]) -> None:
    made = make(FOUR, model, **keys)
    for key, value in keys.items():
        found = made.chosen.gpus if key == "gpus" else getattr(made.chosen, key)
        assert found == (tuple(value) if isinstance(value, list) else value)
    assert made.pinned == tuple(k for k in made.pinned if k in keys) and set(made.pinned) == set(
        keys
    )


def test_no_plan_is_one_line_with_the_nearest_way_and_what_to_do() -> None:
    with pytest.raises(NoPlan) as caught:
        make(TWO, llama_70b())
    text = str(caught.value)
    assert text.startswith("tower: no plan for chat: none of ")
    assert "to serve org/model holds; nearest is vLLM " in text and " on GPU 0, 1: GPU " in text
    assert text.endswith("; do: take a smaller quantization or more cards") and "\n" not in text
    assert len(caught.value.rejected) > 4


def test_a_host_without_a_usable_card_says_why() -> None:
    with pytest.raises(NoPlan, match="no GPU"):
        make(host())
    with pytest.raises(NoPlan, match="no plan for chat: 1 card, none usable; GPU 0: Unable"):
        make(host(BROKEN))


def test_sixteen_cards_are_planned_in_seconds() -> None:
    pairs = tuple(
        GpuPair(p.a, p.b, Path.PIX if p.a // 4 == p.b // 4 else Path.SYS, 0, P2p.UNKNOWN)
        for p in host(*[RTX_3090] * 16).pairs
    )
    started = time.monotonic()
    made = make(replace(host(*[RTX_3090] * 16), pairs=pairs), tensor_parallel_size=4)
    assert time.monotonic() - started < 20
    assert len({index // 4 for index in made.chosen.gpus[:4]}) == 1


cards = st.sampled_from(
    [RTX_3090, RTX_4090, RTX_5090, RTX_3060, H100, V100, R9700, BROKEN, IN_USE, RTX_2080]
)
machines = st.builds(
    lambda gpus, path, nvlinks, p2p, width: host(
        *gpus, path=path, nvlinks=nvlinks, p2p=p2p, width=width
    ),
    st.lists(cards, max_size=5),
    st.sampled_from([None, *Path]),
    st.sampled_from([0, 4]),
    st.sampled_from([None, *P2p]),
    st.sampled_from([1, 4, 16]),
)
models = st.sampled_from(
    [hf(), QWEN_0_6B, llama_70b(), awq(), fp8(), gguf(), gguf(block_mib=900), gguf(blocks=1)]
)
wished = st.fixed_dictionaries(
    {
        "objective": st.sampled_from(["latency", "throughput", "context"]),
        "context": st.sampled_from([1024, 8192, 131072]),
        "concurrency": st.sampled_from([1, 7, 64]),
    },
    optional={
        "strategy": st.sampled_from([str(s) for s in Strategy]),
        "tensor_parallel_size": st.integers(1, 4),
        "gpus": st.lists(st.integers(0, 4), max_size=3),
        "gpu_memory_utilization": st.floats(0.1, 1.0),
        "executable": st.just("/opt/runtime"),
    },
)


def attempt(machine: Host, model: ModelSpec, wish: Wish) -> Plan | str:
    try:
        return plan(machine, model, wish)
    except (NoPlan, WishError) as error:
        return str(error)


@given(machines, models, wished)
def test_a_plan_fits_obeys_its_rules_and_repeats(
    machine: Host, model: ModelSpec, keys: dict[str, Any]
) -> None:
    (wish,) = wishes({"chat": {"model": model.name, **keys}})
    made = attempt(machine, model, wish)
    assert attempt(machine, model, wish) == made
    if isinstance(made, str):
        assert made and "\n" not in made
        return
    assert made.chosen.memory and all(memory.fits for memory in made.chosen.memory)
    assert all(machine.gpu(index) in machine.usable for index in made.chosen.gpus)
    assert len(set(made.chosen.gpus)) == len(made.chosen.gpus) == len(made.gpu_uuids)
    assert made.chosen not in [item.candidate for item in made.rejected]
    assert all(item.reasons for item in made.rejected) and made.reasons


def without_gpu(machine: Host, index: int) -> Host:
    gpus = tuple(g for g in machine.gpus if g.index != index)
    return replace(machine, gpus=gpus)


def test_a_host_whose_indices_have_gaps_is_planned() -> None:
    assert make(without_gpu(FOUR, 1), strategy="replicas").chosen.gpus == (0, 2, 3)


def test_a_card_with_unknown_memory_is_not_planned() -> None:
    unknown = Gpu(0, name="?", compute_capability=(8, 6))
    machine = host(RTX_3090, RTX_3090)
    machine = replace(machine, gpus=(machine.gpus[0], replace(unknown, index=1)))
    assert make(machine).chosen.gpus == (0,)
