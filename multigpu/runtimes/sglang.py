"""SGLang 0.5.23: how it can be spread, what it will hold of each card, and its command line.

It is planned where it is wished for by name, and where requests share most of their prompts
(`multigpu.prefixes`, `multigpu.choice.shared_prefix`). Facts are those of the 0.5.23 wheel:
`arg_groups/fields/` (flags), `arg_groups/memory_hook.py`, `distributed/utils.py` (stages),
`distributed/bootstrap.py` (balance), `managers/schedule_policy.py` (queue).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from multigpu import install
from multigpu.errors import MultigpuError
from multigpu.groups import pool
from multigpu.hardware import Host, Vendor
from multigpu.plan import (
    Candidate,
    Check,
    ModelSpec,
    Plan,
    Reason,
    Service,
    Strategy,
    Wish,
    Workload,
)
from multigpu.progress import Progress
from multigpu.runtimes import benchmarking
from multigpu.runtimes import sglang_memory as memory
from multigpu.runtimes import sglang_rules as rules
from multigpu.runtimes.proposals import Ways
from multigpu.runtimes.rendering import merged, replica_services
from multigpu.runtimes.signs import REDEPLOY, equal, last
from multigpu.runtimes.spread import spread

NAME = "sglang"
VERSION = "0.5.23"

# A scheduler that makes no step for so long ends the server (SIGQUIT), rc 137; SGLang's default.
WATCHDOG_S = 300
# torch's own limit of collectives; ranks also wait for each other while weights are read.
DIST_TIMEOUT_S = 600


def candidates(host: Host, model: ModelSpec, wish: Wish) -> tuple[Candidate, ...]:
    """The same ways as vLLM has, where it is wished for or a shared prefix pays.

    Where a shared prefix is wished and does not pay, one unsized candidate, for the reason.
    """
    if wish.runtime == NAME:
        return spread(WAYS, host, model, wish)
    if wish.runtime is not None or not wish.shared_prefix_tokens or model.format == "gguf":
        return ()
    if rules.not_offered(model, wish):
        first = pool(host, wish.gpus)[:1]
        return tuple(Candidate(NAME, Strategy.SINGLE, (gpu.index,)) for gpu in first)
    return spread(WAYS, host, model, wish)


def _refuses(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> bool:
    return bool(tuple(rules.capability(candidate, host)))


objections = rules.objections

WAYS = Ways(NAME, memory.sized, None, _refuses)


def cautions(candidate: Candidate, host: Host, model: ModelSpec) -> Iterator[Reason]:
    """SGLang sizes itself by the smallest card of the host, also where that one is not used."""
    used = min(host.gpu(index).memory_mib or 0 for index in candidate.gpus)
    smallest = min(host.gpus, key=lambda gpu: gpu.memory_mib or 0)
    if smallest.index not in candidate.gpus and (smallest.memory_mib or 0) < rules.BALANCE * used:
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
    wish, chosen = plan.wish, plan.chosen
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
        "--watchdog-timeout": str(WATCHDOG_S),
    }
    if chosen.tensor_parallel_size * chosen.pipeline_parallel_size > 1:
        flags["--dist-timeout"] = str(max(DIST_TIMEOUT_S, wish.start_s))
    if plan.workload.shared_prefix_tokens:
        flags["--schedule-policy"] = "lpm"
    if chosen.max_num_seqs is not None:
        flags["--max-running-requests"] = str(chosen.max_num_seqs)
    if chosen.expert_parallel:
        flags["--ep-size"] = str(chosen.tensor_parallel_size)
    if wish.kv_cache_dtype is not None:
        flags["--kv-cache-dtype"] = wish.kv_cache_dtype
    if wish.trust_remote_code:
        flags["--trust-remote-code"] = None
    if any(s.name == "NCCL_P2P_DISABLE" and s.value == "1" for s in plan.environment):
        flags["--disable-custom-all-reduce"] = None
    return flags


def recipe(host: Host, wish: Wish, files: install.Files) -> install.Recipe:
    """From PyPI by the hashed lock; its wheel is manylinux_2_34. Raises MultigpuError for cards of
    AMD, for which PyPI has none.
    """
    if wish.executable is not None:
        return install.already_there(wish.executable)
    if any(gpu.vendor is not Vendor.NVIDIA for gpu in host.gpus):
        raise MultigpuError(
            f"{wish.name}: SGLang's wheel of PyPI is built for CUDA and {host.name} is planned on "
            "AMD cards: set executable to a ROCm build of SGLang on the host"
        )
    return install.python_runtime(
        NAME, host, wish, files, version=VERSION, program="sglang", glibc="2.34"
    )


TOKENS = r"max_total_num_tokens=(\d+)"
# Releases before 0.5.20 print ServerArgs(tp_size=2, ...), later ones a dict.
RANKS = r"server_args=.*\btp_size\b'?[=:] ?(\d+).*?\bpp_size\b'?[=:] ?(\d+)"
RADIX = r"server_args=.*\bdisable_radix_cache\b'?[=:] ?(True|False)"
UNBALANCED = r"The memory capacity is unbalanced"
LOG_PATTERNS = (
    RANKS,
    TOKENS,
    UNBALANCED,
    r"Load weight end",
    r"KV Cache is allocated",
    r"Memory pool end",
    r"The server is fired up",
)


def signs(plan: Plan, lines: Sequence[str]) -> Iterator[Check]:
    """As many ranks as planned, a cache that holds the context, and RadixAttention where it counts.

    SGLang turns the radix tree off by itself for some models and modes, and says so in its
    resolved arguments.
    """
    chosen = plan.chosen
    ranks = f"{chosen.tensor_parallel_size}/{chosen.pipeline_parallel_size}"
    yield from equal("ranks", "tensor/pipeline parallel", RANKS, lines, ranks)
    pool = last(TOKENS, lines)
    if pool is not None:
        tokens, context = int(pool[1]), chosen.max_model_len or 0
        found = f"KV cache of {tokens:,} tokens ({chosen.kv_tokens or 0:,} predicted)"
        expected = f"at least one context of {context:,}"
        yield Check("KV cache", tokens >= context, found, expected, REDEPLOY)
    radix = last(RADIX, lines)
    if radix is not None and plan.workload.shared_prefix_tokens:
        on = radix[1] == "False"
        found = f"RadixAttention is {'on' if on else 'off'}"
        hint = "SGLang does not keep prefixes for this model: pin runtime = 'vllm'"
        yield Check("prefixes", on, found, "RadixAttention is on", hint)
    if last(UNBALANCED, lines) is not None:
        found = "SGLang found less than 0.9 of another card's memory free on one"
        yield Check("balance", False, found, "like memory on the cards of a team", REDEPLOY)
