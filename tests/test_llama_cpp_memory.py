"""llama.cpp's placement and memory: against logs of real machines, against the program itself."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.errors import ModelError
from multigpu.hardware import Gpu, Host
from multigpu.memory import MIB
from multigpu.model.gguf_model import from_gguf
from multigpu.parse.engines.llama_cpp_log import read_llama_cpp_log
from multigpu.pinned_ways import layers as check_layers
from multigpu.pinned_ways import strategy as check_strategy
from multigpu.placement import counts, device_of_unit
from multigpu.plan import Candidate, ModelSpec, Service, Setting, Source, Strategy, Wish
from multigpu.runtimes import llama_cpp, llama_cpp_fit
from multigpu.runtimes import llama_cpp_memory as g
from multigpu.runtimes.llama_cpp_facts import facts_of
from multigpu.runtimes.llama_cpp_profile import COPIES, profile
from multigpu.runtimes.llama_cpp_settings import Settings, Slots
from multigpu.runtimes.llama_cpp_shares import cut, shares
from tests.machines import (
    H100,
    R9700,
    RTX_3060,
    RTX_3090,
    RTX_4090,
    SHARED,
    gguf,
    gguf_fields,
    gguf_tensors,
    host,
)

LOGS = SHARED / "rigs/f_serving_log"
# Memory of the cards in the order of the log; none of the command lines has --tensor-split.
MEMORY = {
    "llamacpp_2x_rtx3090_qwen3_235b_oom.txt": (24576, 24576),
    "llamacpp_2x_rtx5090_qwen3_235b_ok.txt": (32607, 32607),
    "llamacpp_2x_rtxpro6000_ds_r1.txt": (97887, 97887),
    "llamacpp_4x_a40_llama3_8b.txt": (46068,) * 4,
    "llamacpp_5090_3090_3090_ds_r1_windows.txt": (32607, 24576, 24576),
    "llamacpp_6x_rtx3090_llama3_8b.txt": (24576,) * 6,
    "llamacpp_8x_rtx4090_llama3_8b.txt": (24564,) * 8,
}


def logs() -> list[pathlib.Path]:
    return sorted(LOGS.glob("llamacpp_*"))


def wish(**keys: Any) -> Wish:
    return Wish("chat", "models/chat.gguf", **keys)


@pytest.mark.parametrize("path", logs(), ids=lambda path: path.stem)
def test_layers_lie_where_the_log_of_a_real_machine_has_them(path: pathlib.Path) -> None:
    """Every block keeps as much of the KV cache, so the cache of a card counts its blocks."""
    log = read_llama_cpp_log(path.read_text(encoding="utf-8", errors="replace")).value
    assert log.llama_cpp is not None and log.llama_cpp.layers_total is not None
    held = [d.kv_cache_mib for d in log.devices if d.device != "CUDA_Host" and d.kv_cache_mib]
    units = log.llama_cpp.layers_total
    block = sum(held) / (units - 1)
    found = [round(mib / block) for mib in held]
    split = MEMORY[path.name]
    placed = list(counts(device_of_unit(split, units), len(split)))
    placed[-1] -= 1  # the output layer
    assert found == placed


def test_there_is_a_test_for_every_log() -> None:
    if not logs():
        pytest.skip("no captured logs here")
    assert {path.name for path in logs()} == set(MEMORY)


TWO = host(RTX_3090, RTX_3090)


def split(
    model: ModelSpec, wished: Wish, layers: tuple[int, ...], machine: Host = TWO
) -> Candidate:
    gpus = tuple(range(len(layers)))
    way = Candidate("llama.cpp", Strategy.LAYER_SPLIT, gpus, layers=layers)
    return g.sized(way, machine, model, wished)


def single(model: ModelSpec, wished: Wish, card: Gpu = RTX_3090) -> Candidate:
    return g.sized(Candidate("llama.cpp", Strategy.SINGLE, (0,)), host(card), model, wished)


BLOCK_KV = 2 * 8 * 128 * 2 / MIB  # one token in one block of the model of tests/machines.py


def test_every_wished_request_has_a_cache_of_its_own() -> None:
    sized = split(gguf(), wish(context=4096, concurrency=2), (17, 16))
    assert (sized.kv_tokens, sized.max_num_seqs, sized.kv_sequences) == (8192, 2, 2)
    assert [x.kv_cache_mib for x in sized.memory] == [17 * 8192 * BLOCK_KV, 15 * 8192 * BLOCK_KV]
    assert [x.weights_mib for x in sized.memory] == [17 * 128, 15 * 128 + 400]


def test_without_a_wished_concurrency_four_slots_share_one_context() -> None:
    sized = single(gguf(), wish(context=4096))
    assert (sized.kv_tokens, sized.max_num_seqs, sized.kv_sequences) == (4096, 4, 1)


def test_requests_that_do_not_fit_wait_and_one_always_has_the_whole_context() -> None:
    sized = single(gguf(), wish(context=100_000, concurrency=64))
    assert sized.memory[0].fits and sized.max_num_seqs == 64
    assert sized.kv_tokens is not None and sized.kv_tokens % 256 == 0
    assert 100_000 <= sized.kv_tokens < 200_000
    spare = sized.memory[0].capacity_mib - sized.memory[0].total_mib
    assert spare < 256 * 33 * BLOCK_KV + 8


def test_the_context_is_rounded_up_to_256_tokens() -> None:
    sized = single(gguf(), wish(context=1000, concurrency=3))
    assert (sized.kv_tokens, sized.max_model_len) == (3 * 1024, 1000)


def test_a_context_beyond_the_card_does_not_fit() -> None:
    assert not single(gguf(), wish(context=131072), RTX_3060).memory[0].fits


def test_the_largest_context_that_fits_does_fit() -> None:
    limit = single(gguf(), wish(context=4096), RTX_3060).context_limit
    assert limit is not None and 4096 < limit < 131072
    assert single(gguf(), wish(context=limit), RTX_3060).memory[0].fits
    assert not single(gguf(), wish(context=limit + 1024), RTX_3060).memory[0].fits


def test_keys_and_values_may_have_different_types() -> None:
    flags = {"--cache-type-k": "q8_0", "--cache-type-v": "q4_0"}
    plain = single(gguf(), wish()).memory[0].kv_cache_mib
    found = single(gguf(), wish(flags=flags)).memory[0].kv_cache_mib
    assert found == pytest.approx(plain * (34 + 18) / 2 / 64, rel=0.01)
    assert single(gguf(), wish(kv_cache_dtype="q8_0")).memory[0].kv_cache_mib < plain


def test_inputs_are_kept_once_per_copy_of_a_pipeline() -> None:
    p = profile(gguf(), Settings())
    slots = Slots(65536)
    one, two = p.part((0, 33), 1), p.part((0, 17), 2)
    masks = 65536 * 512 * 2 / MIB
    assert two.compute(slots) - one.compute(slots) > (COPIES - 1) * masks
    assert p.part((0, 17), 2, 1).compute(slots) < two.compute(slots) - (COPIES - 1) * masks


def test_without_flash_attention_scores_of_every_head_are_held() -> None:
    slots = Slots(32768)
    plain = profile(gguf(), Settings(flash_attn=False)).part((0, 33), 1).compute(slots)
    assert plain - profile(gguf(), Settings()).part((0, 33), 1).compute(slots) > (
        0.9 * 32 * 32768 * 512 * 4 / MIB
    )


def renamed(architecture: str, **more: object) -> ModelSpec:
    """The model of tests/machines.py under another architecture."""
    fields = {key.replace("llama.", f"{architecture}."): v for key, v in gguf_fields().items()}
    fields |= {"general.architecture": architecture, **more}
    return from_gguf(
        fields, gguf_tensors(), name="x", source=Source.CONTROLLER, path="x", size_bytes=1
    )


def sliding() -> ModelSpec:
    return renamed("gemma3", **{"gemma3.attention.sliding_window": 1024})


def test_a_window_keeps_its_tokens_and_a_step_for_every_slot() -> None:
    """`GGML_PAD(min(size_base, n_swa*(unified ? n_seq_max : 1) + n_ubatch), 256)`."""
    p = profile(sliding(), Settings())
    assert p.cells(Slots(32768)) == 1536
    assert p.cells(Slots(32768, 4, unified=True)) == 4 * 1024 + 512
    assert p.cells(Slots(1024)) == 1024
    assert sum(block.window > 0 for block in p.blocks) == 27


CARDS = st.sampled_from([RTX_3060, RTX_3090, RTX_4090, H100])


@given(
    st.lists(CARDS, min_size=1, max_size=4),
    st.integers(1, 60),
    st.integers(2, 131072),
    st.one_of(st.none(), st.integers(1, 64)),
)
def test_parts_add_up_and_no_card_holds_more_than_its_share(
    cards: list[Gpu], blocks: int, context: int, concurrency: int | None
) -> None:
    machine, model = host(*cards), gguf(blocks)
    wished = wish(context=context, concurrency=concurrency)
    for found in llama_cpp.candidates(machine, model, wished):
        if found.strategy is Strategy.LAYER_SPLIT and found.memory:
            assert sum(found.layers or ()) == blocks + 1
            held = sum(memory.weights_mib for memory in found.memory)
            assert 0 <= held - blocks * 128 - 400 <= len(cards)
        if all(memory.fits for memory in found.memory) and found.memory:
            assert found.context_limit is not None and found.kv_tokens is not None
            assert found.kv_tokens >= context
            assert found.max_num_seqs is not None and found.max_num_seqs >= 1


@given(st.integers(8192, 98304), st.integers(0, 32768), st.integers(2, 131072), st.integers(1, 8))
def test_more_memory_never_makes_it_fit_less(
    memory: int, more: int, context: int, concurrency: int
) -> None:
    wished = wish(context=context, concurrency=concurrency)
    small, large = (
        single(gguf(), wished, replace(RTX_3090, memory_mib=mib)) for mib in (memory, memory + more)
    )
    assert large.memory[0].fits or not small.memory[0].fits
    assert (large.kv_tokens or 0) >= (small.kv_tokens or 0) or not small.memory[0].fits
    assert (large.context_limit or 0) >= (small.context_limit or 0)


@given(st.permutations(range(3)))
def test_like_cards_may_change_places(order: list[int]) -> None:
    machine = host(RTX_3090, RTX_3090, RTX_3090)
    way = Candidate("llama.cpp", Strategy.LAYER_SPLIT, tuple(order))
    layers = g.layers(way, machine, gguf(), wish())
    assert layers == g.layers(replace(way, gpus=(0, 1, 2)), machine, gguf(), wish())
    assert g.sized(replace(way, layers=layers), machine, gguf(), wish()).memory == (
        g.sized(replace(way, layers=layers, gpus=(0, 1, 2)), machine, gguf(), wish()).memory
    )


def offloaded(**keys: Any) -> Candidate:
    big = gguf(block_mib=1024)
    way = Candidate("llama.cpp", Strategy.SINGLE, (0,))
    return g.sized(way, host(RTX_3090), big, wish(**keys))


def test_nothing_is_offloaded_unless_it_is_wished() -> None:
    assert offloaded().cpu_offload_mib == 0 and not offloaded().memory[0].fits


def test_as_few_layers_as_needed_stay_in_the_hosts_memory() -> None:
    found = offloaded(cpu_offload_gib=30)
    assert found.memory[0].fits and found.gpu_layers is not None
    assert found.cpu_offload_mib == (33 - found.gpu_layers) * 1024
    one_more = replace(found, gpu_layers=found.gpu_layers + 1)
    assert not g._sized(one_more, host(RTX_3090), gguf(block_mib=1024), wish()).memory[0].fits
    assert not offloaded(cpu_offload_gib=2).memory[0].fits


def tensor_ways(model: ModelSpec, machine: Host = TWO, **keys: Any) -> list[Candidate]:
    found = llama_cpp.candidates(machine, model, wish(**keys))
    return [way for way in found if way.strategy is Strategy.TENSOR_SPLIT]


def rules(model: ModelSpec, **keys: Any) -> set[str]:
    (way,) = tensor_ways(model, strategy=Strategy.TENSOR_SPLIT, **keys)
    return {reason.rule for reason in llama_cpp.objections(way, TWO, model, wish(**keys))}


def test_every_layer_over_two_like_cards_takes_half_of_each() -> None:
    (way,) = tensor_ways(gguf())
    alone = single(gguf(), wish())
    assert way.gpus == (0, 1)
    assert way.memory[0].weights_mib == pytest.approx(alone.memory[0].weights_mib / 2, abs=1)
    assert way.memory[0].kv_cache_mib == alone.memory[0].kv_cache_mib / 2


def test_unlike_cards_and_experts_are_not_split_by_tensor() -> None:
    assert tensor_ways(gguf(), host(RTX_3090, R9700)) == []
    assert tensor_ways(gguf(**{"llama.expert_count": 8, "llama.expert_used_count": 2})) == []


def test_what_llama_cpp_cannot_split_by_tensor_is_refused_with_the_reason() -> None:
    assert rules(gguf()) == set()
    assert rules(gguf(), flags={"--flash-attn": "off"}) == {"tensor-split-flags"}
    assert rules(gguf(), kv_cache_dtype="q8_0") == {"tensor-split-flags"}
    assert rules(replace(gguf(), model_type="olmo2")) == {"tensor-split-model"}


def test_a_cache_that_would_cross_cards_is_refused() -> None:
    facts = replace(facts_of(gguf()), shared_cache=True)
    way = Candidate("llama.cpp", Strategy.LAYER_SPLIT, (0, 1), layers=(17, 16))
    found = llama_cpp.objections(way, TWO, replace(gguf(), gguf=facts), wish())
    assert [reason.rule for reason in found] == ["shared-cache"]
    alone = replace(way, strategy=Strategy.SINGLE, gpus=(0,), layers=None)
    assert not list(llama_cpp.objections(alone, TWO, replace(gguf(), gguf=facts), wish()))


@pytest.mark.parametrize("architecture", ["deepseek4", "t5", "qwen4exp"])
def test_architectures_whose_cache_is_not_known_are_refused_by_name(architecture: str) -> None:
    with pytest.raises(ModelError, match=architecture):
        renamed(architecture)


def sized_for(blocks: int, heads: int, kv: int, dim: int, ffn: int, width: int) -> ModelSpec:
    """A dense model of a published shape."""
    fields = gguf_fields() | {
        "llama.block_count": blocks,
        "llama.embedding_length": width,
        "llama.feed_forward_length": ffn,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv,
        "llama.attention.key_length": dim,
        "llama.attention.value_length": dim,
    }
    names = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm")
    tensors = [(f"blk.{i}.{n}.weight", MIB, 1) for i in range(blocks) for n in names]
    tensors += [(f"blk.{i}.ffn_{n}.weight", MIB, 1) for i in range(blocks) for n in GATED]
    tensors += [("output.weight", MIB, 1), ("token_embd.weight", MIB, 1)]
    return from_gguf(fields, tensors, name="x", source=Source.CONTROLLER, path="x", size_bytes=1)


GATED = ("gate", "up", "down")
LLAMA_8B = (32, 32, 8, 128, 14336, 4096)
LLAMA_70B = (80, 64, 8, 128, 28672, 8192)
QWEN3_32B = (64, 64, 8, 128, 25600, 5120)
NEMO = (40, 32, 8, 160, 13824, 5120)
# Compute buffers in MiB that llama-server of llama-cpp-python 0.3.36 printed with CUDA devices of
# an H200 (driver 580.159.04), ours. Units per card, the card, ubatch, context, slots, one cache for
# all of them, type of the cache. NEMO stands for heads that no kernel is for (StableLM-2-12B).
ON_CUDA = [
    (LLAMA_8B, (19, 14), 0, 512, Slots(8192), "f16", 172),
    (LLAMA_8B, (19, 14), 0, 512, Slots(131072), "q8_0", 1088),
    (LLAMA_8B, (13, 8, 12), 2, 512, Slots(131072), "q8_0", 1120),
    (LLAMA_70B, (46, 35), 0, 512, Slots(131072), "q8_0", 1152),
    (LLAMA_70B, (29, 20, 32), 1, 512, Slots(131072), "q8_0", 1216),
    (QWEN3_32B, (37, 28), 0, 512, Slots(131072), "q8_0", 1116),
    (QWEN3_32B, (23, 16, 26), 2, 512, Slots(131072), "q8_0", 1156),
    (NEMO, (23, 18), 0, 512, Slots(8192), "f16", 1061),
    (NEMO, (23, 18), 1, 512, Slots(32768), "f16", 861),
    (NEMO, (15, 10, 16), 1, 512, Slots(32768, 4), "f16", 581),
    (NEMO, (23, 18), 0, 2048, Slots(32768), "f16", 4244),
    (NEMO, (15, 10, 16), 2, 2048, Slots(32768), "f16", 3124),
]


@pytest.mark.parametrize(("shape", "units", "card", "ubatch", "slots", "kind", "mib"), ON_CUDA)
def test_compute_buffers_are_those_that_a_cuda_card_printed(
    shape: tuple[int, ...],
    units: tuple[int, ...],
    card: int,
    ubatch: int,
    slots: Slots,
    kind: str,
    mib: int,
) -> None:
    p = profile(sized_for(*shape), Settings(ubatch, True, kind, kind))
    start = sum(units[:card])
    found = p.part((start, start + units[card]), len(units)).compute(slots)
    assert found == pytest.approx(mib, rel=0.05, abs=32)


def test_a_cache_that_the_kernel_reads_as_it_is_takes_no_second_place() -> None:
    slots, model = Slots(131072), sized_for(*LLAMA_8B)
    parts = {
        (device, kind): profile(model, Settings(k_type=kind, v_type=kind, device=device))
        .part((0, 33), 1)
        .compute(slots)
        for device in ("cuda", "rpc")
        for kind in ("f16", "q8_0")
    }
    assert parts["rpc", "q8_0"] == parts["rpc", "f16"] == parts["cuda", "f16"]
    assert parts["cuda", "q8_0"] > parts["cuda", "f16"] + 400


def test_flash_attention_is_left_out_where_no_kernel_is_for_the_heads() -> None:
    assert profile(sized_for(*LLAMA_8B), Settings()).flash_attn
    assert not profile(sized_for(*NEMO), Settings()).flash_attn
    assert profile(sized_for(*NEMO), Settings(device="rpc")).flash_attn


# Largest card's weights (share of all), KV cache and compute buffer as llama-server of
# llama-cpp-python 0.3.36 printed them with `--split-mode tensor` on an H200 (driver 580.159.04),
# two and three CUDA devices; ours.
@pytest.mark.parametrize(
    ("heads", "ratios", "blocks", "printed", "whole"),
    [
        (8, (3, 2), 28, 504.0, 896.0),
        (8, (3, 2), 32, 576.0, 1024.0),
        (4, (3, 2), 48, 480.0, 768.0),
        (8, (3, 2), 64, 1152.0, 2048.0),
        (4, (1, 1), 28, 224.0, 448.0),
        (4, (3, 2), 28, 1120.0, 1792.0),
        (4, (1, 1, 1), 28, 152.0, 448.0),
        (4, (1, 1, 1), 48, 256.0, 768.0),
    ],
)
def test_a_tensor_split_cuts_at_whole_kv_heads(
    heads: int, ratios: tuple[int, ...], blocks: int, printed: float, whole: float
) -> None:
    model = sized_for(blocks, 8 * heads, heads, 128, 1024 * heads, 1024 * heads)
    found = max(share.attention for share in shares(model, ratios))
    assert found * whole == pytest.approx(printed, abs=1)


@given(
    st.integers(1, 4096),
    st.sampled_from([1, 2, 32, 128]),
    st.lists(st.integers(1, 50), min_size=2, max_size=8),
    st.integers(0, 7),
)
def test_a_cut_leaves_nothing_out(
    size: int, granule: int, ratios: list[int], rotation: int
) -> None:
    found = cut(size, granule, ratios, rotation % len(ratios))
    assert sum(found) == size and min(found) >= 0
    whole = [part for part in found if part % granule]
    assert len(whole) <= 1


def test_shares_of_a_pinned_tensor_split_are_those_of_the_wish() -> None:
    keys: dict[str, Any] = {"strategy": Strategy.TENSOR_SPLIT, "gpus": (0, 1)}
    (way,) = tensor_ways(gguf(), layers=(3, 1), **keys)
    assert way.layers == (3, 1)
    assert way.memory[0].kv_cache_mib == 3 * way.memory[1].kv_cache_mib
    assert check_layers(TWO, gguf(), wish(layers=(3, 1), **keys)) is None
    assert "one share per card" in (check_layers(TWO, gguf(), wish(layers=(1, 1, 1), **keys)) or "")


def test_a_size_without_a_place_names_the_strategy_that_was_wished() -> None:
    wished = wish(strategy=Strategy.LAYER_SPLIT, tensor_parallel_size=2)
    assert "strategy layer_split has no" in (check_strategy(TWO, gguf(), wished) or "")


def cache_rules(model: ModelSpec, **keys: Any) -> set[str]:
    way = Candidate("llama.cpp", Strategy.SINGLE, (0,))
    return {reason.rule for reason in llama_cpp.objections(way, TWO, model, wish(**keys))}


def test_a_quantized_cache_needs_heads_and_flash_attention_for_it() -> None:
    odd = sized_for(32, 32, 32, 80, 8192, 2560)
    assert cache_rules(sized_for(*LLAMA_8B), kv_cache_dtype="q8_0") == set()
    assert cache_rules(odd) == set()
    assert cache_rules(odd, kv_cache_dtype="q8_0") == {"kv-cache-heads"}
    assert cache_rules(sized_for(*NEMO), kv_cache_dtype="q8_0") == {"kv-cache-heads"}
    off = {"--flash-attn": "off"}
    assert cache_rules(gguf(), kv_cache_dtype="q4_0", flags=off) == {"kv-cache-flash"}
    assert cache_rules(gguf(), flags=off | {"--cache-type-k": "q8_0"}) == set()


def mixture() -> ModelSpec:
    return replace(gguf(), layers_mib=(1024.0,) * 32, experts_mib=(900.0,) * 32, num_experts=64)


def test_experts_stay_in_the_hosts_memory_before_anything_else() -> None:
    way = Candidate("llama.cpp", Strategy.SINGLE, (0,))
    found = g.sized(way, host(RTX_3090), mixture(), wish(cpu_offload_gib=30))
    assert found.memory[0].fits and found.gpu_layers is None
    assert found.cpu_moe_layers > 0
    assert found.cpu_offload_mib == found.cpu_moe_layers * 900
    fewer = replace(found, cpu_moe_layers=found.cpu_moe_layers - 1)
    assert not g._sized(fewer, host(RTX_3090), mixture(), wish()).memory[0].fits


def test_the_first_card_keeps_room_for_weights_that_a_long_prompt_brings() -> None:
    counts = (17, 16)
    way = Candidate("llama.cpp", Strategy.LAYER_SPLIT, (0, 1), layers=counts, cpu_moe_layers=20)
    first, second = g._sized(way, TWO, mixture(), wish()).memory
    flags = {"--no-op-offload": None}
    without, other = g._sized(way, TWO, mixture(), wish(flags=flags)).memory
    assert first.activations_mib - without.activations_mib == pytest.approx(900, abs=1)
    assert second.activations_mib == other.activations_mib


@given(st.integers(1, 40), st.integers(600, 2048), st.booleans())
def test_no_fewer_weights_in_the_hosts_memory_would_do(gib: int, block: int, experts: bool) -> None:
    model = gguf(block_mib=block)
    if experts:
        model = replace(model, experts_mib=(block * 0.9,) * 32, num_experts=64)
    way = Candidate("llama.cpp", Strategy.LAYER_SPLIT, (0, 1))
    found = g.sized(way, TWO, model, wish(cpu_offload_gib=gib))
    assert found.cpu_offload_mib <= gib * 1024
    for count in range(1, found.cpu_moe_layers):
        fewer = replace(way, cpu_moe_layers=count)
        fewer = replace(fewer, layers=g.layers(fewer, TWO, model, wish()))
        tried = g._sized(fewer, TWO, model, wish())
        assert not (tried.memory and all(memory.fits for memory in tried.memory))


def test_tensors_outside_of_the_blocks_lie_where_llama_cpp_puts_them() -> None:
    """Seen with gemma3n: its projections of the stream at the end, those per layer at the start."""
    more = [("altup_proj.weight", 48 * MIB), ("per_layer_model_proj.weight", 70 * MIB)]
    plain, found = (
        from_gguf(
            gguf_fields(),
            [*gguf_tensors(), *tensors],
            name="x",
            source=Source.CONTROLLER,
            path="x",
            size_bytes=1,
        )
        for tensors in ([], more)
    )
    assert found.output_mib - plain.output_mib == 48
    assert found.layers_mib[0] - plain.layers_mib[0] == 70
    assert found.embedding_mib == plain.embedding_mib


@pytest.mark.parametrize("architecture", ["bert", "modern-bert", "dream", "llada-moe"])
def test_what_writes_no_text_is_refused_as_that(architecture: str) -> None:
    with pytest.raises(ModelError, match=rf"{architecture}: an? (encoder|diffusion model)"):
        renamed(architecture)


def service() -> Service:
    argv = ("/opt/r/llama.cpp/bin/llama-server", "--model", "m.gguf", "--ctx-size", "8192")
    flags = ("--parallel", "1", "--metrics", "--tensor-split", "17,16", "--port", "8000")
    cards = (Setting("CUDA_VISIBLE_DEVICES", "0,1", "the planned cards"),)
    return Service("chat", argv + flags, cards, 8000, "/health", (0, 1))


def test_a_host_is_asked_with_the_flags_that_decide_memory() -> None:
    asked = llama_cpp_fit.command(service())
    assert asked.startswith("if test -x /opt/r/llama.cpp/bin/llama-fit-params; then env ")
    assert "LD_LIBRARY_PATH=/opt/r/llama.cpp/lib CUDA_VISIBLE_DEVICES=0,1 " in asked
    assert " timeout -k 10 60 " in asked
    assert "--model m.gguf --ctx-size 8192 --parallel 1 --tensor-split 17,16 --fit off" in asked
    assert "--metrics" not in asked and "--port" not in asked


def test_its_answer_stands_beside_the_plan() -> None:
    planned = split(gguf(), wish(), (17, 16)).memory
    printed = "CUDA0 2170 2176 150 \nCUDA1 2318 1920 390 \nHost 300 0 70 \n"
    answer = llama_cpp_fit.asked(service(), planned, printed)
    assert answer is not None and len(answer.lines) == 2
    assert answer.lines[0].startswith("chat: CUDA0 weights, KV and compute planned 2,176 + ")
    assert answer.lines[1].endswith("llama-fit-params on the host says 2,318 + 1,920 + 390 MiB")
    assert llama_cpp_fit.asked(service(), planned, "") is None


@given(st.text())
def test_no_answer_of_a_host_raises(printed: str) -> None:
    llama_cpp_fit.asked(service(), split(gguf(), wish(), (17, 16)).memory, printed)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from benchmarks.llama_cpp.program import devices, unpacked, wheel

    found = wheel()
    if found is None:
        pytest.skip("no llama.cpp wheel in the cache: scripts/build_llama_wheel.py builds one")
    with devices(unpacked(found, tmp_path_factory.mktemp("llama")), 3) as llama:
        yield llama


@pytest.mark.process
@pytest.mark.parametrize(
    "name", ["Qwen2.5-7B", "gpt-oss-20b", "GLM-4.7-Flash", "Qwen3.5-27B", "Gemma-3-27B"]
)
def test_memory_is_what_llama_server_itself_prints(
    program: Any, name: str, tmp_path: pathlib.Path
) -> None:
    from benchmarks.llama_cpp_memory import compared

    wrong = [row for row in compared(program, tmp_path, [name]) if not row.right]
    assert not wrong, wrong[:3]


@pytest.mark.process
def test_the_command_asks_a_real_llama_cpp_and_its_answer_is_read(
    program: Any, tmp_path: pathlib.Path
) -> None:
    """A shell runs what a host is asked with, two ggml-rpc-server processes being the cards."""
    from benchmarks.llama_cpp.architectures import MODELS
    from benchmarks.llama_cpp.files import write
    from multigpu.store.gguf_files import from_header

    path = tmp_path / "a model's file.gguf"
    write(program.library, path, *MODELS["Qwen2.5-7B"], tied=False)
    model = from_header("x", path)
    places = ",".join(f"127.0.0.1:{port}" for port in program.ports[:2])
    argv = (
        *(str(program.folder / "bin/llama-server"), "--rpc", places, "--model", str(path)),
        *("--ctx-size", "8192", "--parallel", "1", "--no-kv-unified", "--split-mode", "layer"),
        *("--gpu-layers", "all", "--fit", "off", "--flash-attn", "auto", "--tensor-split", "17,12"),
    )
    asking = Service("chat", argv, (Setting("GGML_NO_BACKTRACE", "1", ""),), 8000, "/", (0, 1))
    command = llama_cpp_fit.command(asking)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=90)
    planned = split(model, wish(context=8192, concurrency=1), (17, 12)).memory
    answer = llama_cpp_fit.asked(asking, planned, done.stdout)
    assert answer is not None, done
    for memory, device in zip(planned, answer.answered, strict=True):
        assert device.model_mib == pytest.approx(memory.weights_mib, abs=2)
        assert device.context_mib == pytest.approx(memory.kv_cache_mib, abs=2)


@pytest.mark.process
def test_a_host_without_the_program_answers_nothing() -> None:
    command = llama_cpp_fit.command(service())
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "" and done.stderr == ""
