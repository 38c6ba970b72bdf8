"""The product's own probe and readers on this machine, beside what NVML says directly."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from scripts.real_gpu.cards import total_mib


def captured(path: Path) -> dict[str, Any]:
    """Runs the probe as on a host, writes the capture to `path`, and reads it.

    Raises RuntimeError with the last of stderr.
    """
    program = _run([sys.executable, "-m", "multigpu", "probe"])
    path.write_text(_run([_system_python(), "-"], program))
    said = _run([sys.executable, "-m", "multigpu", "survey", str(path), "--json"])
    gpus = json.loads(said)[0]["gpus"]
    return {
        "gpus": [{key: gpu.get(key) for key in READ} for gpu in gpus],
        "memory_mib": [gpu["memory_mib"] for gpu in gpus],
        "nvml_memory_mib": [total_mib(gpu["index"]) for gpu in gpus],
    }


def read_nvidia_smi(folder: Path) -> dict[str, Any]:
    """Every output of the real nvidia-smi through the readers: kind, and lines not understood."""
    if shutil.which("nvidia-smi") is None:
        return {"skipped": "no nvidia-smi here"}
    found: dict[str, Any] = {}
    for name, words in OUTPUTS.items():
        path = folder / f"nvidia-smi{name}.txt"
        path.write_text(_run(["nvidia-smi", *words]))
        argv = [sys.executable, "-m", "multigpu", "read", "--json", str(path)]
        done = subprocess.run(argv, capture_output=True, text=True)
        found[name or "table"] = _reading(done)
    return found


READ = ("name", "memory_mib", "compute_capability", "pcie", "ecc", "power_limit_w", "error")
OUTPUTS = {
    "": (),
    "-q": ("-q",),
    "-q-x": ("-q", "-x"),
    "-L": ("-L",),
    "-topo-m": ("topo", "-m"),
}


def _reading(done: subprocess.CompletedProcess[str]) -> Any:
    try:
        said = json.loads(done.stdout)
    except ValueError:
        return {"rc": done.returncode, "stderr": done.stderr[-200:]}
    first = said[0] if said else {}
    return {key: first.get(key) for key in ("kind", "lines", "unread")}


def _system_python() -> str:
    return shutil.which("python3") or sys.executable


def _run(argv: list[str], given: str | None = None) -> str:
    done = subprocess.run(argv, input=given, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv[:4])}: {done.stderr.strip()[-300:]}")
    return done.stdout
