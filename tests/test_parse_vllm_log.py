"""Start-up logs of vLLM: every release's wording, refusals, and text that is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.parse.engines.vllm_log import KINDS, read_vllm_log
from tests.rigs.engine_logs import VLLM, Rank, Start, Style, told, vllm
from tests.rigs.engine_strategies import starts, styles

ONE = Start("org/m", "LlamaForCausalLM", 8192, (Rank(3.7, 10.5, 0.6),), 56_736, 6.92)
PCIE = "it's not supported on more than two PCIe-only GPUs"


@given(starts(), st.sampled_from(VLLM), styles)
def test_what_a_release_prints_is_read_back(start: Start, version: str, style: Style) -> None:
    log = read_vllm_log(vllm(start, version, style)).value
    assert (log.version, log.model) == (version, start.model)
    assert log.max_model_len == start.context
    assert log.tensor_parallel_size == start.tensor_parallel_size
    assert log.pipeline_parallel_size == start.pipeline_parallel_size
    assert log.dtype == "bfloat16" and log.quantization is None
    assert log.draft_model == ("org/draft" if start.draft else None)
    assert log.ready is (start.oom is None)
    if start.oom is None:
        assert log.kv_tokens == start.kv_tokens
        assert (log.concurrency_context, log.max_concurrency) == (start.context, start.concurrency)


@given(starts(), st.sampled_from(VLLM), styles)
def test_memory_stands_with_the_rank_that_told_it(start: Start, version: str, style: Style) -> None:
    log = read_vllm_log(vllm(start, version, style)).value
    assert len(log.devices) == len(start.ranks)
    assert log.world_size == (len(start.ranks) if len(start.ranks) > 1 else None)
    silent = start.oom is not None or int(version.split(".")[1]) < 10
    for index, (rank, device) in enumerate(zip(start.ranks, log.devices, strict=True)):
        tells = index < told(start, version)
        assert device.weights_mib == (rank.weights * 1024 if tells else None)
        assert device.kv_cache_mib == (None if silent or not tells else rank.kv_cache * 1024)


@given(starts(), st.sampled_from(VLLM), styles)
def test_custom_all_reduce_is_on_off_with_a_reason_or_unsaid(
    start: Start, version: str, style: Style
) -> None:
    log = read_vllm_log(vllm(start, version, style)).value
    if len(start.ranks) == 1:
        assert log.custom_all_reduce is None
    elif start.refused:
        assert (log.custom_all_reduce, log.custom_all_reduce_reason) == (False, start.refused)
    elif start.oom is None:
        assert (log.custom_all_reduce, log.custom_all_reduce_reason) == (True, None)


@given(starts().filter(lambda start: start.oom is not None), styles)
def test_an_allocation_that_failed_is_one_error_with_its_sizes(start: Start, style: Style) -> None:
    log = read_vllm_log(vllm(start, "0.13.0", style)).value
    oom = [error for error in log.errors if error.kind == "oom"]
    assert start.oom is not None and len(oom) == 1
    assert (oom[0].requested_mib, oom[0].device_index) == (start.oom * 1024, 0)
    assert (oom[0].free_mib, oom[0].total_mib) == (1.25 * 1024, 23.53 * 1024)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("ValueError: No available memory for the cache blocks. Try increasing it", "kv-cache"),
        (
            "ValueError: Free memory on device cuda:0 (3.25/23.43 GiB) on startup is less than "
            "desired GPU memory utilization (0.96, 22.49 GiB). Decrease it.",
            "memory",
        ),
        ("ValueError: Total number of attention heads (8) must be divisible by 3.", "traceback"),
        ("RuntimeError: Engine core initialization failed. See root cause above.", "worker"),
        ("Worker proc VllmWorker-1 died unexpectedly (exit code: -9), shutting down", "worker"),
        (
            "ERROR 11-04 18:02:56 [v1/executor/multiproc_executor.py:597] RuntimeError: "
            "NCCL error: unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
            "collective",
        ),
        (
            "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE",
            "collective",
        ),
    ],
)
def test_a_refusal_is_an_error_of_its_kind(line: str, kind: str) -> None:
    prefix = "(EngineCore_DP0 pid=7) ERROR 01-15 22:38:37 [core.py:708] "
    log = read_vllm_log(f"{prefix}{line}\n{prefix}{line}").value
    assert kind in [error.kind for error in log.errors]
    assert len({error.text for error in log.errors}) == len(log.errors)
    assert log.ready is (None if kind == "traceback" else False)


def test_a_start_with_too_little_free_memory_tells_how_much_there_was() -> None:
    log = read_vllm_log(
        "ValueError: Free memory on device cuda:1 (3.25/23.43 GiB) on startup is less than desired "
        "GPU memory utilization (0.96, 22.49 GiB)."
    ).value
    assert (log.devices[0].free_mib, log.devices[0].total_mib) == (3.25 * 1024, 23.43 * 1024)
    assert log.gpu_memory_utilization == 0.96


def test_a_logger_that_prints_folders_is_recognised() -> None:
    line = "ERROR 11-04 18:02:56 [v1/executor/multiproc_executor.py:597] RuntimeError: NCCL error\n"
    assert KINDS[0].recognise(line) > 0.9


def test_the_estimated_maximum_length_of_a_refusal_is_kept() -> None:
    log = read_vllm_log(
        "ValueError: To serve at least one request with the models's max seq len (262144), (32.0 "
        "GiB KV cache is needed, which is larger than the available KV cache memory (9.1 GiB). "
        "Based on the available memory, the estimated maximum model length is 74,512. Try it."
    ).value
    assert log.estimated_max_model_len == 74_512
    assert log.errors[0].kind == "kv-cache"


def test_the_engine_of_0_8_tells_weights_and_cache_in_one_line() -> None:
    log = read_vllm_log(
        "INFO 03-19 08:09:02 llm_engine.py:233] Initializing a V0 LLM engine (v0.8.2) with config: "
        "model='m', dtype=torch.float16, max_seq_len=4096, tensor_parallel_size=2,\n"
        "(VllmWorkerProcess pid=180) INFO 03-19 08:09:20 model weights take 7.51GiB; non_torch_mem"
        "ory takes 0.10GiB; PyTorch activation peak memory takes 1.39GiB; the rest of the memory "
        "reserved for KV Cache is 12.01GiB.\n"
        "INFO 03-19 08:09:21 executor_base.py:111] # cuda blocks: 6150, # CPU blocks: 2048\n"
        "INFO 03-19 08:09:21 Maximum concurrency for 4096 tokens per request: 24.02x"
    ).value
    assert (log.version, log.kv_blocks, log.kv_tokens) == ("0.8.2", 6150, None)
    worker = log.device("pid 180")
    assert worker is not None
    assert (worker.weights_mib, worker.kv_cache_mib) == (7.51 * 1024, 12.01 * 1024)
    assert (log.concurrency_context, log.max_concurrency) == (4096, 24.02)


def test_three_pcie_cards_without_custom_all_reduce_are_no_error() -> None:
    start = Start("m", "A", 1, ONE.ranks * 4, 7, 1.0, refused=PCIE)
    log = read_vllm_log(vllm(start, "0.33.0", Style())).value
    assert (log.custom_all_reduce, log.errors, log.ready) == (False, (), True)


@pytest.mark.parametrize(
    ("backends", "group", "custom"),
    [
        ("'CUSTOM', 'PYNCCL'", "tp:0", True),
        ("'PYNCCL'", "tp:0", False),
        ("'PYNCCL'", "ep:0", None),
    ],
)
def test_the_backends_of_the_tensor_group_tell_whether_all_reduce_is_custom(
    backends: str, group: str, custom: bool | None
) -> None:
    log = read_vllm_log(
        f"(Worker_TP0 pid=1) INFO 06-17 04:09:25 [cuda_communicator.py:245] Using [{backends}] "
        f"all-reduce backends (in dispatch order) for group '{group}' out of potential backends: "
        "['NCCL_SYMM_MEM', 'CUSTOM', 'PYNCCL'].\n"
    ).value
    assert log.custom_all_reduce is custom


def test_a_log_that_was_cut_keeps_what_came_before() -> None:
    whole = vllm(ONE, "0.33.0", Style())
    cut = read_vllm_log(whole[: whole.index("GPU KV cache size")]).value
    assert (cut.devices[0].weights_mib, cut.kv_tokens, cut.ready) == (3.7 * 1024, None, None)


def test_lines_that_tell_nothing_of_the_start_stay_unread() -> None:
    reading = read_vllm_log("nohup: ignoring input\n\nINFO vLLM API server version 0.13.0\n")
    assert [(line.line, line.text) for line in reading.unread] == [(1, "nohup: ignoring input")]
    assert reading.lines == 2


@given(starts(), st.sampled_from(VLLM), styles)
def test_a_log_is_recognised(start: Start, version: str, style: Style) -> None:
    assert KINDS[0].recognise(vllm(start, version, style)) > 0.9


@given(st.text(), st.integers(0, 5000), st.sampled_from(VLLM))
def test_no_text_raises(text: str, at: int, version: str) -> None:
    whole = vllm(ONE, version, Style(colour=True))
    for mutated in (text, whole[:at], whole[:at] + text + whole[at:], whole.replace("8192", text)):
        assert read_vllm_log(mutated).value.engine == "vllm"


@pytest.mark.parametrize("number", ["9" * 400, "1e999", ",,,,", "-0.00", "٣", "nan"])
def test_numbers_that_no_engine_prints_are_unknown_or_left_out(number: str) -> None:
    log = read_vllm_log(
        f"GPU KV cache size: {number} tokens\nModel loading took {number} GiB and {number} seconds"
        f"\nworld_size={number} rank=0\nMaximum concurrency for {number} tokens per request: "
        f"{number}x\nUsing max model len {number}"
    ).value
    assert (log.kv_tokens, log.max_model_len, log.world_size) == (None, None, None)
    assert log.devices == () and log.max_concurrency is None
