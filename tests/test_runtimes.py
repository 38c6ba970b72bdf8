"""Command lines and services that plans are rendered to."""

from __future__ import annotations

from typing import Any

import pytest

from multigpu.errors import WishError
from multigpu.flags import check
from multigpu.hardware import Host, P2p
from multigpu.placement import counts, device_of_unit
from multigpu.plan import ModelSpec, Plan, Service, Strategy
from multigpu.planner import plan
from multigpu.runtimes import RUNTIMES, runtime
from multigpu.wish import wishes
from tests.machines import H100, R9700, RTX_3060, RTX_3090, RTX_4090, dense, gguf, hf, host

TWO = host(RTX_3090, RTX_3090)
EXECUTABLES = {"vllm": "/opt/r/bin/vllm", "llama.cpp": "/opt/r/bin/llama-server"}


def planned(machine: Host, model: ModelSpec, **keys: Any) -> Plan:
    (wish,) = wishes({"chat": {"model": model.name, **keys}})
    return plan(machine, model, wish)


def rendered(machine: Host, model: ModelSpec, **keys: Any) -> tuple[Service, ...]:
    made = planned(machine, model, **keys)
    name = made.chosen.runtime
    return runtime(name).render(made, EXECUTABLES[name], model.path)


def value(service: Service, flag: str) -> str:
    return service.argv[service.argv.index(flag) + 1]


def environment(service: Service) -> dict[str, str]:
    return {setting.name: setting.value for setting in service.environment}


LAB = {
    "runtime": "llama.cpp",
    "strategy": "layer_split",
    "devices": ("RPC0", "RPC1"),
    "flags": {"--rpc": "127.0.0.1:50052,127.0.0.1:50053"},
}
PLANS: list[tuple[Host, ModelSpec, dict[str, Any]]] = [
    (machine, model, {"objective": objective, **keys})
    for machine in (
        TWO,
        host(RTX_3090, RTX_4090),
        host(RTX_3090, RTX_3060),
        host(*[RTX_3090] * 4, p2p=P2p.OK, virtualization="kvm"),
        host(*[H100] * 8, nvlinks=18),
    )
    for model in (hf(), gguf(), gguf(block_mib=500))
    for objective in ("latency", "throughput", "context")
    for keys in ({}, {"strategy": "replicas"}, {"concurrency": 16, "context": 1024})
    if not (model.format == "safetensors" and machine.gpus[-1].name == "RTX 3060" and keys)
    if not (model.weights_mib > 12000 and machine.gpus[-1].name == "RTX 3060" and keys)
] + [
    (TWO, gguf(), LAB),
    (host(R9700, R9700), gguf(), {"strategy": "layer_split"}),
    (TWO, hf(), {"strategy": "pipeline_parallel", "flags": {"--enforce-eager": None}}),
]


@pytest.mark.parametrize(("machine", "model", "keys"), PLANS)
def test_every_command_line_passes_the_runtimes_own_parser(
    machine: Host, model: ModelSpec, keys: dict[str, Any]
) -> None:
    made = planned(machine, model, **keys)
    services = rendered(machine, model, **keys)
    assert len(services) == made.chosen.replicas
    for service in services:
        assert check(made.chosen.runtime, service.argv) == ()
        assert all(word.startswith("--") for word in service.argv if word.startswith("-"))
        assert service.health_path == "/health" and str(service.port) == value(service, "--port")
    assert tuple(index for service in services for index in service.gpus) == made.chosen.gpus


def test_code_of_the_repository_runs_only_where_it_is_asked_for() -> None:
    (service,) = rendered(TWO, hf(), strategy="tensor_parallel", trust_remote_code=True)
    assert "--trust-remote-code" in service.argv
    (service,) = rendered(TWO, hf(), strategy="tensor_parallel", trust_remote_code=False)
    assert "--trust-remote-code" not in service.argv


def test_vllm_is_told_its_sizes() -> None:
    (service,) = rendered(TWO, hf(), strategy="tensor_parallel", context=4096, concurrency=16)
    assert service.argv[:3] == ("/opt/r/bin/vllm", "serve", "org/model")
    assert value(service, "--tensor-parallel-size") == "2"
    assert value(service, "--max-model-len") == "4096"
    assert value(service, "--max-num-seqs") == "16"
    assert value(service, "--gpu-memory-utilization") == "0.92"
    assert "--revision" not in service.argv, "the model is fetched at its commit before"
    assert value(service, "--host") == "127.0.0.1"
    assert service.name == value(service, "--served-model-name") == "chat"
    assert environment(service) == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
    }


def test_replicas_have_their_own_names_ports_and_cards() -> None:
    services = rendered(TWO, hf(), strategy="replicas", port=9000)
    assert [service.name for service in services] == ["chat-0", "chat-1"]
    assert [service.port for service in services] == [9000, 9001]
    assert [service.gpus for service in services] == [(0,), (1,)]
    assert [environment(s)["CUDA_VISIBLE_DEVICES"] for s in services] == ["0", "1"]


def test_replicas_of_teams_keep_each_team_together() -> None:
    services = rendered(host(*[RTX_3090] * 4), hf(), strategy="replicas", tensor_parallel_size=2)
    assert [service.gpus for service in services] == [(0, 1), (2, 3)]
    assert [environment(s)["CUDA_VISIBLE_DEVICES"] for s in services] == ["0,1", "2,3"]


def test_each_replica_runs_its_share_of_the_requests() -> None:
    services = rendered(TWO, hf(), strategy="replicas", concurrency=80)
    assert {value(service, "--max-num-seqs") for service in services} == {"40"}


def test_vllm_keeps_its_own_number_of_requests_where_none_is_wished() -> None:
    (service,) = rendered(host(H100), hf())
    assert "--max-num-seqs" not in service.argv


def test_experts_cache_types_and_offloaded_weights_are_told() -> None:
    experts = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
    block = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    model = hf(dense(**experts, hidden_size=2048, num_hidden_layers=142, quantization_config=block))
    machine = host(*[RTX_4090] * 4, memory_available_mib=65536)
    keys = {"kv_cache_dtype": "fp8", "cpu_offload_gib": 1.5}
    (service,) = rendered(
        machine, model, strategy="tensor_parallel", tensor_parallel_size=4, **keys
    )
    # 768 / 4 columns are no whole blocks of 128: experts are dealt whole.
    assert "--enable-expert-parallel" in service.argv
    assert value(service, "--kv-cache-dtype") == "fp8"
    assert value(service, "--cpu-offload-gb") == "1.5"
    assert check("vllm", service.argv) == ()


def test_teams_in_a_pipeline_are_told_in_their_order() -> None:
    keys = {"strategy": "tensor_pipeline_parallel", "tensor_parallel_size": 2}
    machine = host(RTX_4090, RTX_3090, RTX_4090, RTX_3090)
    (service,) = rendered(machine, hf(dense(num_hidden_layers=64)), **keys)
    assert service.gpus == (1, 3, 0, 2)
    assert value(service, "--tensor-parallel-size") == "2"
    assert value(service, "--pipeline-parallel-size") == "2"
    assert environment(service)["CUDA_VISIBLE_DEVICES"] == "1,3,0,2"


def test_custom_all_reduce_goes_with_peer_access() -> None:
    (service,) = rendered(TWO, hf(), strategy="tensor_parallel", env={"NCCL_P2P_DISABLE": "1"})
    assert "--disable-custom-all-reduce" in service.argv
    (service,) = rendered(TWO, hf(), strategy="tensor_parallel")
    assert "--disable-custom-all-reduce" not in service.argv


def test_a_flag_of_the_wish_replaces_ours_and_others_are_appended() -> None:
    (service,) = rendered(TWO, hf(), flags={"--max-num-seqs": 3, "--kv-cache-dtype": "fp8"})
    assert service.argv.count("--max-num-seqs") == 1 and value(service, "--max-num-seqs") == "3"
    assert service.argv[-2:] == ("--kv-cache-dtype", "fp8")


def test_the_lab_splits_a_tiny_model_over_named_devices() -> None:
    model = gguf(block_mib=3)
    (service,) = rendered(TWO, model, **LAB)
    assert value(service, "--device") == "RPC0,RPC1"
    assert value(service, "--split-mode") == "layer"
    assert service.environment == () and service.gpus == (0, 1)
    split = [int(n) for n in value(service, "--tensor-split").split(",")]
    assert counts(device_of_unit(split, 33), 2) == tuple(split)
    # llama-server looks a device up while it reads --device.
    assert service.argv.index("--rpc") < service.argv.index("--device")


def test_without_the_pin_the_tiny_model_stays_on_one_card_and_says_why() -> None:
    made = planned(TWO, gguf(block_mib=3), **{k: v for k, v in LAB.items() if k != "strategy"})
    assert made.chosen.strategy is Strategy.SINGLE
    assert Strategy.LAYER_SPLIT in {r.candidate.strategy for r in made.rejected}
    (service,) = runtime("llama.cpp").render(made, "llama-server", "m.gguf")
    assert value(service, "--device") == "RPC0" and value(service, "--split-mode") == "none"


def test_llama_server_has_a_slot_for_every_request() -> None:
    (service,) = rendered(TWO, gguf(), strategy="single", context=4096, concurrency=3)
    assert value(service, "--ctx-size") == "12288" and value(service, "--parallel") == "3"
    assert value(service, "--fit") == "off" and value(service, "--gpu-layers") == "all"


def test_devices_follow_the_vendor() -> None:
    (service,) = rendered(host(R9700, R9700), gguf(), strategy="layer_split")
    assert value(service, "--device") == "ROCm0,ROCm1"
    replicas = rendered(TWO, gguf(), objective="throughput")
    assert {value(service, "--device") for service in replicas} == {"CUDA0"}


def test_runtimes_are_found_by_name() -> None:
    assert [module.NAME for module in RUNTIMES] == [
        "vllm",
        "llama.cpp",
        "sglang",
        "llama_cpp.server",
    ]
    assert all(runtime(module.NAME) is module for module in RUNTIMES)
    with pytest.raises(WishError, match=r"vllm, llama\.cpp, sglang"):
        runtime("tgi")
