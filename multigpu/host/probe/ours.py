"""What is ours on a host: files by hash, paths, and what running processes carry."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
import re
import time
from typing import Any, Dict, List, Optional, Sequence

from multigpu.host.probe.files import outside, path_state, read_text, under
from multigpu.host.probe.tools import COMMANDS, UNIT_FILES

MANAGED = (
    UNIT_FILES,
    "/etc/multigpu/**",
    "/opt/multigpu/host/*",
    "/opt/multigpu/wheels/**",
    "/var/lib/multigpu/models/**",
)
SECRETS = "/etc/multigpu/credentials/*"
FIRST_LINE = 200
STAMPS = "/opt/multigpu/runtimes/*/installed"
RUNTIMES_IN_USE = "/etc/multigpu/*.runtime.json"

LARGEST_HASHED_BYTES = 16 << 20


def read_managed(root: str) -> List[Dict[str, Any]]:
    """Files of ours by content hash; of stamps and records of runtimes in use the content, of
    units the line they begin with.
    """
    patterns = [under(root, pattern) for pattern in (*MANAGED, STAMPS)]
    found = {path for pattern in patterns for path in glob.glob(pattern, recursive=True)}
    return [managed_file(root, path) for path in sorted(found) if os.path.isfile(path)]


def managed_file(root: str, path: str) -> Dict[str, Any]:
    """One file; sha256 is None when it cannot be read or is no file of ours by its size.

    Of a secret neither hash nor size is told: a capture is shown around.
    """
    place = outside(root, path)
    if fnmatch.fnmatch(place, SECRETS):
        return {"path": place, "sha256": None, **path_state(path), "size": None}
    file: Dict[str, Any] = {"path": place, "sha256": sha256_of(path), **path_state(path)}
    if fnmatch.fnmatch(place, STAMPS) or fnmatch.fnmatch(place, RUNTIMES_IN_USE):
        file["content"] = read_text(path)
    elif fnmatch.fnmatch(place, UNIT_FILES):
        file["content"] = (read_text(path) or "").partition("\n")[0][:FIRST_LINE]
    return file


def sha256_of(path: str) -> Optional[str]:
    """Hash of a small file."""
    try:
        if os.path.getsize(path) > LARGEST_HASHED_BYTES:
            return None
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except OSError:
        return None


def read_paths(root: str, paths: Sequence[str]) -> Dict[str, Optional[Dict[str, Any]]]:
    """State of the paths asked for."""
    return {path: path_state(under(root, path)) or None for path in paths}


def read_cgroups(tools: Dict[str, Any]) -> Dict[str, Optional[str]]:
    """cgroup of each process that nvidia-smi lists; it names the systemd unit."""
    queries = [run for command, run in tools.items() if command.startswith(COMMANDS[0][0])]
    printed = "\n".join(line for run in queries for line in run.get("stdout", []))
    pids = sorted(set(re.findall(r"<pid>(\d{1,9})</pid>", printed)), key=int)
    return {pid: read_text(f"/proc/{pid}/cgroup") for pid in pids}


def read_main_processes(tools: Dict[str, Any]) -> Dict[str, Dict[str, Any]]:
    """Revision, command line by hash, and start of each unit's main process; no environment."""
    lines = tools.get("systemctl show", {}).get("stdout", [])
    pids = re.findall(r"^MainPID=([1-9]\d{0,8})$", "\n".join(lines), re.MULTILINE)
    return {pid: main_process(pid) for pid in pids}


def main_process(pid: str) -> Dict[str, Any]:
    """What one running process carries; the command line only by hash, for it may say anything."""
    return {
        "revision": revision_of(pid),
        "command_sha256": sha256_of(f"/proc/{pid}/cmdline"),
        "started_at": started_at(pid),
    }


def revision_of(pid: str) -> Optional[str]:
    """The revision a running process was started with."""
    for line in (read_text(f"/proc/{pid}/environ") or "").split("\0"):
        if line.startswith("MULTIGPU_REVISION="):
            return line.partition("=")[2]
    return None


def started_at(pid: str) -> Optional[float]:
    """Unix time of a process's start, to about 20 ms; None when it is gone.

    /proc/stat's btime has whole seconds only, too coarse beside the time of a file written just
    before the start.
    """
    try:
        # The program's name, in parentheses, may hold blanks; starttime is field 22 (proc(5)).
        ticks = int((read_text(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()[19])
        uptime = float((read_text("/proc/uptime") or "").split()[0])
    except (ValueError, IndexError):
        return None
    return round(time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK"), 2)
