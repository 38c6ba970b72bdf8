"""vLLM 0.33.0: how it can be spread, what it will hold of each card, and its command line.

Facts are those of the 0.33.0 wheel: `config/parallel.py`, `distributed/utils.py`,
`v1/core/kv_cache_utils.py` (KV tokens = blocks / blocks of one request x its length, the smallest
rank decides).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from multigpu import install
from multigpu.errors import MultigpuError
from multigpu.hardware import Host, Vendor
from multigpu.plan import (
    Candidate,
    Check,
    ModelSpec,
    Plan,
    Service,
    Wish,
)
from multigpu.progress import Progress
from multigpu.runtimes import benchmarking, rocm, vllm_rules
from multigpu.runtimes import vllm_memory as memory
from multigpu.runtimes.proposals import Ways
from multigpu.runtimes.rendering import merged, replica_services
from multigpu.runtimes.signs import REDEPLOY, equal, last
from multigpu.runtimes.spread import spread
from multigpu.runtimes.vllm_partition import partitioned
from multigpu.runtimes.vllm_release import LARGE_MAX_NUM_SEQS

NAME = "vllm"
VERSION = "0.33.0"


def candidates(host: Host, model: ModelSpec, wish: Wish) -> tuple[Candidate, ...]:
    """Every way worth asking the rules about, with layers and memory filled in."""
    return spread(WAYS, host, model, wish)


WAYS = Ways(NAME, memory.sized, partitioned, vllm_rules.refuses)


objections = vllm_rules.objections
cautions = vllm_rules.cautions


def render(plan: Plan, executable: str, model_path: str) -> tuple[Service, ...]:
    """One service per replica. `executable` is `vllm`'s path, `model_path` a path or hub id."""
    return replica_services(
        plan,
        lambda port: _argv(plan, executable, model_path, port),
        health_path="/health",
        progress=progress(plan),
    )


def progress(plan: Plan) -> Progress:
    """Always published (`v1/metrics/loggers.py`); the cache moves with every chunk of a prompt."""
    return Progress(
        "/metrics",
        busy=("vllm:num_requests_running", "vllm:num_requests_waiting"),
        moving=(
            "vllm:generation_tokens_total",
            "vllm:prompt_tokens_total",
            "vllm:request_success_total",
            "vllm:kv_cache_usage_perc",
        ),
    )


def benchmark(plan: Plan, url: str, model_path: str) -> tuple[str, ...]:
    """`vllm bench serve`, which needs the extra `vllm[bench]`; random tokens of the exact lengths.

    Tokens that requests share come before the random ones (`benchmarks/datasets/datasets.py`).
    """
    load = plan.workload
    flags = benchmarking.options(
        backend="openai",
        base_url=url,
        endpoint="/v1/completions",
        model=benchmarking.served_name(plan),
        tokenizer=model_path,
        dataset_name="random",
        random_input_len=load.input_tokens - load.shared_prefix_tokens,
        random_prefix_len=load.shared_prefix_tokens,
        random_output_len=load.output_tokens,
        num_prompts=benchmarking.requests(load),
        max_concurrency=load.concurrency,
        num_warmups=min(4, load.concurrency),
        ignore_eos=True,
        save_result=True,
    )
    return ("vllm", "bench", "serve", *flags)


def _argv(plan: Plan, executable: str, model_path: str, port: int) -> tuple[str, ...]:
    flags = merged(_flags(plan, port), plan.wish.flags)
    return (executable, "serve", model_path, *flags)


def _flags(plan: Plan, port: int) -> dict[str, str | None]:
    wish, chosen = plan.wish, plan.chosen
    flags: dict[str, str | None] = {
        "--host": wish.bind,
        "--port": str(port),
        "--served-model-name": wish.served_model_name or wish.name,
        "--tensor-parallel-size": str(chosen.tensor_parallel_size),
        "--pipeline-parallel-size": str(chosen.pipeline_parallel_size),
        "--max-model-len": str(chosen.max_model_len),
        "--gpu-memory-utilization": str(
            chosen.gpu_memory_utilization or memory.GPU_MEMORY_UTILIZATION
        ),
    }
    # A large card takes this number by itself.
    if wish.concurrency is not None or chosen.max_num_seqs != LARGE_MAX_NUM_SEQS:
        flags["--max-num-seqs"] = str(chosen.max_num_seqs)
    if chosen.max_num_batched_tokens is not None:
        flags["--max-num-batched-tokens"] = str(chosen.max_num_batched_tokens)
    if chosen.expert_parallel:
        flags["--enable-expert-parallel"] = None
    if wish.kv_cache_dtype is not None:
        flags["--kv-cache-dtype"] = wish.kv_cache_dtype
    if wish.cpu_offload_gib is not None and chosen.cpu_offload_mib > 0:
        flags["--cpu-offload-gb"] = f"{wish.cpu_offload_gib:g}"
    if wish.trust_remote_code:
        flags["--trust-remote-code"] = None
    if chosen.tensor_parallel_size > 1 and _peer_off(plan):
        # vLLM's own kernel trusts the driver's grant, whatever NCCL was told.
        flags["--disable-custom-all-reduce"] = None
    return flags


def _peer_off(plan: Plan) -> bool:
    return any(s.name == "NCCL_P2P_DISABLE" and s.value == "1" for s in plan.environment)


def recipe(host: Host, wish: Wish, files: install.Files) -> install.Recipe:
    """From PyPI by the hashed lock. `host` has the planned cards.

    For AMD cards by a lock that the operator made of the wheels of vLLM's own ROCm index, named
    `vllm-rocm-VERSION.txt`. Raises MultigpuError where there is none, or no such version.
    """
    if all(gpu.vendor is Vendor.NVIDIA for gpu in host.gpus):
        return install.python_runtime(NAME, host, wish, files, version=VERSION, program="vllm")
    if not files.versions(rocm.LOCK):
        raise MultigpuError(f"{wish.name}: {rocm.no_lock(host.name)}")
    return install.python_runtime(
        rocm.LOCK,
        host,
        wish,
        files,
        version=VERSION,
        program="vllm",
        glibc=rocm.WHEEL_GLIBC,
        python=rocm.WHEEL_PYTHON,
    )


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
