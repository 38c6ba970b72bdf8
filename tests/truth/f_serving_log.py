"""Start-up logs of vLLM, SGLang and llama.cpp on real machines: every clause of the index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from multigpu.parse.engines.engine_log import EngineDevice, EngineLog, LlamaCppFacts
from multigpu.parse.engines.llama_cpp_log import read_llama_cpp_log
from multigpu.parse.engines.sglang_log import read_sglang_log
from multigpu.parse.engines.vllm_log import read_vllm_log


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def rank0(log: EngineLog) -> EngineDevice:
    found = log.device("TP0")
    assert found is not None
    return found


def weights_gib(log: EngineLog) -> float | None:
    mib = rank0(log).weights_mib
    return None if mib is None else mib / 1024


def kv_gib(log: EngineLog) -> float | None:
    mib = rank0(log).kv_cache_mib
    return None if mib is None else mib / 1024


def vllm_tp4(path: Path) -> None:
    reading = read_vllm_log(text(path))
    log = reading.value
    assert "\x1b[0;36m" in text(path) and "\x1b" not in repr(log)
    assert (log.version, log.tensor_parallel_size, log.world_size) == ("0.13.0", 4, 4)
    assert "Registering 6630 cuda graph addresses" in text(path)
    assert (log.custom_all_reduce, log.custom_all_reduce_reason) == (True, None)
    assert (weights_gib(log), kv_gib(log)) == (3.7418, 62.52)
    assert log.kv_tokens == 2_048_704
    assert (log.concurrency_context, log.max_concurrency) == (8192, 250.09)
    assert [device.device for device in log.devices] == ["TP0", "TP1", "TP2", "TP3"]
    # Only rank 0 tells its memory: the others are unknown, not 0.
    assert all(device.weights_mib is None for device in log.devices[1:])
    assert (log.nccl_version, log.attention_backend) == ("2.27.5", "FLASH_ATTN")
    assert (log.load_seconds, log.init_seconds, log.ready) == (1.387085, 22.46, True)
    assert (log.dtype, log.quantization, log.architecture) == ("bfloat16", None, "LlamaForCausalLM")
    assert rank0(log).cuda_graph_mib == 0.63 * 1024
    assert 0 < len(reading.unread) < reading.lines


def vllm_awq(path: Path) -> None:
    log = read_vllm_log(text(path)).value
    assert (log.version, log.tensor_parallel_size, log.world_size) == ("0.13.0", 1, 1)
    assert (weights_gib(log), kv_gib(log), log.kv_tokens) == (9.3795, 10.39, 56_736)
    assert (log.max_concurrency, log.load_seconds) == (6.93, 854.112029)
    assert (log.quantization, log.dtype, log.max_model_len) == ("awq", "float16", 8192)
    assert log.custom_all_reduce is None and log.ready is True and not log.errors


def vllm_banner(path: Path) -> None:
    reading = read_vllm_log(text(path))
    log = reading.value
    assert "API server version" not in text(path)
    assert log.version == "0.26.1rc1.dev156+g0eec856cc.d20260731"
    banner = "\n".join(text(path).splitlines()[:8])
    assert "(EngineCore pid=" in text(path) and "EngineCore_DP0" not in text(path)
    assert read_vllm_log(banner).value.version == log.version
    assert (weights_gib(log), kv_gib(log), log.kv_tokens) == (56.93, 13.84, 151_216)
    assert (log.concurrency_context, log.max_concurrency) == (131_072, 1.15)
    device = rank0(log)
    assert device.name == "NVIDIA A100-SXM4-80GB"
    assert (device.free_mib, device.total_mib) == (78.84 * 1024, 79.25 * 1024)
    assert log.gpu_memory_utilization == 0.9
    assert log.model is not None and log.model.endswith("/Qwen3-Coder-30B-A3B-Instruct/")
    # The first 140 lines end before the server says that it is up.
    assert log.ready is None and not log.errors


def vllm_no_available_line(path: Path) -> None:
    log = read_vllm_log(text(path)).value
    assert log.version == "0.8.5.post1"
    assert (weights_gib(log), log.kv_tokens) == (27.5916, 32_832)
    assert "Available KV cache memory" not in text(path) and rank0(log).kv_cache_mib is None
    assert (log.max_concurrency, log.concurrency_context) == (1.0, 32_768)
    assert (log.attention_backend, log.ready, log.errors) == ("Flash Attention", True, ())


def vllm_gb10(path: Path) -> None:
    log = read_vllm_log(text(path)).value
    assert log.version == "0.25.1"
    assert (weights_gib(log), kv_gib(log), log.kv_tokens) == (69.34, 35.2, 950_420)
    assert (log.concurrency_context, log.max_concurrency) == (65_536, 14.50)
    assert log.draft_model == "poolside/Laguna-S-2.1-DFlash-INT4"
    assert log.model == "poolside/Laguna-S-2.1-INT4"
    # The draft model has a context of its own, 262144.
    assert (log.max_model_len, log.architecture) == (65_536, "LagunaForCausalLM")


def sglang(path: Path) -> None:
    log = read_sglang_log(text(path)).value
    device = rank0(log)
    assert device.free_mib == 115.36 * 1024
    assert device.weights_mib == 67.56 * 1024
    assert device.draft_weights_mib == 1.58 * 1024
    first, *others = log.kv_pools
    assert (first.tokens, first.k_mib, first.v_mib) == (148_717, 10.21 * 1024, 10.21 * 1024)
    assert not first.draft and first.dtype == "bfloat16"
    # Three pools: the target's for its sliding window, the target's full one, the draft's.
    assert [pool.tokens for pool in others] == [185_897, 185_897]
    assert [pool.draft for pool in others] == [False, True]
    assert device.kv_cache_mib is not None and device.draft_kv_cache_mib is not None
    assert abs(device.kv_cache_mib / 1024 - 28.93) < 0.02
    assert abs(device.draft_kv_cache_mib / 1024 - 4.26) < 0.01
    assert log.kv_tokens == 185_897 < sum(pool.tokens or 0 for pool in log.kv_pools)
    assert log.model == "poolside/Laguna-S-2.1-INT4"
    assert (log.ready, log.max_model_len, log.tensor_parallel_size) == (True, 65_536, 1)
    # It was stopped at the end: children that end then are no failure.
    assert log.errors == ()


def llama(path: Path) -> tuple[EngineLog, LlamaCppFacts]:
    log = read_llama_cpp_log(text(path)).value
    assert log.llama_cpp is not None
    return log, log.llama_cpp


def column(log: EngineLog, name: str) -> dict[str, float]:
    found = {device.device: getattr(device, name) for device in log.devices}
    return {device: value for device, value in found.items() if value is not None}


def cards(log: EngineLog) -> list[str | None]:
    return [device.name for device in log.devices if device.device.startswith("CUDA")]


def llama_oom(path: Path) -> None:
    log, facts = llama(path)
    assert column(log, "weights_mib") == {
        "CPU": 89709.28,
        "CUDA_Host": 630.59,
        "CUDA0": 15831.98,
        "CUDA1": 3221.75,
    }
    assert column(log, "kv_cache_mib") == {"CUDA0": 1632.02, "CUDA1": 1564.02}
    assert (facts.pipeline_parallel, facts.n_copies) == (True, 4)
    assert column(log, "compute_mib") == {}
    assert (log.errors[0].kind, log.errors[0].requested_mib) == ("oom", 360757.13)
    assert log.errors[0].device_index == 0 and log.ready is False
    assert "CUDA0 buffer size = 15831.98 MiB" in text(path)
    assert facts.metadata is not None and facts.metadata.size_mib is not None
    assert facts.metadata.params == 235_094_000_000
    assert facts.metadata.size_mib / 1024 == 106.830


def llama_windows(path: Path) -> None:
    log, facts = llama(path)
    weights = column(log, "weights_mib")
    assert weights.pop("CUDA_Host") == 938.98
    assert weights == {"CUDA0": 16412.52, "CUDA1": 11530.49, "CUDA2": 13886.35, "CPU": 209592.50}
    assert column(log, "kv_cache_mib") == {"CUDA0": 450.0, "CUDA1": 342.0, "CUDA2": 306.0}
    compute = column(log, "compute_mib")
    assert compute.pop("CUDA_Host") == 368.05
    assert compute == {"CUDA0": 4496.02, "CUDA1": 3152.02, "CUDA2": 3152.03}
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=0,2,1" in text(path)
    names = {device.device: device.name for device in log.devices if device.name}
    assert names == {
        "CUDA0": "NVIDIA GeForce RTX 5090",
        "CUDA1": "NVIDIA GeForce RTX 3090",
        "CUDA2": "NVIDIA GeForce RTX 3090",
    }
    assert facts.metadata is not None and facts.metadata.size_mib is not None
    assert (facts.metadata.params, facts.metadata.size_mib / 1024) == (672_050_000_000, 246.446)
    assert log.errors[-1].kind == "abort"


def llama_6x3090(path: Path) -> None:
    log, facts = llama(path)
    assert [d.name for d in log.devices if d.name] == ["NVIDIA GeForce RTX 3090"] * 6
    weights = column(log, "weights_mib")
    assert weights["CPU"] == 281.81
    expected = [764.06, 616.09, 733.12, 616.09, 733.12, 940.99]
    assert [weights[f"CUDA{index}"] for index in range(6)] == expected
    assert (facts.layers_offloaded, facts.layers_total, facts.n_copies) == (33, 33, 4)
    assert log.version == "2824 (4426e298)"


def llama_4xa40(path: Path) -> None:
    log, _ = llama(path)
    weights = column(log, "weights_mib")
    assert [weights[f"CUDA{index}"] for index in range(4)] == [1130.62, 982.66, 982.66, 1307.55]
    assert max(weights, key=weights.__getitem__) == "CUDA3"
    assert [d.name for d in log.devices if d.name] == ["NVIDIA A40"] * 4


def llama_2x5090(path: Path) -> None:
    log, facts = llama(path)
    weights = column(log, "weights_mib")
    assert weights["CPU"] == 3303.08 + 47617.27 + 40320.40 + 333.84
    assert (weights["CUDA0"], weights["CUDA1"]) == (23731.17, 22811.95)
    assert column(log, "kv_cache_mib") == {"CUDA0": 3264.02, "CUDA1": 3128.02}
    # It served, and the errors came after.
    assert log.ready is True and {error.kind for error in log.errors} == {"abort"}
    assert facts.metadata is not None and facts.metadata.size_mib is not None
    assert (facts.metadata.params, facts.metadata.size_mib / 1024) == (235_094_000_000, 132.386)


def llama_2x_pro6000(path: Path) -> None:
    log, facts = llama(path)
    weights = {"CUDA0": 65593.61, "CUDA1": 70014.23, "CPU": 497.11}
    assert column(log, "weights_mib") == weights
    assert column(log, "kv_cache_mib") == {"CUDA0": 697.5, "CUDA1": 675.0}
    assert facts.tensor_split is None and (facts.layers_offloaded, facts.layers_total) == (62, 62)


def llama_8x4090(path: Path) -> None:
    log, _ = llama(path)
    assert [d.name for d in log.devices if d.name] == ["NVIDIA GeForce RTX 4090"] * 8
    weights = column(log, "weights_mib")
    assert [weights[f"CUDA{index}"] for index in range(3)] == [647.03, 483.59, 483.59]
    assert len(weights) == 9


TRUTH: dict[str, Callable[[Path], None]] = {
    f"f_serving_log/{name}": check
    for name, check in {
        "vllm0.13_tp4_llama3_8b.log": vllm_tp4,
        "vllm0.13_tp1_qwen2.5_14b_awq_wsl.log": vllm_awq,
        "vllm0.26_qwen3coder30b_a100.log": vllm_banner,
        "vllm0.8.5_v1_no_available_kv_line.log": vllm_no_available_line,
        "vllm0.25_gb10_laguna_int4.log": vllm_gb10,
        "sglang_gb10_laguna_int4_ok.log": sglang,
        "llamacpp_2x_rtx3090_qwen3_235b_oom.txt": llama_oom,
        "llamacpp_5090_3090_3090_ds_r1_windows.txt": llama_windows,
        "llamacpp_6x_rtx3090_llama3_8b.txt": llama_6x3090,
        "llamacpp_4x_a40_llama3_8b.txt": llama_4xa40,
        "llamacpp_2x_rtx5090_qwen3_235b_ok.txt": llama_2x5090,
        "llamacpp_2x_rtxpro6000_ds_r1.txt": llama_2x_pro6000,
        "llamacpp_8x_rtx4090_llama3_8b.txt": llama_8x4090,
    }.items()
}
