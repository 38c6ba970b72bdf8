"""Tools of a host, each in its own process group and bounded in time."""

from __future__ import annotations

import functools
import glob
import os
import re
import signal
import subprocess
import time
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

from multigpu.host.probe.files import text_of, under
from multigpu.host.probe.pci import GPU_CLASSES

Part = Callable[[], Any]
Parts = Dict[str, Part]

TOOL_S = 10.0

# Eight cards without the persistence daemon take seconds per call: the driver starts each of them.
DRIVER_S = 14.0

COMMANDS: Tuple[Tuple[str, float], ...] = (
    ("nvidia-smi -q -x", DRIVER_S),
    ("nvidia-smi --query-gpu=index,pci.bus_id,compute_cap --format=csv,noheader", DRIVER_S),
    ("nvidia-smi topo -m", DRIVER_S),
    ("nvidia-smi topo -mp", DRIVER_S),
    ("nvidia-smi topo -p2p r", DRIVER_S),
    ("nvidia-smi topo -p2p w", DRIVER_S),
    ("nvidia-smi nvlink -s", DRIVER_S),
    ("amd-smi static --json", TOOL_S),
    ("systemd-detect-virt", TOOL_S),
    ("systemctl --version", TOOL_S),
    ("modinfo -F license nvidia", TOOL_S),
)
LSPCI = "lspci -vvv -D -nn"
KERNEL_LOG = "journalctl -k -b -q --no-pager --no-hostname -o short-unix"

# What is kept of the kernel log: GPUs, their links, and programs that died of either.
KERNEL_LINES = re.compile(
    r"NVRM|nvidia|nvswitch|SXid|amdgpu|\bAER\b|available PCIe bandwidth|fallen off the bus|D3cold|"
    r"Out of memory|oom-kill|segfault .*(nccl|rccl|cuda|hip|ggml|torch)",
    re.IGNORECASE,
)
KERNEL_FIRST, KERNEL_LAST = 100, 400

UNIT_FILES = "/etc/systemd/system/multigpu-*"
UNIT_PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "NRestarts",
    "MainPID",
    "NeedDaemonReload",
    "UnitFileState",
)

# Hundreds of lines per card that nobody plans with; the rest of the XML stays as printed.
SUPPORTED_CLOCKS = re.compile(r"<supported_clocks>.*?</supported_clocks>", re.DOTALL)


def run_tool(argv: Sequence[str], seconds: float) -> Dict[str, Any]:
    """Run one tool in its own process group and keep what it printed."""
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=tool_environment(),
        )
    except FileNotFoundError:
        return {"rc": None, "missing": True}
    except OSError as error:
        return tool_record(None, b"", str(error).encode("utf-8", "replace"), 0.0, False)
    output, errors, timed_out = wait_for(process, seconds)
    return tool_record(process.returncode, output, errors, time.monotonic() - started, timed_out)


def wait_for(process: subprocess.Popen[bytes], seconds: float) -> Tuple[bytes, bytes, bool]:
    """Output, errors and whether the time ran out; never waits for what cannot be killed."""
    try:
        output, errors = process.communicate(timeout=seconds)
        return output, errors, False
    except subprocess.TimeoutExpired:
        kill_group(process.pid)
    try:
        output, errors = process.communicate(timeout=1.0)
    except subprocess.TimeoutExpired as stuck:
        output, errors = stuck.output or b"", stuck.stderr or b""
    return output, errors, True


def kill_group(pid: int) -> None:
    """Kill a tool and whatever it started; start_new_session made its pid the group's id."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        return


def tool_environment() -> Dict[str, str]:
    """Untranslated output, and the directories that a non-login shell leaves out of PATH."""
    path = os.environ.get("PATH", "")
    usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {**os.environ, "LC_ALL": "C", "PATH": f"{path}:{usual}" if path else usual}


def tool_record(
    rc: Optional[int], output: bytes, errors: bytes, seconds: float, timed_out: bool
) -> Dict[str, Any]:
    """The JSON value of one tool's run."""
    stdout = SUPPORTED_CLOCKS.sub("<!-- supported_clocks left out -->", text_of(output))
    return {
        "rc": rc,
        "seconds": round(seconds, 2),
        "timed_out": timed_out,
        "stdout": stdout.split("\n"),
        "stderr": text_of(errors).split("\n"),
    }


def show_units(root: str, seconds: float) -> Dict[str, Any]:
    """`systemctl show` of every unit of ours: loaded ones by pattern, the others by their file."""
    names = {os.path.basename(path) for path in glob.glob(under(root, UNIT_FILES))}
    known = sorted(name for name in names if "@." not in name and not name.endswith(".d"))
    properties = ",".join(UNIT_PROPERTIES)
    argv = ["systemctl", "show", "--no-pager", f"--property={properties}", "multigpu-*", *known]
    return run_tool(argv, seconds)


def lspci_of(addresses: Sequence[str], seconds: float) -> Dict[str, Any]:
    """lspci in full for these devices only: a large server's whole output has a megabyte."""
    record = run_tool(LSPCI.split(), seconds)
    paragraphs = "\n".join(record.get("stdout", [])).split("\n\n")
    kept = [text for text in paragraphs if text.split(" ", 1)[0] in set(addresses)]
    return {**record, **({"stdout": "\n\n".join(kept).split("\n")} if "stdout" in record else {})}


def kernel_log(seconds: float) -> Dict[str, Any]:
    """The kernel's lines about GPUs since boot, from the journal, else from its ring buffer."""
    record = run_tool(KERNEL_LOG.split(), seconds)
    if not any(line.strip() for line in record.get("stdout", [])):
        record = run_tool(["dmesg"], seconds)
    lines = [line for line in record.get("stdout", []) if KERNEL_LINES.search(line)]
    if len(lines) > KERNEL_FIRST + KERNEL_LAST:
        left_out = len(lines) - KERNEL_FIRST - KERNEL_LAST
        lines = [*lines[:KERNEL_FIRST], f"... {left_out} lines left out", *lines[-KERNEL_LAST:]]
    return {**record, **({"stdout": lines} if "stdout" in record else {})}


def single_cards(tools: Dict[str, Any], devices: Any, limit: float) -> Parts:
    """One query per card, for when nvidia-smi refuses to speak of any because one has no handle."""
    record = tools.get(COMMANDS[0][0], {})
    said = "\n".join(record.get("stdout", []) + record.get("stderr", []))
    if "</nvidia_smi_log>" in said or "device handle" not in said:
        return {}
    cards = [
        device["address"]
        for device in devices or []
        if device["vendor"] == "0x10de" and (device["class"] or "").startswith(GPU_CLASSES)
    ]
    commands = [f"{COMMANDS[0][0]} -i {address}" for address in cards]
    return {command: functools.partial(run_tool, command.split(), limit) for command in commands}
