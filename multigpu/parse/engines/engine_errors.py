"""What vLLM and SGLang print when something goes wrong, and how a rank names itself."""

from __future__ import annotations

import re

from multigpu.parse.engines.engine_log import EngineError
from multigpu.parse.engines.engine_scan import (
    REAL,
    Found,
    Rule,
    count,
    mib,
    said,
)

OOM = re.compile(
    rf"out of memory\. Tried to allocate ({REAL}) (\w{{2,3}})"
    rf"(?:.{{0,20}}?GPU (\d{{1,3}})(?: has a total capacity of ({REAL}) (\w{{2,3}})"
    rf" of which ({REAL}) (\w{{2,3}}) is free)?)?",
    re.ASCII,
)
# The last line of a traceback: `ValueError: text`, `torch.OutOfMemoryError: text`.
RAISED = re.compile(
    r"(?:^|[\s\]])((?:[A-Za-z_]\w{0,40}\.){0,6}[A-Z]\w{0,40}(?:Error|Exception)): (\S.*)$", re.ASCII
)
DIED = re.compile(
    r"(Worker proc \S{1,60} died unexpectedly[^,]{0,60}|Engine core initialization failed[^.]{0,80}"
    r"|EngineCore failed to start|EngineCore encountered a fatal error"
    r"|Subprocess \S{1,40}.{0,40}? crashed with exit code -?\d{1,3}"
    r"|SIGQUIT received\..{0,40}?It usually means one child failed)",
    re.ASCII,
)
WATCHDOG = re.compile(r"(Watchdog caught collective operation timeout: .{0,120})", re.ASCII)
MEMORY = (
    ("kv-cache", "No available memory for the cache blocks"),
    ("kv-cache", "KV cache"),
    ("kv-cache", "cache blocks"),
    ("memory", "Free memory on device"),
    ("memory", "memory capacity is unbalanced"),
    ("kv-cache", "no GPU memory for the KV cache"),
    ("kv-cache", "Not enough memory"),
    ("oom", "out of memory"),
    ("collective", "NCCL error"),
)


def _oom(found: Found, match: re.Match[str]) -> None:
    asked, unit, index, total, total_unit, free, free_unit = match.groups()
    found.error(
        EngineError(
            "oom",
            said(match[0]) or "",
            mib(asked, unit),
            count(index),
            mib(free, free_unit),
            mib(total, total_unit),
        )
    )


def _raised(found: Found, match: re.Match[str]) -> None:
    if "out of memory. Tried to allocate" in match[2]:
        return
    text = said(f"{match[1]}: {match[2]}") or match[1]
    kind = next((kind for kind, words in MEMORY if words in text), "traceback")
    found.error(EngineError(kind, text))


def _died(found: Found, match: re.Match[str]) -> None:
    found.error(EngineError("worker", said(match[1]) or ""))


def _watchdog(found: Found, match: re.Match[str]) -> None:
    found.error(EngineError("collective", said(match[1]) or ""))


def _estimated(found: Found, match: re.Match[str]) -> None:
    found.last(estimated_max_model_len=count(match[1]))


def _stopping(found: Found, match: re.Match[str]) -> None:
    found.stopping = True


ESTIMATED = re.compile(r"estimated maximum model length is ([\d,]{1,20})", re.ASCII)

ERRORS = (
    Rule("out of memory", OOM, _oom),
    Rule("Error: ", RAISED, _raised),
    Rule("Exception: ", RAISED, _raised),
    *(
        Rule(word, DIED, _died)
        for word in ("died unexp", "ngine core init", "EngineCore ", "crashed with", "SIGQUIT")
    ),
    Rule("SIGTERM", re.compile(r"SIGTERM received|[Rr]eceived SIGTERM"), _stopping),
    Rule("Watchdog caught", WATCHDOG, _watchdog),
    Rule("estimated maximum", ESTIMATED, _estimated),
)


def rank(dp: int | None, pp: int | None, tp: int | None) -> str:
    """`TP1`, `PP1 TP0`, `DP1 TP0`: zeros are left out, TP's never."""
    parts = [f"{name}{value}" for name, value in (("DP", dp), ("PP", pp)) if value]
    return " ".join([*parts, f"TP{tp or 0}"])


DISABLED = re.compile(
    r"[Cc]ustom all-?reduce is disabled (?:because (?:of )?|due to )(.{1,200}?)"
    r"(?:\. To silence.{0,200})?\.?$"
)
REGISTERED = re.compile(r"Registering \d{1,9} cuda graph addresses", re.ASCII)
# vLLM 0.2x and newer; only the tensor-parallel group asks for the custom kernel.
BACKENDS = re.compile(
    r"Using \[([^\]]{0,200})\] all-reduce backends .{0,60}for group 'tp:\d{1,6}'", re.ASCII
)
NCCL = re.compile(r"is using nccl==([\w.]{1,30})", re.ASCII)


def _disabled(found: Found, match: re.Match[str]) -> None:
    # One rank without it means that the group does without it.
    found.last(custom_all_reduce=False, custom_all_reduce_reason=said(match[1]))


def _registered(found: Found, match: re.Match[str]) -> None:
    found.first(custom_all_reduce=True)


def _backends(found: Found, match: re.Match[str]) -> None:
    """In the order in which they are tried; one rank without it means that the group is without."""
    if "'CUSTOM'" in match[1]:
        found.first(custom_all_reduce=True)
    else:
        found.last(custom_all_reduce=False)


def _nccl(found: Found, match: re.Match[str]) -> None:
    found.first(nccl_version=match[1])


ALL_REDUCE = (
    Rule("ustom all", DISABLED, _disabled),
    Rule("cuda graph addresses", REGISTERED, _registered),
    Rule("all-reduce backends", BACKENDS, _backends),
    Rule("nccl==", NCCL, _nccl),
)
