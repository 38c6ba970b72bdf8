"""The measurement table line by line: which workloads a line holds, and what it measured.

A reader per metric. What a line does not state and is filled in goes along as a phrase.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from multigpu.plan import Objective, Workload

TABLE = Path(__file__).resolve().parents[2] / "shared" / "groundtruth" / "measurements.tsv"

# kyuz0's scripts (run_vllm_bench*.py, models.py of amd-r9700-vllm-toolboxes): 1000 ShareGPT
# prompts, 512 forced output tokens, and this many sequences at a time.
SEQUENCES = ("Qwen3-Next-80B", "Qwen3.6-27B", "Qwen3.6-35B", "gemma-3-27b")
SEQUENCES_24_GB = ("gpt-oss-20b", "Qwen3-14B")
PROMPT = r"llama-bench.* -p (\d+)"
OUT = r"(?:out=|narr/code=)([\d.]+)"
# A single stream whose prompt is not stated; at one request it hardly matters.
SINGLE_STREAM = (512, 256)


@dataclass(frozen=True)
class Measured:
    """What a row states; `decode_tokens_per_s` is output tokens/s of the whole service."""

    decode_tokens_per_s: float | None = None
    tpot_ms: float | None = None
    ttft_ms: float | None = None
    prefill_tokens_per_s: float | None = None


@cache
def table() -> tuple[dict[str, str], ...]:
    """The rows as they stand; empty when the table is not there."""
    if not TABLE.exists():
        return ()
    with TABLE.open(encoding="utf-8", newline="") as lines:
        return tuple(csv.DictReader(lines, delimiter="\t"))


Loads = Iterator[tuple[Workload | None, Measured, tuple[str, ...], tuple[str, ...]]]


def loads_of(raw: dict[str, str]) -> Loads:
    """(workload, measured, reasons, assumed) of every measurement in a line."""
    readers = {
        "offline_total_tok_s": _offline,
        "online_output_tok_s": _online,
        "ttft/tpot_ms": _ttft_tpot,
        "single_stream_tok_s": _single,
        "tok_s": _tok_s,
        "per_stream/decode_agg_tok_s": _per_stream,
        "single_wall/agg_c64_tok_s": _wall,
        "peak_aggregate_tok_s": _peak,
    }
    reader = readers.get(raw["metric"])
    if reader is None:
        yield None, Measured(), (f"metric {raw['metric']} is not read",), ()
    else:
        yield from reader(raw)


def _load(inputs: int, outputs: int, concurrency: int) -> Workload:
    objective = Objective.LATENCY if concurrency == 1 else Objective.THROUGHPUT
    return Workload(objective, inputs + outputs, concurrency, inputs, outputs)


def _offline(raw: dict[str, str]) -> Loads:
    """All prompts are queued at once: as many run as `--max-num-seqs` allows."""
    total, requests = number_f(r"([\d.]+) total", raw), number_f(r"([\d.]+) req/s", raw)
    few = any(name in raw["model"] for name in SEQUENCES)
    small = "24GB" in raw["hardware"] and any(n in raw["model"] for n in SEQUENCES_24_GB)
    load = _load(max(1, round(total / requests) - 512), 512, 32 if few or small else 64)
    yield load, Measured(requests * 512), (), ("requests at a time from the publisher's script",)


def _online(raw: dict[str, str]) -> Loads:
    flags = raw["runtime_flags"]
    parts = [number(rf"{key}=(\d+)", flags) or 0 for key in ("in", "out", "conc")]
    yield (
        _load(*parts),
        Measured(
            number_f(r"([\d.]+) out tok/s", raw),
            number_f(r"TPOT mean ([\d.]+)", raw),
            number_f(r"TTFT mean ([\d.]+)", raw),
        ),
        (),
        (),
    )


def _ttft_tpot(raw: dict[str, str]) -> Loads:
    """Closed loop: a request lives for TTFT and the rest of its tokens."""
    flags = raw["runtime_flags"]
    parts = [number(pattern, flags) or 0 for pattern in (r"isl=(\d+)", r"osl=(\d+)", r"conc=(\d+)")]
    ttft, tpot = number_f(r"ttft=([\d.]+)", raw), number_f(r"tpot=([\d.]+)", raw)
    decode = 1000 * parts[2] * parts[1] / (ttft + (parts[1] - 1) * tpot)
    yield _load(*parts), Measured(decode, tpot, ttft), (), ()


def _single(raw: dict[str, str]) -> Loads:
    """`out=` of localmaxxing, the first of `narr/code=` of club-3090 (prose)."""
    text, flags = raw["measured"], raw["runtime_flags"]
    out = re.search(OUT, text)
    if out is None:
        yield None, Measured(), ("no single decode rate is stated",), ()
        return
    prompt = number(PROMPT, flags)
    inputs, outputs = (prompt, 128) if prompt else SINGLE_STREAM
    if prompt and _flat(raw):
        inputs = 1
    together = number(r"across C(\d+) concurrent", raw["note"]) or 1
    prefill = re.search(r"prefill=(\d+(?:\.\d+)?)", text) if inputs == prompt else None
    measured = Measured(
        float(out[1]),
        1000 * together / float(out[1]),
        None,
        float(prefill[1]) if prefill else None,
    )
    assumed = () if inputs == prompt else (f"history of {inputs} tokens",)
    yield _load(inputs, outputs, together), measured, tuple(_doubtful(raw)), assumed


@cache
def _series(hardware: str, model: str, quant: str) -> tuple[tuple[int, float], ...]:
    """(prompt, tokens/s) of one series of llama-bench, by length of the prompt."""
    found = []
    for raw in table():
        if (raw["hardware"], raw["model"].split("/")[-1], raw["quant"]) == (hardware, model, quant):
            prompt, out = number(PROMPT, raw["runtime_flags"]), re.search(OUT, raw["measured"])
            if prompt and out:
                found.append((prompt, float(out[1])))
    return tuple(sorted(found))


def _flat(raw: dict[str, str]) -> bool:
    """The rate does not fall with the prompt: it was taken without one, as tg128 is by default.

    Others of the same publisher fall as the cache's bytes say: theirs were taken behind the prompt.
    """
    series = _series(raw["hardware"], raw["model"].split("/")[-1], raw["quant"])
    shortest, longest = series[0], series[-1]
    return longest[0] >= 8 * shortest[0] and longest[1] >= 0.95 * shortest[1]


def _doubtful(raw: dict[str, str]) -> Iterator[str]:
    """Why a single stream is not what its columns say."""
    if "Remote endpoint" in raw["runtime_flags"]:
        yield "remote endpoint: neither runtime flags nor decoding are stated"
    if "fork" in raw["runtime_flags"].lower() or "LimeChain" in raw["runtime_flags"]:
        yield "a fork of the runtime"
    if raw["runtime_flags"].startswith("llama.cpp 2cbfdc6"):
        yield "prompt and depth of the measurement are not stated"


def _tok_s(raw: dict[str, str]) -> Loads:
    """llama-bench's layer and tensor columns, or a vLLM aggregate with its single stream."""
    text, flags = raw["measured"], raw["runtime_flags"]
    if "64 conc" in flags:
        single, many = number_f(r"C1 ([\d.]+)", raw), number_f(r"~?([\d.]+) decode", raw)
        custom = ("custom kernels with integer activations",) if "custom" in raw["quant"] else ()
        lengths = ("128 in, 512 out",)
        yield _load(128, 512, 1), Measured(single, 1000 / single), (), lengths
        yield _load(128, 512, 64), Measured(many), custom, lengths
        return
    generated = re.search(r"tg128(?:@d(\d+))?", flags)
    layer = re.search(r"layer=([\d.]+)", text)
    if generated is None or layer is None:
        yield None, Measured(), ("a prefill rate alone",), ()
        return
    load = _load(int(generated[1] or 1), 128, 1)
    for split, rate in (("layer", layer), ("tensor", re.search(r"tensor=([\d.]+)", text))):
        if rate is not None:
            yield load, Measured(float(rate[1]), 1000 / float(rate[1])), (), (f"-sm {split}",)


def _per_stream(raw: dict[str, str]) -> Loads:
    users = number(r"concurrency (\d+)", raw["runtime_flags"]) or 1
    total = float(raw["measured"].split("/")[1])
    yield _load(16384, 256, users), Measured(total), (), ()


def _wall(raw: dict[str, str]) -> Loads:
    single, many = number_f(r"([\d.]+) single", raw), number_f(r"([\d.]+) aggregate", raw)
    lengths = ("512 in, 256 out",)
    yield _load(*SINGLE_STREAM, 1), Measured(single, 1000 / single), (), lengths
    yield _load(*SINGLE_STREAM, 64), Measured(many), ("lengths are not stated",), lengths


def _peak(raw: dict[str, str]) -> Loads:
    """Good for the choice between ways; the number of requests at the peak is not stated."""
    many = float(raw["measured"])
    yield _load(*SINGLE_STREAM, 64), Measured(many), ("concurrency is not stated",), ("64 users",)


def number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return int(found[1]) if found else None


def number_f(pattern: str, raw: dict[str, str]) -> float:
    found = re.search(pattern, raw["measured"])
    if found is None:
        raise ValueError(f"row {raw['n']}: {raw['measured']!r} has no {pattern}")
    return float(found[1])
