"""Plans that tests are made from: one of each kind, small and round."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from multigpu.plan import (
    Candidate,
    LayerCache,
    Memory,
    ModelSpec,
    Plan,
    Reason,
    Rejected,
    Setting,
    Source,
    Strategy,
    Wish,
)

UUIDS = ("GPU-aaaaaaaa-0000-0000-0000-000000000000", "GPU-bbbbbbbb-1111-1111-1111-111111111111")

MODEL = ModelSpec(
    name="Qwen/Qwen3-32B-AWQ",
    source=Source.HUB,
    path="Qwen/Qwen3-32B-AWQ",
    format="safetensors",
    model_type="qwen3",
    quantization="awq",
    dtype="float16",
    num_hidden_layers=64,
    num_attention_heads=64,
    num_key_value_heads=8,
    head_dim=128,
    hidden_size=5120,
    intermediate_size=25600,
    vocab_size=151936,
    max_position_embeddings=40960,
    layers=(LayerCache("full", 8, 128),) * 64,
    layers_mib=(240.5,) * 64,
    embedding_mib=1484.0,
    output_mib=1484.0,
)

MEMORY = Memory(10000.0, 8000.0, 1200.0, 500.0, 23800.0)

TENSOR_PARALLEL = Candidate(
    runtime="vllm",
    strategy=Strategy.TENSOR_PARALLEL,
    gpus=(0, 1),
    tensor_parallel_size=2,
    memory=(MEMORY, MEMORY),
    kv_tokens=60000,
    gpu_memory_utilization=0.9,
)

LAYER_SPLIT = Candidate(
    runtime="llama.cpp",
    strategy=Strategy.LAYER_SPLIT,
    gpus=(0, 1),
    layers=(33, 32),
    memory=(MEMORY, MEMORY),
    kv_tokens=61000,
)

SETTING = Setting("CUDA_VISIBLE_DEVICES", ",".join(UUIDS), "the planned cards, in this order")


def plan(chosen: Candidate = TENSOR_PARALLEL, *, simulated: bool = False, **wish: Any) -> Plan:
    """A plan for two cards of the host tower; keywords are those of Wish."""
    return Plan(
        host="tower",
        wish=replace(Wish("chat", MODEL.name), **wish),
        model=MODEL,
        chosen=chosen,
        gpu_uuids=UUIDS[: len(chosen.gpus)],
        reasons=(Reason("kv-fits", "needs 19.2 GiB of KV: one card cannot hold it"),),
        rejected=(Rejected(LAYER_SPLIT, (Reason("slower", "prefill 40 % slower"),)),),
        warnings=(),
        environment=(SETTING,),
        simulated=simulated,
    )
