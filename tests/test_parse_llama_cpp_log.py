"""Start-up logs of llama.cpp: old, forked and new wording, sums, failures, text that is none."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.parse.engines import sglang_log, vllm_log
from multigpu.parse.engines.engine_log import EngineLog, LlamaCppFacts
from multigpu.parse.engines.engine_scan import Rule
from multigpu.parse.engines.llama_cpp_log import KINDS, RULES, read_llama_cpp_log
from multigpu.parse.reading import Reading
from tests.rigs.engine_logs import LLAMA_CPP, Rank, Start, Style, llama_cpp
from tests.rigs.engine_strategies import starts, styles

ONE = Start("/m/a.gguf", "llama", 8192, (Rank(980.5, 256.0, 64.0),), 8192, 1.0, host=(281.81,))


def read(text: str) -> tuple[EngineLog, LlamaCppFacts]:
    log = read_llama_cpp_log(text).value
    assert log.llama_cpp is not None
    return log, log.llama_cpp


@given(starts(), st.sampled_from(LLAMA_CPP), styles)
def test_what_a_release_prints_is_read_back(start: Start, release: str, style: Style) -> None:
    log, facts = read(llama_cpp(start, release, style))
    assert (log.model, log.architecture) == (start.model, start.architecture)
    assert (log.max_model_len, log.kv_cache_dtype) == (start.context, "q8_0")
    assert (facts.layers_offloaded, facts.layers_total) == (33, 33)
    assert (facts.n_batch, facts.n_ubatch, facts.flash_attn) == (2048, 512, "enabled")
    assert log.kv_tokens == (start.kv_tokens if release == "new" else None)
    assert log.ready is (start.oom is None)
    if start.oom is None:
        assert facts.n_copies == start.copies
    assert facts.metadata is not None and facts.metadata.n_head_kv == 4


@given(starts(), st.sampled_from(LLAMA_CPP), styles)
def test_every_card_has_its_name_and_its_buffers(start: Start, release: str, style: Style) -> None:
    log, _ = read(llama_cpp(start, release, style))
    for index, rank in enumerate(start.ranks):
        device = log.device(f"CUDA{index}")
        assert device is not None and not device.host
        assert (device.name, device.compute_capability) == (rank.name, (8, 6))
        assert (device.weights_mib, device.kv_cache_mib) == (rank.weights, rank.kv_cache)
        assert device.compute_mib == (rank.graph if start.oom is None else None)
        assert device.total_mib == (24124 if release == "new" else None)


@given(starts(), st.sampled_from(LLAMA_CPP), styles)
def test_repeated_lines_of_the_host_are_summed(start: Start, release: str, style: Style) -> None:
    log, _ = read(llama_cpp(start, release, style))
    cpu = log.device("CPU")
    assert (cpu is None) == (not start.host)
    if cpu is not None:
        assert cpu.host and cpu.weights_mib == pytest.approx(sum(start.host), abs=1e-3)


@given(starts().filter(lambda start: start.oom is not None), st.sampled_from(LLAMA_CPP))
def test_an_allocation_that_failed_is_an_error_with_its_size(start: Start, release: str) -> None:
    log, _ = read(llama_cpp(start, release, Style()))
    assert [error.kind for error in log.errors] == ["oom", "load"]
    assert (log.errors[0].requested_mib, log.errors[0].device_index) == (start.oom, 0)


def test_a_trial_load_of_the_same_file_does_not_count_twice() -> None:
    trial = llama_cpp(replace(ONE, context=4096), "new", Style())
    log, _ = read(trial + llama_cpp(ONE, "new", Style()))
    device = log.device("CUDA0")
    assert device is not None and device.weights_mib == 980.5
    assert log.max_model_len == 8192


def test_a_draft_model_is_kept_apart() -> None:
    draft = Start("/m/draft.gguf", "llama", 512, (Rank(50.5, 4.0, 2.0),), 512, 1.0)
    log, facts = read(llama_cpp(ONE, "new", Style()) + llama_cpp(draft, "new", Style()))
    device = log.device("CUDA0")
    assert device is not None
    assert (device.weights_mib, device.draft_weights_mib) == (980.5, 50.5)
    assert (device.kv_cache_mib, device.draft_kv_cache_mib) == (256.0, 4.0)
    assert (device.compute_mib, log.max_model_len, log.model) == (64.0, 8192, "/m/a.gguf")
    assert facts.kv_self_mib == 256.0


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ("load_tensors:        ROCm0 model buffer size =  5.25 MiB", "ROCm0"),
        ("load_tensors:      Vulkan0 model buffer size =  5.25 MiB", "Vulkan0"),
        ("load_tensors:   CPU_Mapped model buffer size =  5.25 MiB", "CPU_Mapped"),
        (
            "load_tensors: RPC0[10.0.0.2:50052] model buffer size =  5.25 MiB",
            "RPC0[10.0.0.2:50052]",
        ),
        ("llm_load_tensors:  CUDA_Split buffer size =  5.25 MiB", "CUDA_Split"),
        ("0.01.234.567 I load_tensors: Meta() model buffer size = 5.25 MiB", "Meta()"),
    ],
)
def test_a_buffer_stands_under_the_name_of_its_device(line: str, label: str) -> None:
    log, _ = read(line)
    assert [(d.device, d.weights_mib) for d in log.devices] == [(label, 5.25)]
    assert log.devices[0].host is label.startswith("CPU")


def test_the_gfx_number_of_an_old_rocm_log_is_no_compute_capability() -> None:
    log, _ = read(
        "ggml_init_cublas: found 1 ROCm devices:\n"
        "  Device 0: Radeon RX 7900 XTX, compute capability 11.0, VMM: no\n"
        "llm_load_tensors:      ROCm0 buffer size =  5.25 MiB\n"
    )
    (card,) = log.devices
    assert (card.device, card.name) == ("ROCm0", "Radeon RX 7900 XTX")
    assert card.compute_capability is None and card.weights_mib == 5.25


def test_a_buffer_that_could_not_be_had_is_an_error_though_no_allocation_was_named() -> None:
    line = "ggml_gallocr_reserve_n: failed to allocate Vulkan1 buffer of size 1048576\n"
    (error,) = read(line)[0].errors
    assert (error.kind, error.requested_mib, error.device_index) == ("oom", 1.0, 1)


def test_what_fit_projects_tells_the_memory_of_every_device() -> None:
    log, _ = read(
        "llama_params_fit_impl:   - CUDA0 (NVIDIA GeForce RTX 3090):  24124 total,  13773 used,   "
        "10021 free vs. target of   1024\n"
        "llama_params_fit_impl:   - Vulkan1 (AMD Radeon (TM) Pro VII (RADV VEGA20))    :  16384 "
        "total,  17000 used,   -646 free vs. target of   1024\n"
    )
    assert [(d.device, d.name, d.total_mib, d.free_mib) for d in log.devices] == [
        ("CUDA0", "NVIDIA GeForce RTX 3090", 24124, None),
        ("Vulkan1", "AMD Radeon (TM) Pro VII (RADV VEGA20)", 16384, None),
    ]


def test_integrated_graphics_of_vulkan_are_told_from_a_card() -> None:
    log, _ = read(
        "ggml_vulkan: 0 = AMD Ryzen 9 (RADV RAPHAEL_MENDOCINO) (radv) | uma: 1 | fp16: 1\n"
        "ggml_vulkan: 1 = AMD Radeon RX 7900 XTX (RADV NAVI31) (radv) | uma: 0 | fp16: 1\n"
        "ggml_vulkan: 2 = A card of an old release (radv) | fp16: 1 | warp size: 64\n"
    )
    assert [device.unified_memory for device in log.devices] == [True, False, None]


def test_amd_and_vulkan_cards_have_names() -> None:
    log, _ = read(
        "  Device 0: AMD Radeon RX 7900 XTX, gfx1100 (0x1100), VMM: no, Wave Size: 32, "
        "VRAM: 24560 MiB\n"
        "ggml_vulkan: 1 = AMD Radeon AI PRO R9700 (RADV GFX1201) (radv) | uma: 0 | fp16: 1\n"
        "llama_prepare_model_devices: using device ROCm0 (AMD Radeon RX 7900 XTX) (0000:03:00.0) "
        "- 24524 MiB free\n"
    )
    rocm, vulkan = log.devices
    assert (rocm.device, rocm.gfx, rocm.total_mib) == ("ROCm0", "gfx1100", 24560)
    assert (rocm.pci_bus_id, rocm.free_mib) == ("0000:03:00.0", 24524)
    assert (vulkan.device, vulkan.name) == ("Vulkan1", "AMD Radeon AI PRO R9700 (RADV GFX1201)")


def test_the_memory_breakdown_in_json_fills_what_no_line_told() -> None:
    row = {"kind": "device", "name": "CUDA0", "total": 24124, "free": 9000, "model": 12000}
    data = {"unit": "MiB", "rows": [{**row, "context": 2048, "compute": 300}]}
    log, _ = read(json.dumps({"type": "fit_memory_breakdown", "data": data}))
    device = log.devices[0]
    assert (device.total_mib, device.weights_mib) == (24124, 12000)
    assert (device.kv_cache_mib, device.compute_mib) == (2048, 300)


def test_a_fit_that_gave_up_is_a_warning() -> None:
    log, facts = read(
        "common_fit_params: failed to fit params to free device memory: n_gpu_layers already set "
        "by user, abort"
    )
    assert facts.fit_failed == "n_gpu_layers already set by user, abort"
    assert (log.errors, log.ready) == ((), None)


def test_the_split_of_a_command_line_and_the_layers_of_each_device_are_read() -> None:
    log, facts = read(
        "$ llama-server -m a.gguf -ts 3,1 -sm layer\n"
        "load_tensors: layer   0 assigned to device CUDA0, is_swa = 0\n"
        "load_tensors: layer   1 assigned to device CUDA0, is_swa = 1\n"
        "load_tensors: layer   2 assigned to device CUDA1, is_swa = 0\n"
    )
    assert facts.tensor_split == (3.0, 1.0)
    assert [(d.device, d.layers) for d in log.devices] == [("CUDA0", 2), ("CUDA1", 1)]


LOGS = (
    (RULES, read_llama_cpp_log),
    (vllm_log.RULES, vllm_log.read_vllm_log),
    (sglang_log.RULES, sglang_log.read_sglang_log),
)


@pytest.mark.parametrize(("rules", "reader"), LOGS)
def test_no_line_takes_long_however_often_a_word_of_interest_stands_in_it(
    rules: tuple[Rule, ...], reader: Callable[[str], Reading[EngineLog]]
) -> None:
    began = time.process_time()
    for keyword in {rule.keyword for rule in rules}:
        reader(keyword * 5000 + " (" * 5000 + "{" * 5000)
    assert time.process_time() - began < 10


def test_both_caches_of_a_sliding_window_model_are_summed() -> None:
    log, facts = read(
        "llama_kv_cache:      CUDA0 KV buffer size =   64.00 MiB\n"
        "llama_kv_cache: size =   64.00 MiB (  4096 cells,   4 layers,  1/1 seqs), K (f16):   "
        "32.00 MiB, V (q8_0):   32.00 MiB\n"
        "llama_kv_cache:      CUDA0 KV buffer size =   12.50 MiB\n"
        "llama_kv_cache: size =   12.50 MiB (  1024 cells,  20 layers,  1/1 seqs), K (f16):    "
        "6.25 MiB, V (q8_0):    6.25 MiB\n"
    )
    assert (facts.kv_self_mib, log.kv_tokens, log.kv_cache_dtype) == (76.5, 4096, "f16/q8_0")
    assert log.devices[0].kv_cache_mib == 76.5


def test_an_allocation_that_vulkan_refused_is_told_in_mib() -> None:
    log, _ = read("ggml_vulkan: Device memory allocation of size 4294967296 failed.")
    assert (log.errors[0].kind, log.errors[0].requested_mib) == ("oom", 4096)


@given(starts(), st.sampled_from(LLAMA_CPP), styles)
def test_a_log_is_recognised(start: Start, release: str, style: Style) -> None:
    assert KINDS[0].recognise(llama_cpp(start, release, style)) > 0.9


@given(st.text(), st.integers(0, 3000), st.sampled_from(LLAMA_CPP))
def test_no_text_raises(text: str, at: int, release: str) -> None:
    whole = llama_cpp(ONE, release, Style())
    broken = '{"type":"fit_memory_breakdown","data":' + text
    for mutated in (text, broken, whole[:at], whole[:at] + text + whole[at:]):
        assert read_llama_cpp_log(mutated).value.engine == "llama.cpp"
