"""Start-up logs of vLLM 0.8 to 0.33.

Prefixes come and go: `(Worker_TP0 pid=..)` with and without colour, `(EngineCore_DP0 pid=..)` to
0.16 and `(EngineCore pid=..)` after, `(VllmWorker rank=1 pid=..)` to 0.9, none at all in one
process, and whatever journald puts before. The version may stand only in the banner; from 0.13
on only rank 0 tells its memory.
"""

from __future__ import annotations

import re

from multigpu.parse.engines.engine_errors import ALL_REDUCE, ERRORS, rank
from multigpu.parse.engines.engine_log import EngineLog
from multigpu.parse.engines.engine_scan import (
    REAL,
    Found,
    argument,
    arguments,
    count,
    gib,
    real,
    rule,
    said,
    scan,
)
from multigpu.parse.reading import Kind, Lines, Reading, signature

TAG = re.compile(
    r"\((EngineCore|Worker|VllmWorker)([\w ]{0,40}?)(?: rank=(\d{1,4}))? pid=(\d{1,9})\)", re.ASCII
)
PART = re.compile(r"(DP|PP|TP)(\d{1,4})", re.ASCII)
FREE = re.compile(rf"Free memory on device(?: [\w:]+)? \(({REAL})/({REAL}) GiB\) on startup")
ACTUAL = re.compile(rf"({REAL}) GiB for peak activation", re.ASCII)
TOOK = re.compile(
    rf"(?:Model loading|[Ll]oading model weights) took ({REAL}) ?G(?:i)?B"
    rf"(?: memory)?(?: and ({REAL}) seconds)?",
    re.ASCII,
)
PROFILE = re.compile(
    rf"model weights take ({REAL})GiB.{{0,200}}?activation peak memory takes ({REAL})GiB"
    rf".{{0,200}}?KV Cache is ({REAL})GiB",
    re.ASCII,
)
CONFIG = {
    "dtype": "dtype",
    "quantization": "quantization",
    "kv_cache_dtype": "kv_cache_dtype",
    "tensor_parallel_size": "tensor_parallel_size",
    "pipeline_parallel_size": "pipeline_parallel_size",
    "data_parallel_size": "data_parallel_size",
    "max_model_len": "max_seq_len",
}
OPTIONS = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "max_num_seqs")


def label(found: Found, line: str) -> str:
    """The rank that a line is from: its tag, or rank 0 where there is none."""
    match = TAG.search(line)
    if match is None:
        return rank(None, None, None)
    parts = {name: int(value) for name, value in PART.findall(match[2])}
    if match[3] is not None:
        pp, tp = divmod(int(match[3]), found.facts.get("tensor_parallel_size") or 10**6)
        parts.update(PP=pp, TP=tp)
    elif match[1] == "VllmWorker" and not parts:
        return f"pid {match[4]}"
    return rank(parts.get("DP"), parts.get("PP"), parts.get("TP"))


def _version(found: Found, match: re.Match[str]) -> None:
    found.first(version=said(match[1] or match[2] or match[3]))


def _model(found: Found, match: re.Match[str]) -> None:
    found.first(model=said(match[1]))


def _config(found: Found, match: re.Match[str]) -> None:
    line = match.string
    arguments(found, line[match.end() - 1 :], CONFIG)
    found.last(model=argument("model", line))
    draft = re.search(r"speculative_config=SpeculativeConfig\(.{0,200}?model='([^']{0,300})'", line)
    found.first(draft_model=said(draft[1]) if draft else None)
    _refused_all_reduce(found, line)


def _refused_all_reduce(found: Found, line: str) -> None:
    if argument("disable_custom_all_reduce", line) == "True":
        reason = "disable_custom_all_reduce=True"
        found.first(custom_all_reduce=False, custom_all_reduce_reason=reason)


def _options(found: Found, match: re.Match[str]) -> None:
    """`non-default args: {'model': ..}` and, before 0.9, `args: Namespace(model=..)`."""
    line = match.string
    for name in OPTIONS:
        option = re.search(rf"[\s({{,']{name}'?[=:] ?(\d{{1,9}})\b", line, re.ASCII)
        found.first(**{name: count(option[1]) if option else None})
    model = re.search(r"'model'?: '([^']{1,300})'|[( ]model_tag='([^']{1,300})'", line)
    found.first(model=said(model[1] or model[2]) if model else None)
    used = re.search(rf"gpu_memory_utilization'?[=:] ?({REAL})", line, re.ASCII)
    found.first(gpu_memory_utilization=real(used[1]) if used else None)


def _utilization(found: Found, match: re.Match[str]) -> None:
    found.first(gpu_memory_utilization=real(match[1]))


def _world(found: Found, match: re.Match[str]) -> None:
    found.first(world_size=count(match[1]))


def _rank(found: Found, match: re.Match[str]) -> None:
    size, dp, pp, tp = (count(value) for value in match.groups())
    found.first(world_size=size)
    found.device(rank(dp, pp, tp))


def _architecture(found: Found, match: re.Match[str]) -> None:
    found.first(architecture=match[1])


def _max_model_len(found: Found, match: re.Match[str]) -> None:
    found.first(max_model_len=count(match[1]))


def _backend(found: Found, match: re.Match[str]) -> None:
    name = (match[1] or match[2]).removeprefix("AttentionBackendEnum.")
    found.first(attention_backend=name)


def _weights(found: Found, match: re.Match[str]) -> None:
    found.device(label(found, match.string), weights_mib=gib(match[1]))
    seconds = real(match[2])
    if seconds is not None:
        found.last(load_seconds=max(seconds, found.facts.get("load_seconds", 0.0)))


def _profile(found: Found, match: re.Match[str]) -> None:
    weights, activation, kv = (gib(value) for value in match.groups())
    device = label(found, match.string)
    found.device(device, weights_mib=weights, activation_mib=activation, kv_cache_mib=kv)


def _kv_memory(found: Found, match: re.Match[str]) -> None:
    found.device(label(found, match.string), kv_cache_mib=gib(match[1]))


def _kv_tokens(found: Found, match: re.Match[str]) -> None:
    found.least(kv_tokens=count(match[1]))


def _concurrency(found: Found, match: re.Match[str]) -> None:
    found.first(concurrency_context=count(match[1]))
    found.least(max_concurrency=real(match[2]))


def _blocks(found: Found, match: re.Match[str]) -> None:
    found.least(kv_blocks=count(match[1]))


def _graph(found: Found, match: re.Match[str]) -> None:
    found.device(label(found, match.string), cuda_graph_mib=gib(match[1]))


def _free(found: Found, match: re.Match[str]) -> None:
    device, activation = label(found, match.string), ACTUAL.search(match.string)
    found.device(device, free_mib=gib(match[1]), total_mib=gib(match[2]))
    found.device(device, activation_mib=gib(activation[1]) if activation else None)


def _name(found: Found, match: re.Match[str]) -> None:
    found.device(label(found, match.string), name=match[1].replace("_", " "))


def _init(found: Found, match: re.Match[str]) -> None:
    found.first(init_seconds=real(match[1]))


def _ready(found: Found, match: re.Match[str]) -> None:
    found.last(ready=True)


VERSION = r"API server version (\S{1,60})|LLM engine \(v([^)\s]{1,60})\)|█ +version (\S{1,60})"
RULES = (
    rule("version ", VERSION, _version),
    rule("LLM engine (v", VERSION, _version),
    rule(" model ", r"█ +model +(\S.*)$", _model),
    rule("args: ", r"(?:non-default args|\bargs): [{N]", _options),
    rule("with config: ", r"LLM engine \([^)]{0,80}\) with config: .", _config),
    rule("gpu-memory-util", rf"current --gpu-memory-utilization=({REAL})", _utilization),
    rule("GPU memory util", rf"esired GPU memory utilization (?:is )?\(({REAL}),", _utilization),
    rule("world_size=", r"world_size=(\d{1,6}) rank=", _world),
    rule(
        "in world size",
        r"rank \d{1,6} in world size (\d{1,6}) is assigned as DP rank (\d{1,6}), PP rank (\d{1,6}),"
        r".{0,60}?\bTP rank (\d{1,6})",
        _rank,
    ),
    rule("architecture: ", r"Resolved architecture: (\w{1,100})", _architecture),
    rule("max model len", r"Using max model len (\d{1,9})\b", _max_model_len),
    rule(
        "backend",
        r"Using (\S{1,60}) attention backend|"
        r"\] Using (?!.{0,40}MoE)([A-Z][\w. ]{1,40}?) backend(?: on V1 engine)?\.",
        _backend,
    ),
    rule(" took ", TOOK.pattern, _weights),
    rule("model weights take", PROFILE.pattern, _profile),
    rule("Available KV", rf"Available KV cache memory: (-?{REAL}) GiB", _kv_memory),
    rule("KV cache size", r"(?:GPU|CPU) KV cache size: ([\d,]{1,20}) tokens", _kv_tokens),
    rule(
        "Maximum conc",
        rf"Maximum concurrency for ([\d,]{{1,20}}) tokens per request: ({REAL})x",
        _concurrency,
    ),
    rule("# ", r"# (?:GPU|cuda|rocm) blocks: (\d{1,12})", _blocks),
    rule("Graph capturing", rf"Graph capturing finished in .{{1,20}}, took (-?{REAL}) GiB", _graph),
    rule("Free memory", FREE.pattern, _free),
    rule("device_name=", r"device_name=([\w.-]{1,80}?)(?:,[\w=\[\], ]{0,80})?\.json", _name),
    rule("init engine", rf"init engine \([^)]{{0,120}}\) took ({REAL}) s", _init),
    rule("Application startup", r"Application startup complete", _ready),
    *ALL_REDUCE,
    *ERRORS,
)
GIVEN_UP = frozenset({"oom", "kv-cache", "memory", "worker", "collective"})


def read_vllm_log(text: str) -> Reading[EngineLog]:
    """The start-up in a log of `vllm serve`; lines that tell nothing of it stay unread."""
    lines, found = Lines(text), Found()
    scan(lines, RULES, found)
    if "ready" not in found.facts and any(e.kind in GIVEN_UP for e in found.errors.values()):
        found.last(ready=False)
    found.sort_ranks()
    return lines.reading(found.log("vllm"))


KINDS = (
    Kind(
        "vllm-log",
        "log of vllm serve",
        signature(
            r"vLLM API server version|Initializing an? (?:V\d )?LLM engine \(v|█ +version \d"
            r"|\bModel loading took [\d.]+ ?GiB|\bGPU KV cache size: [\d,]+ tokens"
            r"|\bvLLM is using nccl==|Available KV cache memory: |Maximum concurrency for [\d,]+ "
            r"|\((?:EngineCore(?:_DP\d+)?|Worker(?:_\w+)?|VllmWorker[^)]*|APIServer\w*) pid=\d+\)"
            # The logger's own format.
            r"|\b(?:INFO|WARNING|ERROR|DEBUG) \d\d-\d\d \d\d:\d\d:\d\d \[?[\w/]+\.py:\d+\]",
            sure=0.95,
        ),
        read_vllm_log,
        "vllm serve",
    ),
)
