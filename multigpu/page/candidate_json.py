"""One way to serve as plain values: what it is, its memory by card, its speed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multigpu.as_json import as_json
from multigpu.labels import label
from multigpu.plan import Candidate, Estimate, Memory, Prediction

Json = dict[str, Any]
UNASKED = Prediction(unknown=("no speed was asked for",))


def way_json(candidate: Candidate) -> Json:
    """What tells one way from another."""
    return {
        "label": label(candidate),
        "runtime": candidate.runtime,
        "strategy": str(candidate.strategy),
        "gpus": list(candidate.gpus),
        "tensor_parallel_size": candidate.tensor_parallel_size,
        "pipeline_parallel_size": candidate.pipeline_parallel_size,
        "replicas": candidate.replicas,
        "layers": as_json(candidate.layers),
        "expert_parallel": candidate.expert_parallel,
        "gpu_memory_utilization": candidate.gpu_memory_utilization,
        "max_num_seqs": candidate.max_num_seqs,
        "max_model_len": candidate.max_model_len,
    }


def predicted_json(candidate: Candidate) -> Json:
    """Memory by card and term, the KV cache of one engine, and speeds under the workload."""
    found = candidate.predicted or UNASKED
    cards = [
        _memory(gpu, memory) for gpu, memory in zip(candidate.gpus, candidate.memory, strict=False)
    ]
    return {
        "memory": cards,
        "kv_cache_mib": cards[0]["kv_cache_mib"] if cards else None,
        "kv_cache_tokens": candidate.kv_tokens,
        "kv_cache_sequences": candidate.kv_sequences,
        "max_model_len": candidate.context_limit,
        "decode_tokens_per_s": _estimate(found.decode_tokens_per_s),
        "prefill_tokens_per_s": _estimate(found.prefill_tokens_per_s),
        "ttft_ms": _estimate(found.ttft_ms),
        "tpot_ms": _estimate(found.tpot_ms),
        "running": found.running,
        "measured": found.measured,
        "basis": found.basis or None,
        "unknown": list(found.unknown),
    }


def _memory(gpu: int, memory: Memory) -> Json:
    terms = ("weights", "kv_cache", "activations", "graphs", "overhead", "total")
    also = ("capacity", "other")
    return {
        "gpu": gpu,
        **{f"{term}_mib": mib(getattr(memory, f"{term}_mib")) for term in (*terms, *also)},
        "fits": memory.fits,
    }


def _estimate(estimate: Estimate | None) -> Mapping[str, float] | None:
    if estimate is None:
        return None
    return {name: _digits(getattr(estimate, name)) for name in ("value", "low", "high")}


def _digits(value: float) -> float:
    """Four digits, which is more than any prediction knows."""
    return float(f"{value:.4g}")


def mib(value: float) -> float:
    """A tenth of a MiB is more than any prediction knows."""
    return round(float(value), 1)
