"""Start-up logs of SGLang: target and draft apart, ranks, failures, and text that is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.parse.engines.sglang_log import KINDS, read_sglang_log
from tests.rigs.engine_logs import Rank, Start, Style, sglang
from tests.rigs.engine_strategies import starts, styles

ONE = Start("org/m", "LlamaForCausalLM", 8192, (Rank(15.02, 4.66, 0.12),), 38_141, 1.0)


@given(starts(), styles)
def test_what_it_prints_is_read_back(start: Start, style: Style) -> None:
    log = read_sglang_log(sglang(start, style)).value
    assert (log.model, log.architecture) == (start.model, start.architecture)
    assert log.max_model_len == start.context
    assert log.tensor_parallel_size == start.tensor_parallel_size
    assert log.pipeline_parallel_size == start.pipeline_parallel_size
    assert (log.gpu_memory_utilization, log.attention_backend) == (0.85, "fa3")
    assert log.draft_model == ("org/draft" if start.draft else None)
    assert log.load_seconds == start.seconds
    assert log.kv_tokens == (start.kv_tokens if start.oom is None else None)
    assert log.ready is (start.oom is None)


@given(starts().filter(lambda start: start.oom is None), styles)
def test_a_draft_is_not_summed_into_the_target(start: Start, style: Style) -> None:
    log = read_sglang_log(sglang(start, style)).value
    assert len(log.devices) == len(start.ranks)
    for rank, device in zip(start.ranks, log.devices, strict=True):
        assert device.weights_mib == rank.weights * 1024
        assert device.kv_cache_mib == pytest.approx(rank.kv_cache * 1024, abs=11)
        assert device.cuda_graph_mib == pytest.approx(rank.graph * 1024)
        draft = start.draft
        assert device.draft_weights_mib == (draft.weights * 1024 if draft else None)
        assert (device.draft_kv_cache_mib is None) == (draft is None)
    drafts = [pool for pool in log.kv_pools if pool.draft]
    assert len(drafts) == (len(start.ranks) if start.draft else 0)
    assert len(log.kv_pools) - len(drafts) == len(start.ranks)


@given(starts().filter(lambda start: start.oom is not None), styles)
def test_an_allocation_that_failed_is_an_error_with_its_size(start: Start, style: Style) -> None:
    log = read_sglang_log(sglang(start, style)).value
    assert start.oom is not None
    assert [error.kind for error in log.errors] == ["oom", "worker"]
    assert log.errors[0].requested_mib == start.oom * 1024


def test_children_that_end_after_a_stop_are_no_error() -> None:
    text = sglang(ONE, Style())
    assert "SIGTERM" in text and "one child failed" in text
    assert read_sglang_log(text).value.errors == ()


def test_the_words_of_0_4_are_read() -> None:
    log = read_sglang_log(
        "[2025-07-14 05:48:43 TP1] Load weight end. type=LlamaForCausalLM, dtype=torch.bfloat16, "
        "avail mem=7.37 GB, mem usage=15.02 GB.\n"
        "[2025-07-14 05:48:43 TP1] KV Cache is allocated. #tokens: 38141, K size: 2.33 GB, "
        "V size: 2.33 GB\n"
        "[2025-07-14 05:49:02 TP1] Capture cuda graph end. Time elapsed: 18.07 s. "
        "mem usage=0.11 GB. avail mem=0.83 GB.\n"
    ).value
    device = log.device("TP1")
    assert device is not None and log.dtype == "bfloat16"
    assert (device.weights_mib, device.kv_cache_mib) == (15.02 * 1024, 4.66 * 1024)
    assert device.cuda_graph_mib == pytest.approx(0.11 * 1024)


def test_one_size_for_keys_and_values_together_is_a_size() -> None:
    log = read_sglang_log(
        "[2025-07-14 05:48:43] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 100, "
        "KV size: 2.50 GB\n[2025-07-14 05:48:43] Mamba Cache is allocated. max_mamba_cache_size: "
        "97, conv_state size: 0.25GB, ssm_state size: 1.50GB"
    ).value
    assert (log.kv_pools[0].k_mib, log.kv_pools[0].mib) == (None, 2.5 * 1024)
    assert log.devices[0].state_cache_mib == 1.75 * 1024


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("ValueError: The memory capacity is unbalanced. Some GPUs may be occupied", "memory"),
        ("RuntimeError: Not enough memory. Please try to increase --mem-fraction", "kv-cache"),
        ("RuntimeError: Loaded weights leave no GPU memory for the KV cache.", "kv-cache"),
    ],
)
def test_a_refusal_is_an_error_of_its_kind(line: str, kind: str) -> None:
    log = read_sglang_log(f"[2026-08-01 23:37:40 TP0] Scheduler hit: \n{line}").value
    assert ([error.kind for error in log.errors], log.ready) == ([kind], False)


@given(starts(), styles)
def test_a_log_is_recognised(start: Start, style: Style) -> None:
    assert KINDS[0].recognise(sglang(start, style)) > 0.9


@given(st.text(), st.integers(0, 3000))
def test_no_text_raises(text: str, at: int) -> None:
    whole = sglang(ONE, Style())
    for mutated in (text, whole[:at], whole[:at] + text + whole[at:], whole.replace("38141", text)):
        assert read_sglang_log(mutated).value.engine == "sglang"
