"""The commands by which root reacts: units stopped and started, cards reset, a reboot."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Dict, Iterable, List, Optional, Tuple

from multigpu.host import devices

STOP_S, RESET_S, QUICK_S = 120.0, 120.0, 30.0
HOLDERS = ("multigpu-exporter.service", "nvidia-persistenced.service", "nvidia-dcgm.service")
"""They keep cards open, and a card that is open is not reset (nvidia-smi(1), --gpu-reset)."""
RUNNING = ("active", "activating", "reloading")
FAILED = "failed"


def run(argv: List[str], limit_s: float) -> Tuple[Optional[int], str]:
    """Exit status and the last line that a command said; None when it did not end in time."""
    try:
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        return None, f"{argv[0]} did not end within {limit_s:g} s"
    except OSError as error:
        return None, f"{argv[0]}: {error.strerror}"
    said = done.stdout.decode("utf-8", "replace").strip().splitlines()
    return done.returncode, said[-1].strip()[:200] if said else ""


def running(units: Iterable[str], states: Tuple[str, ...] = RUNNING) -> Tuple[str, ...]:
    """Those that run, load or wait for their next start."""
    found = []
    for unit in units:
        _, state = run(["systemctl", "show", "-P", "ActiveState", unit], QUICK_S)
        if state in states:
            found.append(unit)
    return tuple(found)


def stop(units: Iterable[str]) -> Optional[str]:
    """Stop and wait; returns what went wrong."""
    wanted = list(units)
    if not wanted:
        return None
    status, said = run(["systemctl", "stop", *wanted], STOP_S)
    return None if status == 0 else f"systemctl stop: {said or status}"


def start(units: Iterable[str]) -> None:
    """Queue the start: services take minutes to load, and a fence keeps what it keeps."""
    wanted = list(units)
    if wanted:
        run(["systemctl", "reset-failed", *wanted], QUICK_S)
        run(["systemctl", "--no-block", "start", *wanted], QUICK_S)


def reset(gpu: str) -> Optional[str]:
    """Reset a card that nobody holds; returns what went wrong. AMD's way was never run here."""
    amd = devices.PCI_ADDRESS.fullmatch(gpu)
    nvidia = ["nvidia-smi", "--gpu-reset", "-i", gpu]
    argv = ["amd-smi", "reset", "--gpureset", "-g", gpu] if amd else nvidia
    status, said = run(argv, RESET_S)
    return None if status == 0 else f"{argv[0]} {argv[1]} of {gpu}: {said or status}"


def reboot() -> Optional[str]:
    """Ask systemd for it: services stop as they should; returns what went wrong."""
    os.sync()
    status, said = run(["systemctl", "reboot"], QUICK_S)
    return None if status == 0 else f"systemctl reboot: {said or status}"


def owners(pids: Iterable[int]) -> Dict[int, int]:
    """uid of each process that is still there."""
    found = {}
    for pid in pids:
        try:
            found[pid] = os.stat(f"/proc/{pid}").st_uid
        except OSError:
            continue
    return found


def kill(pids: Iterable[int], limit_s: float = 5.0) -> List[int]:
    """SIGKILL; returns those that are still there afterwards (uninterruptible in a driver)."""
    left = list(pids)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            continue
    deadline = time.monotonic() + limit_s
    while left and time.monotonic() < deadline:
        left = [pid for pid in left if os.path.exists(f"/proc/{pid}")]
        time.sleep(0.05)
    return left
