"""Memory per card against published boot logs, and the rules behind the numbers."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from typing import Any

import pytest

from multigpu import memory as m
from multigpu.hardware import GpuProcess
from multigpu.plan import Candidate, LayerCache, ModelSpec, Strategy, Wish
from multigpu.runtimes import llama_cpp_memory as g
from multigpu.runtimes import vllm_memory as v
from tests.machines import H100, MIB, RTX_3090, RTX_4090, SHARED, config_of, dense, gguf, hf, host

MEASURED = SHARED / "groundtruth/measurements.tsv"
SINGLE = Candidate("vllm", Strategy.SINGLE, (0,))
CARDS = {
    "1x RTX 3090 24GB": (24576, 2048),
    "1x RTX 4090 24GB": (24564, 2048),
    "1x RTX 5000 Ada 32GB": (32760, 2048),
    "1x RTX 5090 32GB": (32607, 2048),
    "1x A100 40GB": (40960, 2048),
}
MODELS = {
    "meta-llama/Meta-Llama-3.1-8B-Instruct": "meta-llama--Meta-Llama-3.1-8B",
    "cpatonn/Qwen3-Coder-30B-A3B-Instruct-GPTQ-4bit": "Qwen--Qwen3-30B-A3B",
    "openai/gpt-oss-20b": "openai--gpt-oss-20b",
}


def wish(**keys: Any) -> Wish:
    return Wish("chat", "org/model", **keys)


def rows() -> list[dict[str, str]]:
    """Boot logs of one NVIDIA card of 24 to 48 GB with a model whose config.json is known."""
    if not MEASURED.exists():
        return []
    with MEASURED.open(newline="") as file:
        found = list(csv.DictReader(file, delimiter="\t"))
    return [
        row
        for row in found
        if row["metric"] == "memory_per_gpu_GiB"
        and row["hardware"] in CARDS
        and row["model"] in MODELS
    ]


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"row {row['n']}")
def test_the_predicted_pool_is_near_and_not_above_what_vllm_found(row: dict[str, str]) -> None:
    """Within 0.45 GiB below and 0.1 GiB above; vLLM 0.12 did not yet subtract CUDA graphs.

    The runs kept max_num_seqs at 256, so that many requests share the activation peak.
    """
    measured = dict(part.split("=") for part in row["measured"].split(";"))
    model = hf(config_of(MODELS[row["model"]]))
    memory_mib, batched = CARDS[row["hardware"]]
    match = re.search(r"gpu-memory-utilization ([\d.]+)", row["runtime_flags"])
    fraction = float(match.group(1)) if match else 0.9
    total = m.cuda_total_mib(replace(RTX_3090, memory_mib=memory_mib)) * fraction
    fixed = v.activations_mib(model, 1, batched, 256) + v.CONTEXT_MIB
    predicted = (total - fixed) / 1024 - float(measured["weights"])
    assert -0.45 <= predicted - float(measured["kv_pool"]) <= 0.1


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"row {row['n']}")
def test_bytes_per_token_match_what_vllm_printed(row: dict[str, str]) -> None:
    """vLLM 0.12 counted sliding layers at full length."""
    measured = dict(part.split("=") for part in row["measured"].split(";"))
    model = hf(config_of(MODELS[row["model"]]))
    layers = [replace(layer, kind="full", window=None) for layer in model.layers]
    printed = int(measured["kv_tokens"].replace(",", ""))
    pool = m.request_mib(layers, printed, kv_bytes=2.0) / 1024
    assert pool == pytest.approx(float(measured["kv_pool"]), rel=0.01)


def test_there_are_measured_rows_to_compare_with() -> None:
    if not MEASURED.exists():
        pytest.skip("no captured measurements here")
    assert len(rows()) >= 8


FULL = LayerCache("full", num_key_value_heads=8, head_dim=128)


def one_request(layer: LayerCache, context: int = 4096, **keys: Any) -> float:
    return m.request_mib([layer], context, kv_bytes=2.0, **keys) * MIB


def test_a_full_layer_keeps_keys_and_values_of_every_token() -> None:
    assert one_request(FULL) == 4096 * 2 * 8 * 128 * 2


def test_kv_heads_are_divided_down_to_one_per_card() -> None:
    assert one_request(FULL, tensor_parallel_size=8) == one_request(FULL) / 8
    assert one_request(FULL, tensor_parallel_size=16) == one_request(FULL) / 8


def test_mla_is_not_divided_by_tensor_parallel() -> None:
    mla = LayerCache("mla", elements=576)
    assert one_request(mla, tensor_parallel_size=8) == one_request(mla) == 4096 * 576 * 2


def test_a_sliding_layer_keeps_its_window_and_the_tokens_in_flight() -> None:
    sliding = replace(FULL, kind="sliding", window=1024)
    assert one_request(sliding, in_flight=2048) == (1024 + 2048) * 2 * 8 * 128 * 2
    assert one_request(sliding, context=512, in_flight=2048) == one_request(FULL, context=512)


def test_recurrent_state_does_not_grow_with_context() -> None:
    state = LayerCache("state", elements=1000, element_bytes=4)
    assert one_request(state, context=10) == one_request(state, context=10**6) == 4000


def test_an_fp8_cache_holds_about_twice_as_many_tokens() -> None:
    def tokens(**flags: str) -> int:
        wished = wish(flags={f"--{k.replace('_', '-')}": v for k, v in flags.items()})
        return v.sized(SINGLE, host(RTX_4090), hf(), wished).kv_tokens or 0

    assert 1.9 * tokens() < tokens(kv_cache_dtype="fp8") < 2.0 * tokens()


def test_vllm_takes_the_rest_of_its_fraction_as_cache() -> None:
    sized = v.sized(SINGLE, host(RTX_3090), hf(), wish())
    (memory,) = sized.memory
    assert sized.gpu_memory_utilization == v.GPU_MEMORY_UTILIZATION
    assert memory.fits and memory.capacity_mib - memory.total_mib <= 1


def test_the_smallest_rank_decides_the_cache_of_all() -> None:
    split = Candidate(
        "vllm", Strategy.PIPELINE_PARALLEL, (0, 1), pipeline_parallel_size=2, layers=(16, 16)
    )
    alike = v.sized(split, host(RTX_3090, RTX_3090), hf(), wish())
    mixed = v.sized(split, host(RTX_3090, replace(RTX_3090, memory_mib=16384)), hf(), wish())
    assert (mixed.kv_tokens or 0) < (alike.kv_tokens or 0)
    assert mixed.memory[0].total_mib < mixed.memory[0].capacity_mib - 1024


def test_a_candidate_that_cannot_hold_the_wish_does_not_fit() -> None:
    sized = v.sized(SINGLE, host(RTX_3090), hf(), wish(context=131072, concurrency=8))
    assert not sized.memory[0].fits


def test_other_processes_lower_the_fraction_and_own_ones_do_not() -> None:
    busy = replace(RTX_3090, memory_free_mib=12000)
    ours = GpuProcess(1, used_memory_mib=12000, unit="multigpu-chat-0.service")
    other = replace(ours, unit="multigpu-chatter.service")

    def fraction(*processes: GpuProcess) -> float | None:
        card = replace(busy, processes=processes)
        return v.sized(SINGLE, host(card), hf(), wish()).gpu_memory_utilization

    assert fraction() == fraction(other) == 0.48
    assert fraction(ours) == v.GPU_MEMORY_UTILIZATION


def test_a_pinned_fraction_is_obeyed() -> None:
    sized = v.sized(SINGLE, host(RTX_3090), hf(), wish(gpu_memory_utilization=0.5))
    assert sized.memory[0].capacity_mib == int((24576 - m.CUDA_RESERVED_MIB) * 0.5)


def test_nvml_reserved_memory_replaces_the_assumed_one() -> None:
    assert m.cuda_total_mib(replace(RTX_3090, memory_reserved_mib=317)) == 24576 - 317


def test_tensor_parallel_holds_half_and_a_little_more() -> None:
    half = v.weights_mib(hf(), (0, 32), 2) / hf().weights_mib
    assert 0.505 <= half <= 0.526


def test_a_tied_embedding_is_held_by_the_first_and_the_last_stage() -> None:
    tied = hf(dense(tie_word_embeddings=True))
    outer = v.weights_mib(tied, (0, 16), 1) + v.weights_mib(tied, (16, 32), 1)
    assert outer == pytest.approx(tied.weights_mib + tied.embedding_mib)


def test_large_cards_batch_more_tokens_and_flags_override() -> None:
    assert v.batched_tokens(RTX_3090, {}) == 2048
    assert v.batched_tokens(H100, {}) == 8192
    assert v.batched_tokens(H100, {"--max-num-batched-tokens": "4096"}) == 4096


def split_gguf(model: ModelSpec, wished: Wish, layers: tuple[int, int]) -> Candidate:
    split = Candidate("llama.cpp", Strategy.LAYER_SPLIT, (0, 1), layers=layers)
    return g.sized(split, host(RTX_3090, RTX_3090), model, wished)


def test_llama_cpp_takes_exactly_the_asked_cache() -> None:
    sized = split_gguf(gguf(), wish(context=4096, concurrency=2), (17, 16))
    assert sized.kv_tokens == 8192
    per_block = 8192 * 2 * 8 * 128 * 2 / MIB
    assert [x.kv_cache_mib for x in sized.memory] == [17 * per_block, 15 * per_block]
    assert [x.weights_mib for x in sized.memory] == [17 * 128, 15 * 128 + 400]


def test_a_quantized_llama_cpp_cache_is_smaller() -> None:
    flags = {"--cache-type-k": "q8_0", "--cache-type-v": "q8_0"}
    plain = split_gguf(gguf(), wish(), (17, 16)).memory[0].kv_cache_mib
    assert split_gguf(gguf(), wish(flags=flags), (17, 16)).memory[0].kv_cache_mib == pytest.approx(
        plain * 34 / 64, rel=0.01
    )


def test_pipeline_copies_of_the_mask_count_on_several_cards() -> None:
    wished = wish(context=32768, concurrency=1)
    one = g.sized(Candidate("llama.cpp", Strategy.SINGLE, (0,)), host(RTX_3090), gguf(), wished)
    assert (
        split_gguf(gguf(), wished, (17, 16)).memory[1].activations_mib
        > one.memory[0].activations_mib
    )
