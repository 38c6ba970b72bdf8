"""Start-up logs of SGLang 0.4 to 0.5.

Each line begins with `[2026-08-01 23:37:38 TP0]`, without a rank when there is one process. A draft
model is loaded after the target and prints the same lines: what stands after the first "Load weight
end" or "Memory pool end" of a rank is the draft's and is kept apart. A model with sliding-window
layers prints two target pools, the window's and the full one.
"""

from __future__ import annotations

import re

from multigpu.parse.engines.engine_errors import ALL_REDUCE, ERRORS, rank
from multigpu.parse.engines.engine_log import EngineLog, KvPool
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

PREFIX = re.compile(r"\[\d{4}-\d\d-\d\d [\d:]{8}((?: (?:DP|PP|TP|EP)\d{1,4}){0,4})\]", re.ASCII)
PART = re.compile(r"(DP|PP|TP)(\d{1,4})", re.ASCII)
ARGUMENTS = {
    "model": "model_path",
    "dtype": "dtype",
    "quantization": "quantization",
    "kv_cache_dtype": "kv_cache_dtype",
    "max_model_len": "context_length",
    "tensor_parallel_size": "tp_size",
    "pipeline_parallel_size": "pp_size",
    "data_parallel_size": "dp_size",
    "gpu_memory_utilization": "mem_fraction_static",
    "attention_backend": "attention_backend",
    "draft_model": "speculative_draft_model_path",
}
# Where the server's arguments say only "auto", what was loaded says more.
LOADED = {"dtype": "dtype", "quantization": "quant"}


def label(line: str) -> str:
    """The rank that a line is from."""
    match = PREFIX.search(line)
    parts = {name: int(value) for name, value in PART.findall(match[1])} if match else {}
    return rank(parts.get("DP"), parts.get("PP"), parts.get("TP"))


def _server_args(found: Found, match: re.Match[str]) -> None:
    line = match.string[match.end() - 1 :]
    arguments(found, line, ARGUMENTS)
    if argument("disable_custom_all_reduce", line) == "True":
        reason = "disable_custom_all_reduce=True"
        found.first(custom_all_reduce=False, custom_all_reduce_reason=reason)


def _begin(found: Found, match: re.Match[str]) -> None:
    device = found.device(label(match.string))
    device.setdefault("free_mib", gib(match[1]))


def _weights(found: Found, match: re.Match[str]) -> None:
    """The first model of a rank is the target, the next the draft."""
    device, line = found.device(label(match.string)), match.string
    used, seconds = gib(match[1]), re.search(rf"elapsed=({REAL}) s", line, re.ASCII)
    if "weights_mib" in device:
        device.setdefault("draft_weights_mib", used)
        return
    device["weights_mib"] = used
    found.first(architecture=argument("type", line))
    loaded: dict[str, str | None] = {k: argument(name, line) for k, name in LOADED.items()}
    found.last(**{k: value.removeprefix("torch.") for k, value in loaded.items() if value})
    if seconds:
        slowest = max(real(seconds[1]) or 0.0, found.facts.get("load_seconds", 0.0))
        found.last(load_seconds=slowest)


def _pool(found: Found, match: re.Match[str]) -> None:
    device, line = label(match.string), match.string
    tokens = re.search(r"#tokens: (\d{1,15})\b", line, re.ASCII)
    dtype = argument("dtype", line.replace("dtype: ", "dtype="))
    sizes = {
        name: gib(size[1]) if (size := re.search(rf"\b{key} size: ({REAL}) ?GB", line)) else None
        for name, key in (("k_mib", "K"), ("v_mib", "V"), ("kv_mib", "KV"))
    }
    draft = bool(found.device(device).get("pools_closed"))
    pool = KvPool(
        device,
        count(tokens[1]) if tokens else None,
        dtype=dtype.removeprefix("torch.") if dtype else None,
        draft=draft,
        **sizes,
    )
    found.facts.setdefault("kv_pools", []).append(pool)
    if pool.mib is not None:
        found.add(device, "draft_kv_cache_mib" if draft else "kv_cache_mib", pool.mib)


def _closed(found: Found, match: re.Match[str]) -> None:
    found.device(label(match.string))["pools_closed"] = True


def _state(found: Found, match: re.Match[str]) -> None:
    for size in re.findall(rf"(?:conv_state|ssm_state) size: ({REAL}) ?GB", match.string):
        found.add(label(match.string), "state_cache_mib", gib(size) or 0.0)


def _graph(found: Found, match: re.Match[str]) -> None:
    if "Capture draft" not in match.string:
        found.add(label(match.string), "cuda_graph_mib", gib(match[1]) or 0.0)


def _totals(found: Found, match: re.Match[str]) -> None:
    line = match.string
    found.least(kv_tokens=count(match[1]))
    found.first(max_num_seqs=count(argument("max_running_requests", line)))
    found.first(max_model_len=count(argument("context_len", line)))


def _backend(found: Found, match: re.Match[str]) -> None:
    found.first(attention_backend=match[1])


def _failed(found: Found, match: re.Match[str]) -> None:
    found.first(custom_all_reduce=False, custom_all_reduce_reason=said(match[1], 200))


def _ready(found: Found, match: re.Match[str]) -> None:
    found.last(ready=True)


RULES = (
    rule("server_args=", r"server_args=(?:Server|PortArgs|Namespace)\w{0,10}\(", _server_args),
    rule("Load weight begin", rf"Load weight begin\. avail mem=({REAL}) GB", _begin),
    rule("Load weight end", rf"Load weight end\..{{0,400}}? mem usage=({REAL}) GB", _weights),
    rule("KV Cache is all", r"KV Cache is allocated\.", _pool),
    rule("Mamba Cache is", r"Mamba Cache is allocated\.", _state),
    rule("Memory pool end", r"Memory pool end\.", _closed),
    rule("graph end", rf"Capture .{{0,60}}?graph end\..{{0,400}}? mem usage=({REAL}) GB", _graph),
    rule("max_total_num", r"\bmax_total_num_tokens=(\d{1,15})\b", _totals),
    rule("backend by def", r"Use (\w{1,40}) (?:attention )?backend by default", _backend),
    rule("Custom allreduce fail", r"Setup Custom allreduce failed with (.{1,200}?)\.? To", _failed),
    rule("fired up", r"The server is fired up and ready to roll", _ready),
    *ALL_REDUCE,
    *ERRORS,
)
GIVEN_UP = frozenset({"oom", "kv-cache", "memory", "worker", "collective", "traceback"})


def read_sglang_log(text: str) -> Reading[EngineLog]:
    """The start-up in a log of `sglang serve`; lines that tell nothing of it stay unread."""
    lines, found = Lines(text), Found()
    scan(lines, RULES, found)
    if "ready" not in found.facts and any(e.kind in GIVEN_UP for e in found.errors.values()):
        found.last(ready=False)
    found.sort_ranks()
    pools = tuple(found.facts.pop("kv_pools", ()))
    return lines.reading(found.log("sglang", kv_pools=pools))


KINDS = (
    Kind(
        "sglang-log",
        "log of sglang serve",
        signature(
            r"server_args=ServerArgs\(|The server is fired up and ready to roll"
            r"|KV Cache is allocated\. (?:dtype: \S+, )?#tokens:|Load weight (?:begin|end)\."
            r"|\bmax_total_num_tokens=\d+, |Init torch distributed (?:begin|ends)\."
            r"|Capture .{1,60}graph (?:begin|end)\. |Memory pool end\. avail mem="
            r"|^\[\d{4}-\d\d-\d\d [\d:]{8}(?: [DTPE]P\d+)*\] (?:Prefill|Decode) batch"
            r"|^\[\d{4}-\d\d-\d\d [\d:]{8}(?: [DTPE]P\d+)+\] ",
            sure=0.95,
        ),
        read_sglang_log,
        "sglang serve",
    ),
)
