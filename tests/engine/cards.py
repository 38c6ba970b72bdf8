"""Simulated VRAM: which cards a simulated engine sees, and its claims on them.

A claim is a file with the name of the process below the state directory of the simulated NVML
(tests/lab/nvml), "IDLE_KIB CLAIMED_KIB". Where there is no such directory nothing is claimed.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

STATE = Path(os.environ.get("SIMULATED_GPU_STATE", "/run/simulated-gpu"))
TABLE = Path(os.environ.get("SIMULATED_GPU_TABLE", "/etc/simulated-gpu/table.ini"))
GIB = 1 << 20
"""KiB of one."""


class OutOfMemory(Exception):
    """The text is vLLM's line (v1/worker/gpu_worker.py)."""


def column(name: str) -> list[str]:
    lines = TABLE.read_text().splitlines()
    rows = (line.partition("=") for line in lines)
    return [value.strip() for key, _, value in rows if key.strip() == name]


def visible(count: int) -> list[int]:
    """Indexes of the cards of `count` ranks, in the order of CUDA_VISIBLE_DEVICES; [] without any.

    Raises SystemExit where fewer are visible.
    """
    if not (STATE.is_dir() and TABLE.is_file()):
        return []
    words = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = sorted(int(entry.name) for entry in STATE.iterdir() if entry.name.isdigit())
    chosen = [index(word) for word in words.split(",") if word] if words else present
    if count > len(chosen):
        raise SystemExit(f"simulated: world size {count}, but {len(chosen)} visible GPUs")
    return chosen[:count]


def index(word: str) -> int:
    """By index or by UUID, as CUDA takes both."""
    if not word.startswith("GPU-"):
        return int(word)
    return next(i for i, uuid in enumerate(column("uuid")) if uuid.startswith(word))


def alive(pid: int) -> bool:
    """Also of other users, whose /proc may be hidden."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def claimed_kib(card: int) -> int:
    """By the processes that live."""
    total = 0
    for note in STATE.glob(f"{card}/[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += int(note.read_text().split()[1]) if alive(int(note.name)) else 0
    return total


def claim(card: int, fraction: float) -> None:
    """Take that part of a card. Raises OutOfMemory where others hold too much of it."""
    size = int(column("memory_mib")[card]) << 10
    wanted, free = int(size * fraction), size - claimed_kib(card)
    if wanted > free:
        raise OutOfMemory(
            f"Free memory on device cuda:{card} ({free / GIB:.2f}/{size / GIB:.2f} GiB) on startup "
            f"is less than desired GPU memory utilization ({fraction}, {wanted / GIB:.2f} GiB)."
        )
    held = next(
        int(line.split()[1])
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("RssAnon")
    )
    with contextlib.suppress(OSError):
        note = STATE / str(card) / str(os.getpid())
        note.write_text(f"{held} {wanted}\n")
        note.chmod(0o644)


def release() -> None:
    """Of this process; one that is killed leaves a note that nobody counts."""
    for note in STATE.glob(f"[0-9]*/{os.getpid()}"):
        with contextlib.suppress(OSError):
            note.unlink()
