"""vLLM 0.33.0: how it can be spread, what it will hold of each card, and its command line.

Facts are those of the 0.33.0 wheel: `config/parallel.py`, `distributed/utils.py`,
`v1/core/kv_cache_utils.py` (KV tokens = blocks / blocks of one request x its length, the smallest
rank decides).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from multigpu import install
from multigpu.groups import by_capability
from multigpu.hardware import Host
from multigpu.memory import free_mib
from multigpu.mix import Mix, mix
from multigpu.placement import even
from multigpu.plan import (
    Candidate,
    Check,
    ModelSpec,
    Plan,
    Reason,
    Service,
    Source,
    Strategy,
    Wish,
)
from multigpu.runtimes import vllm_memory as memory
from multigpu.runtimes import vllm_rules
from multigpu.runtimes.candidates import groups_of, sizes, tensor_parallel_teams, whole
from multigpu.runtimes.rendering import merged, replica_services
from multigpu.runtimes.signs import REDEPLOY, equal, last

NAME = "vllm"
VERSION = "0.33.0"


def candidates(host: Host, model: ModelSpec, wish: Wish) -> tuple[Candidate, ...]:
    """Every way worth asking the rules about, with layers and memory filled in."""
    found = dict.fromkeys(_spread(host, model, wish))
    return tuple(memory.sized(candidate, host, model, wish) for candidate in found)


def _spread(host: Host, model: ModelSpec, wish: Wish) -> Iterator[Candidate]:
    for candidate in whole(NAME, host, wish):
        yield _ordered(candidate, host, wish)
    for n in sizes(host, wish):
        for gpus in groups_of(host, wish, n):
            one = Candidate(NAME, Strategy.TENSOR_PARALLEL, gpus, tensor_parallel_size=n)
            yield _ordered(one, host, wish)
            yield from _pipelines(host, model, wish, gpus)
    for group, gpus, size, count in tensor_parallel_teams(host, wish):
        if count == len(group) // size:
            yield Candidate(
                NAME, Strategy.REPLICAS, gpus, tensor_parallel_size=size, replicas=count
            )
        yield Candidate(
            NAME,
            Strategy.PIPELINE_PARALLEL,
            gpus,
            tensor_parallel_size=size,
            pipeline_parallel_size=count,
            layers=_pinned_layers(wish, count) or even(model.num_hidden_layers, count),
        )


def _ordered(candidate: Candidate, host: Host, wish: Wish) -> Candidate:
    """Lowest compute capability first, unless the operator gave an order."""
    if wish.gpus is not None and len(wish.gpus) == len(candidate.gpus):
        return replace(candidate, gpus=wish.gpus)
    return replace(candidate, gpus=by_capability(host, candidate.gpus))


def _pinned_layers(wish: Wish, stages: int) -> tuple[int, ...] | None:
    return wish.layers if wish.layers is not None and len(wish.layers) == stages else None


def _pipelines(
    host: Host, model: ModelSpec, wish: Wish, gpus: tuple[int, ...]
) -> Iterator[Candidate]:
    """The even pipeline, and one partitioned by memory where the cards are not alike."""
    n = len(gpus)
    base = _ordered(
        Candidate(NAME, Strategy.PIPELINE_PARALLEL, gpus, pipeline_parallel_size=n), host, wish
    )
    pinned = _pinned_layers(wish, n)
    if pinned is not None:
        yield replace(base, layers=pinned)
        return
    yield replace(base, layers=even(model.num_hidden_layers, n))
    if mix(tuple(host.gpu(i) for i in gpus)) is not Mix.MATCHED or _unequal(host, base, wish):
        layers = memory.partitioned(base, host, model, wish)
        if layers is not None:
            yield replace(base, layers=layers)


def _unequal(host: Host, candidate: Candidate, wish: Wish) -> bool:
    free = [free_mib(host.gpu(index), wish) for index in candidate.gpus]
    return min(free) < 0.9 * max(free)


def objections(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    """What stands against serving this candidate with vLLM."""
    yield from vllm_rules.objections(candidate, host, model, wish)


def cautions(candidate: Candidate, host: Host, model: ModelSpec) -> Iterator[Reason]:
    """What works but is slower than the operator may expect."""
    yield from vllm_rules.cautions(candidate, host, model)


def render(plan: Plan, executable: str, model_path: str) -> tuple[Service, ...]:
    """One service per replica. `executable` is `vllm`'s path, `model_path` a path or hub id."""
    return replica_services(
        plan, lambda port: _argv(plan, executable, model_path, port), health_path="/health"
    )


def _argv(plan: Plan, executable: str, model_path: str, port: int) -> tuple[str, ...]:
    flags = merged(_flags(plan, port), plan.wish.flags)
    return (executable, "serve", model_path, *flags)


def _flags(plan: Plan, port: int) -> dict[str, str | None]:
    wish, chosen, model = plan.wish, plan.chosen, plan.model
    flags: dict[str, str | None] = {
        "--host": wish.bind,
        "--port": str(port),
        "--served-model-name": wish.served_model_name or wish.name,
        "--tensor-parallel-size": str(chosen.tensor_parallel_size),
        "--pipeline-parallel-size": str(chosen.pipeline_parallel_size),
        "--max-model-len": str(chosen.max_model_len),
        "--max-num-seqs": str(chosen.max_num_seqs),
        "--gpu-memory-utilization": str(
            chosen.gpu_memory_utilization or memory.GPU_MEMORY_UTILIZATION
        ),
    }
    if model.source is Source.HUB and model.revision:
        flags["--revision"] = model.revision
    if chosen.tensor_parallel_size > 1 and _peer_off(plan):
        # vLLM's own kernel trusts the driver's grant, whatever NCCL was told.
        flags["--disable-custom-all-reduce"] = None
    return flags


def _peer_off(plan: Plan) -> bool:
    return any(s.name == "NCCL_P2P_DISABLE" and s.value == "1" for s in plan.environment)


def recipe(host: Host, wish: Wish, files: install.Files) -> install.Recipe:
    """From PyPI by the hashed lock. Raises MultigpuError when the host's Python is too old."""
    return install.vllm(host, VERSION, files.requirements(f"vllm-{VERSION}"))


WORLD_SIZE = r"world_size=(\d+)"
KV_TOKENS = r"GPU KV cache size: ([\d,]+) tokens"
LOG_PATTERNS = (WORLD_SIZE, KV_TOKENS, r"Custom allreduce is disabled", r"Model loading took")


def signs(plan: Plan, lines: Sequence[str]) -> Iterator[Check]:
    """As many ranks as planned, and a KV cache that holds the wished context."""
    chosen = plan.chosen
    ranks = chosen.tensor_parallel_size * chosen.pipeline_parallel_size
    yield from equal("ranks", "world size", WORLD_SIZE, lines, str(ranks))
    match = last(KV_TOKENS, lines)
    if match is not None:
        tokens = int(match[1].replace(",", ""))
        found = f"KV cache of {tokens:,} tokens ({chosen.kv_tokens or 0:,} predicted)"
        context = chosen.max_model_len or 0
        expected = f"at least one context of {context:,}"
        yield Check("KV cache", tokens >= context, found, expected, REDEPLOY)
