"""A plan or a refusal as plain values for `--json`; docs/plan-json.md describes them.

Keys are the field names of `multigpu.plan` with their units and stable; what is unknown is null,
with the reason in `unknown`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from multigpu.as_json import as_json
from multigpu.choice.nearest import nearest
from multigpu.errors import MultigpuError, NoPlan
from multigpu.fetching import local_path
from multigpu.gpus.gpu_data import gpu_data
from multigpu.hardware import Gpu, Host
from multigpu.listening import behind
from multigpu.page.candidate_json import Json, mib, predicted_json, way_json
from multigpu.plan import (
    ModelSpec,
    Plan,
    Reason,
    Rejected,
    Service,
    Wish,
    Workload,
)
from multigpu.rule_list import LOST
from multigpu.runtimes import runtime
from multigpu.speed import predict
from multigpu.workload import workload

SCHEMA = 1
PROGRAMS = {"llama.cpp": "llama-server", "llama_cpp.server": "python"}
"""What `command` begins with where the wish names no executable and the runtime's name is none."""


def plan_json(plan: Plan, host: Host, *, candidates: bool = False) -> Json:
    """The document of a host that has a plan; `candidates` adds every way with its prediction."""
    document = {
        **_asked(host, plan.model, plan.workload),
        "chosen": _chosen(plan),
        "predicted": predicted_json(plan.chosen),
        "reasons": as_json(plan.reasons),
        "rejected": [_rejected(item) for item in plan.rejected],
        "warnings": as_json(plan.warnings),
        "assumptions": list(plan.assumptions),
        "justification": as_json(plan.justification),
        "pinned": list(plan.pinned),
    }
    if candidates:
        ways = [Rejected(plan.chosen, ()), *plan.rejected]
        document["candidates"] = _candidates(ways, host, plan.model, plan.workload)
    return document


def refusal_json(
    error: NoPlan, host: Host, model: ModelSpec, wish: Wish, *, candidates: bool = False
) -> Json:
    """The document of a host where nothing fits: `chosen` and `predicted` are null.

    `reasons` are the refusal in one line, what stands against the nearest way, and the smallest
    changes that would help.
    """
    load = workload(model, wish)
    near = nearest(error.rejected).reasons if error.rejected else ()
    document = {
        **_asked(host, model, load),
        "chosen": None,
        "predicted": None,
        "reasons": [_line(error), *as_json([*near, *error.changes])],
        "rejected": [_rejected(item) for item in error.rejected],
        "warnings": as_json(list(_doubts(host, model))),
        "assumptions": [],
        "justification": None,
        "pinned": [],
    }
    if candidates:
        document["candidates"] = _candidates(error.rejected, host, model, load)
    return document


def error_json(error: MultigpuError) -> Json:
    """The document where the wish, the model or the host could not be read."""
    return {
        "schema": SCHEMA,
        "chosen": None,
        "predicted": None,
        "error": type(error).__name__,
        "reasons": [_line(error)],
        "rejected": [],
        "warnings": [],
    }


def _line(error: MultigpuError) -> Json:
    """The refusal as the first of the reasons; it is no rule's."""
    return {"rule": None, "found": str(error), "needed": None, "hint": None}


def every_way(
    ways: Iterable[Rejected], host: Host, model: ModelSpec, load: Workload
) -> Iterator[Rejected]:
    """The ways with the speed of each, those that do not fit included: what they would give."""
    for item in ways:
        found = item.candidate
        if found.predicted is None:
            found = replace(found, predicted=predict(found, host, model, load))
        yield Rejected(found, item.reasons)


def holds(item: Rejected) -> bool:
    """True for a way that keeps every rule and lost the ranking only."""
    return all(reason.rule in LOST.meanings for reason in item.reasons)


# --- what was asked -----------------------------------------------------------------------------


def _asked(host: Host, model: ModelSpec, load: Workload) -> Json:
    return {
        "schema": SCHEMA,
        "host": {"name": host.name, "gpus": [_gpu(gpu) for gpu in host.gpus], **_pairs(host)},
        "model": _model(model),
        "workload": as_json(load),
    }


def _gpu(gpu: Gpu) -> Json:
    """The card as planned with; bandwidth and arithmetic are null for a model not known."""
    data = gpu_data(gpu)
    return {
        "index": gpu.index,
        "name": gpu.name,
        "memory_mib": gpu.memory_mib,
        "memory_free_mib": gpu.memory_free_mib,
        "pcie_gen": gpu.pcie.gen_max,
        "pcie_lanes": gpu.pcie.width_path or gpu.pcie.width_current,
        "power_limit_w": gpu.power_limit_w,
        "memory_bandwidth_gb_s": data.memory_bandwidth_gb_s if data else None,
        "fp16_tflops": data.fp16_tflops if data else None,
        "source": data.source if data else None,
    }


def _pairs(host: Host) -> Json:
    keys = ("a", "b", "path", "p2p_read", "nvlinks", "nvlink_gb_s", "xgmi_links", "xgmi_gb_s")
    return {"pairs": [{key: as_json(getattr(pair, key)) for key in keys} for pair in host.pairs]}


MODEL_KEYS = (
    *("name", "format", "model_type", "quantization", "dtype", "kv_cache_dtype"),
    *("num_hidden_layers", "num_parameters", "active_parameters", "max_position_embeddings"),
    *("weights_exact", "lower_bound"),
)


def _model(model: ModelSpec) -> Json:
    facts = {key: as_json(getattr(model, key)) for key in MODEL_KEYS}
    return {**facts, "weights_mib": mib(model.weights_mib)}


def _doubts(host: Host, model: ModelSpec) -> Iterator[Reason]:
    if model.lower_bound:
        yield Reason("model-lower-bound", f"not counted: {'; '.join(model.lower_bound)}")
    for gpu in host.usable:
        if gpu_data(gpu) is None:
            yield Reason("gpu-unknown", f"GPU {gpu.index} ({gpu.name}) is not in the table")


# --- ways ----------------------------------------------------------------------------------------


def _chosen(plan: Plan) -> Json:
    """The way with what it is started by; with replicas `command` is that of the first."""
    services = _services(plan)
    return {
        **way_json(plan.chosen),
        "command": list(services[0].argv),
        "environment": {s.name: s.value for s in services[0].environment},
        "services": [
            {
                "name": service.name,
                "port": service.port,
                "gpus": list(service.gpus),
                "command": list(service.argv),
                "environment": {s.name: s.value for s in service.environment},
            }
            for service in services
        ],
    }


def _services(plan: Plan) -> Sequence[Service]:
    name = plan.chosen.runtime
    program = plan.wish.executable or PROGRAMS.get(name, name)
    return runtime(name).render(behind(plan), program, local_path(plan.model))


def _rejected(item: Rejected) -> Json:
    return {**way_json(item.candidate), "reasons": as_json(item.reasons)}


def _candidates(
    ways: Iterable[Rejected], host: Host, model: ModelSpec, load: Workload
) -> list[Json]:
    """Every way: the chosen one, those that lost to it by rank, those that break a rule."""
    return [
        {
            **way_json(item.candidate),
            "fits": holds(item),
            "predicted": predicted_json(item.candidate),
            "reasons": as_json(item.reasons),
        }
        for item in every_way(ways, host, model, load)
    ]
