"""Published memory of vLLM as hosts, models and wishes: rows of the table and boot logs.

Reads `../shared/groundtruth/measurements.tsv` (metrics memory_per_gpu_GiB and fit_verdict) and the
vLLM logs of `../shared/rigs/f_serving_log` whose card, model and flags are known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.groundtruth import table
from benchmarks.groundtruth_rigs import host_for, rig_of
from multigpu.gpus.what_if import host
from multigpu.hardware import Host
from multigpu.model import from_hf_config
from multigpu.parse.engines.vllm_log import read_vllm_log
from multigpu.plan import ModelSpec, Source, Wish

HERE = Path(__file__).resolve().parent / "models"
SHARED = Path(__file__).resolve().parents[2] / "shared"
LOGS = SHARED / "rigs" / "f_serving_log"

# Log, cards and configuration; what the log does not say of its machine is what INDEX.tsv says.
BOOT_LOGS = (
    ("vllm0.13_tp1_qwen2.5_14b_awq_wsl.log", "RTX 4090", "Qwen2.5-14B-Instruct-AWQ"),
    ("vllm0.13_tp4_llama3_8b.log", "4x H100 SXM", "Meta-Llama-3.1-8B"),
    ("vllm0.26_qwen3coder30b_a100.log", "A100 80GB", "Qwen3-30B-A3B"),
)


@dataclass(frozen=True)
class MemoryRow:
    """One boot. `as_run` holds what the row does not state and its publisher's script or log does.

    `kv_gib` is None where the engine did not start; `kv_tokens` None where it was not printed.
    """

    name: str
    rig: str
    host: Host
    model: ModelSpec
    wish: Wish
    version: str | None
    kv_gib: float | None
    kv_tokens: int | None = None
    weights_gib: float | None = None
    as_run: tuple[tuple[str, str], ...] = ()

    @property
    def starts(self) -> bool:
        """False for a boot that failed for memory."""
        return self.kv_gib is not None


@cache
def model(name: str) -> ModelSpec | None:
    """The model whose repository begins with that name, from our configurations or the shared."""
    wanted = re.sub(r" \(.*\)$", "", name).split("/")[-1].lower()
    files = [*HERE.glob("*/config.json"), *(SHARED / "models").glob("*_config.json")]
    for path in sorted(files, key=lambda p: len(_repository(p))):
        own = _repository(path).split("--")[-1].lower()
        if own.startswith(wanted) or wanted == f"{own}-instruct":
            return _spec(path)
    return None


def _repository(path: Path) -> str:
    return path.parent.name if path.name == "config.json" else path.name.split("_config")[0]


def _spec(path: Path) -> ModelSpec:
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    name = _repository(path).replace("--", "/", 1)
    where = str(path)
    spec = from_hf_config(
        config, name=name, source=Source.CONTROLLER, path=where, weights_bytes=None
    )
    # A later release of the same shapes may have run with a longer context.
    return replace(spec, max_position_embeddings=None)


def rows() -> list[MemoryRow]:
    """Every row and log that can be predicted; empty where ../shared is absent."""
    return [*_table_rows(), *_logs()]


def _table_rows() -> Iterator[MemoryRow]:
    for raw in table():
        if raw["metric"] in ("memory_per_gpu_GiB", "fit_verdict"):
            cards, _ = host_for(raw)
            spec = model(raw["model"])
            if cards is not None and spec is not None:
                yield _row(raw, cards, spec)


def _row(raw: dict[str, str], cards: Host, spec: ModelSpec) -> MemoryRow:
    flags, text = raw["runtime_flags"], raw["measured"]
    measured = dict(part.split("=") for part in text.split(";") if text.count("=") > 1)
    version = re.search(r"vLLM v?(\d+\.\d+)", flags)
    wish = Wish(
        "chat",
        spec.name,
        runtime="vllm",
        tensor_parallel_size=_int(r"(?:-tp|tensor-parallel-size|TP)[ =](\d+)", flags) or 1,
        gpu_memory_utilization=_utilization(measured, raw["hardware"])
        or float(_found(r"(?:utilization|gmu)[ =]([\d.]+)", flags) or 0.9),
        context=_int(r"max-model-len[ =](\d+)", flags),
    )
    tokens = measured.get("kv_tokens")
    return MemoryRow(
        name=raw["n"],
        rig=rig_of(raw),
        host=cards,
        model=spec,
        wish=wish,
        version=version[1] if version else None,
        kv_gib=float(measured["kv_pool"]) if measured else None,
        kv_tokens=int(tokens.replace(",", "")) if tokens else None,
        weights_gib=float(measured["weights"]) if measured else None,
        as_run=_as_run(raw),
    )


def _utilization(measured: dict[str, str], hardware: str) -> float | None:
    """The fraction that ran, where a row prints every term of vLLM's sum and the card's memory.

    What is stated may be of another run: the sum of one row is 0.95 of the card, not 0.9.
    """
    total = _found(r"([\d.]+) GiB", hardware)
    terms = [measured.get(name) for name in ("weights", "torch_peak", "non_torch", "kv_pool")]
    if total is None or None in terms:
        return None
    return round(sum(float(term or 0) for term in terms) / float(total), 2)


def _as_run(raw: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """kyuz0's scripts (run_vllm_bench*.py) start engines of 64 requests, 32 for some models."""
    if "kyuz0" not in raw["source"]:
        return ()
    small = "Qwen3-Next" in raw["model"] or "gemma-3-27b" in raw["model"]
    small |= "24GB" in raw["hardware"] and any(m in raw["model"] for m in ("gpt-oss", "Qwen3-14B"))
    return (("--max-num-seqs", "32" if small else "64"),)


def _logs() -> Iterator[MemoryRow]:
    for name, cards, config in BOOT_LOGS:
        spec, path = model(config), LOGS / name
        if spec is None or not path.exists():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        log = read_vllm_log(text).value
        if log is None:
            continue
        found = _found(r"Available KV cache memory: ([\d.]+) GiB", text)
        weights = _found(r"Model loading took ([\d.]+) GiB", text)
        seqs = _found(r"'max_num_seqs': (\d+)", text)
        yield MemoryRow(
            name=name.removesuffix(".log"),
            rig=f"log {name}",
            host=host(cards, nvlink=True) if "x" in cards.split()[0] else host(cards),
            model=spec,
            wish=Wish(
                "chat",
                spec.name,
                runtime="vllm",
                tensor_parallel_size=log.tensor_parallel_size or 1,
                gpu_memory_utilization=log.gpu_memory_utilization or 0.9,
                context=log.max_model_len,
            ),
            version=_found(r"\(v(\d+\.\d+)", text),
            kv_gib=float(found) if found else None,
            kv_tokens=log.kv_tokens,
            weights_gib=float(weights) if weights else None,
            as_run=(("--max-num-seqs", seqs or ("1024" if "H100" in cards else "256")),),
        )


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match[1] if match else None


def _int(pattern: str, text: str) -> int | None:
    found = _found(pattern, text)
    return int(found) if found else None
