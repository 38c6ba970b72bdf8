"""SGLang 0.5.23: how it can be spread, what it will hold of each card, and its command line.

It is planned where it is wished for by name; it is not installed by us yet, so `executable` must
name one on the host. Facts are those of the 0.5.23 wheel: `server_args.py`,
`arg_groups/memory_hook.py`, `distributed/utils.py` (stages), `distributed/bootstrap.py` (balance).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from multigpu import install
from multigpu import memory as m
from multigpu.errors import WishError
from multigpu.hardware import Host, Vendor
from multigpu.labels import cards, gib
from multigpu.plan import (
    Candidate,
    Check,
    ModelSpec,
    Plan,
    Reason,
    Service,
    Source,
    Wish,
    Workload,
)
from multigpu.progress import Progress
from multigpu.runtimes import benchmarking
from multigpu.runtimes import sglang_memory as memory
from multigpu.runtimes.proposals import Ways
from multigpu.runtimes.rendering import merged, replica_services
from multigpu.runtimes.sharding import sharding
from multigpu.runtimes.signs import equal
from multigpu.runtimes.spread import spread

NAME = "sglang"
VERSION = "0.5.23"

# SGLang asks the same of heads and widths as vLLM, whose layers it inherited; its wheels for CUDA
# 13 have no code for cards before Turing, FlashInfer none before 7.5.
MINIMUM = (7, 5)
# A rank must have at least this share of what another one of its team has free
# (`_check_tp_memory_balance`).
BALANCE = 0.9
ON_REQUEST = "SGLang is planned where it is wished for"


def candidates(host: Host, model: ModelSpec, wish: Wish) -> tuple[Candidate, ...]:
    """Nothing unless `runtime: sglang` is wished; then the same ways as vLLM has."""
    if wish.runtime != NAME:
        return ()
    return spread(WAYS, host, model, wish)


def objections(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    """What stands against serving this candidate with SGLang."""
    if wish.runtime != NAME:
        hint = "wish runtime = sglang and name its executable on the host"
        yield Reason("runtime-on-request", ON_REQUEST, None, hint)
    if model.format == "gguf":
        hint = "serve it with llama.cpp, or name the Transformers repository of the model"
        yield Reason("model-format", "the model is a GGUF", "safetensors for SGLang", hint)
    yield from _cards(candidate, host)
    yield from sharding(model, candidate.tensor_parallel_size, candidate.expert_parallel)
    yield from _stages(candidate, model)
    yield from balance(candidate, host, wish)


def _cards(candidate: Candidate, host: Host) -> Iterator[Reason]:
    """Cards that the wheel has code for."""
    old = [
        index
        for index in candidate.gpus
        if host.gpu(index).vendor is Vendor.NVIDIA
        and (host.gpu(index).compute_capability or MINIMUM) < MINIMUM
    ]
    if old:
        needed = "compute capability 7.5 or newer"
        yield Reason("compute-capability", f"{cards(old)} is older", needed, "use llama.cpp")


def _stages(candidate: Candidate, model: ModelSpec) -> Iterator[Reason]:
    layers, n = candidate.layers or (), model.num_hidden_layers
    if candidate.pipeline_parallel_size > 1 and (sum(layers) != n or min(layers, default=0) < 1):
        found = f"stages {'+'.join(str(x) for x in layers) or 'none'} for {n} blocks"
        needed = f"{candidate.pipeline_parallel_size} stages that add up to {n}"
        yield Reason("pipeline-stages", found, needed, "pin layers that add up, or fewer cards")


def balance(candidate: Candidate, host: Host, wish: Wish) -> Iterator[Reason]:
    """Ranks of a team must have nearly the same memory free."""
    if candidate.tensor_parallel_size == 1:
        return
    if wish.env.get("SGLANG_ENABLE_TP_MEMORY_INBALANCE_CHECK") == "0":
        return
    free = {index: m.free_mib(host.gpu(index), wish) for index in candidate.gpus}
    least, most = min(free.values()), max(free.values())
    if least < BALANCE * most:
        found = f"{gib(least)} to {gib(most)} GiB free on {cards(candidate.gpus)}"
        needed = f"at least {BALANCE:.0%} of the fullest on every card of a team"
        hint = "free the smaller card, or take pipeline parallel with vLLM"
        yield Reason("memory-unbalanced", found, needed, hint)


def _refuses(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> bool:
    return bool(tuple(_cards(candidate, host)))


WAYS = Ways(NAME, memory.sized, None, _refuses)


def cautions(candidate: Candidate, host: Host, model: ModelSpec) -> Iterator[Reason]:
    """SGLang sizes itself by the smallest card of the host, also where that one is not used."""
    used = min(host.gpu(index).memory_mib or 0 for index in candidate.gpus)
    smallest = min(host.gpus, key=lambda gpu: gpu.memory_mib or 0)
    if smallest.index not in candidate.gpus and (smallest.memory_mib or 0) < BALANCE * used:
        found = f"GPU {smallest.index} is the smallest card and sets the share that stays free"
        hint = "pin gpu_memory_utilization (mem-fraction-static)"
        yield Reason("smallest-card-counts", found, None, hint)


def render(plan: Plan, executable: str, model_path: str) -> tuple[Service, ...]:
    """One service per replica. `executable` is `sglang`'s path, `model_path` a path or hub id."""
    return replica_services(
        plan,
        lambda port: _argv(plan, executable, model_path, port),
        health_path="/health",
        progress=progress(plan),
    )


def progress(plan: Plan) -> Progress:
    """With `--enable-metrics` (`observability/metrics_collector.py`); never guarded by a key.

    The tokens of the moment count prefill and decode of every step; those of requests move when an
    answer, or a part of a stream, is handed out.
    """
    busy = ("sglang:num_running_reqs", "sglang:num_queue_reqs")
    moving = ("sglang:realtime_tokens_total", "sglang:generation_tokens_total")
    return Progress("/metrics", busy, moving)


def benchmark(plan: Plan, url: str, model_path: str) -> tuple[str, ...]:
    """`python -m sglang.benchmark.serving`; random tokens, which no data set is fetched for.

    A prefix that requests share is the system prompt of one group of the generated data set.
    """
    load = plan.workload
    common = {
        "backend": "sglang-oai",
        "base_url": url,
        "model": model_path,
        "served_model_name": benchmarking.served_name(plan),
        "tokenizer": model_path,
    }
    many = benchmarking.requests(load)
    flags = benchmarking.options(
        **common,
        **(_shared(load, many) if load.shared_prefix_tokens else _random(load, many)),
        max_concurrency=load.concurrency,
        output_file="sglang.jsonl",
    )
    return ("python", "-m", "sglang.benchmark.serving", *flags)


def _random(load: Workload, requests: int) -> dict[str, object]:
    return {
        "dataset_name": "random-ids",
        "random_input_len": load.input_tokens,
        "random_output_len": load.output_tokens,
        "random_range_ratio": 1.0,
        "num_prompts": requests,
    }


def _shared(load: Workload, requests: int) -> dict[str, object]:
    return {
        "dataset_name": "generated-shared-prefix",
        "gsp_num_groups": 1,
        "gsp_prompts_per_group": requests,
        "gsp_system_prompt_len": load.shared_prefix_tokens,
        "gsp_question_len": load.input_tokens - load.shared_prefix_tokens,
        "gsp_output_len": load.output_tokens,
        "gsp_range_ratio": 1.0,
    }


def _argv(plan: Plan, executable: str, model_path: str, port: int) -> tuple[str, ...]:
    flags = merged(_flags(plan, model_path, port), plan.wish.flags)
    return (executable, "serve", *flags)


def _flags(plan: Plan, model_path: str, port: int) -> dict[str, str | None]:
    wish, chosen, model = plan.wish, plan.chosen, plan.model
    flags: dict[str, str | None] = {
        "--model-path": model_path,
        "--host": wish.bind,
        "--port": str(port),
        "--served-model-name": wish.served_model_name or wish.name,
        "--tp-size": str(chosen.tensor_parallel_size),
        "--pp-size": str(chosen.pipeline_parallel_size),
        "--context-length": str(chosen.max_model_len),
        "--mem-fraction-static": f"{chosen.gpu_memory_utilization:g}",
        "--enable-metrics": None,
    }
    if chosen.max_num_seqs is not None:
        flags["--max-running-requests"] = str(chosen.max_num_seqs)
    if chosen.expert_parallel:
        flags["--ep-size"] = str(chosen.tensor_parallel_size)
    if wish.kv_cache_dtype is not None:
        flags["--kv-cache-dtype"] = wish.kv_cache_dtype
    if model.source is Source.HUB and model.revision:
        flags["--revision"] = model.revision
    if any(s.name == "NCCL_P2P_DISABLE" and s.value == "1" for s in plan.environment):
        flags["--disable-custom-all-reduce"] = None
    return flags


def recipe(host: Host, wish: Wish, files: install.Files) -> install.Recipe:
    """The operator's own. Raises WishError where `executable` names none."""
    if wish.executable is None:
        raise WishError(
            "runtime sglang is not installed by multigpu yet: install it on the host and set "
            "executable to the path of its program `sglang`"
        )
    return install.already_there(wish.executable)


TOKENS = r"max_total_num_tokens=(\d+)"
RANKS = r"server_args=ServerArgs\(.*\btp_size=(\d+).*?\bpp_size=(\d+)"
LOG_PATTERNS = (RANKS, TOKENS, r"Load weight end", r"The server is fired up")


def signs(plan: Plan, lines: Sequence[str]) -> Iterator[Check]:
    """As many ranks as planned."""
    chosen = plan.chosen
    expected = f"{chosen.tensor_parallel_size}/{chosen.pipeline_parallel_size}"
    yield from equal("ranks", "tensor/pipeline parallel", RANKS, lines, expected)
