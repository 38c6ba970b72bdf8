"""Drives a short load against running services, samples NVML meanwhile, and prints what was seen.

One JSON document on stdout, ASCII, with an end marker; deciding is left to `multigpu.verdict`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import subprocess
import threading
import time
from typing import Any, Dict, Optional

from multigpu.host import local, secret
from multigpu.host.load import REQUEST_TIMEOUT_S, Load, complete
from multigpu.host.nvml import Sampler

SCHEMA = 1
END = "multigpu-observation-end"
PROPERTIES = (
    "ActiveState",
    "SubState",
    "Result",
    "NRestarts",
    "MainPID",
    "InvocationID",
    "ExecMainStartTimestampMonotonic",
)
LOG_LINES = 20000
COMMAND_TIMEOUT_S = 10.0


def output(argv: list[str]) -> str:
    """Standard output of a command, "" when it fails or takes longer than COMMAND_TIMEOUT_S."""
    try:
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=COMMAND_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")


def first_lines(argv: list[str], count: int) -> list[str]:
    """The first lines of a command's output, which is then ended; [] when it does not start."""
    try:
        command = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return []
    too_late = threading.Timer(COMMAND_TIMEOUT_S, command.kill)
    too_late.start()
    with command:
        lines = list(itertools.islice(command.stdout or (), count))
        command.kill()
    too_late.cancel()
    return [line.decode("utf-8", "replace").rstrip("\n") for line in lines]


def read(path: str) -> bytes:
    """A file's content, b"" when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def unit_state(unit: str) -> dict[str, str]:
    """`systemctl show` of the properties named above."""
    text = output(["systemctl", "show", unit, "-p", ",".join(PROPERTIES)])
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def engine_pid(main_pid: int) -> int:
    """The engine is the supervisor's child; without one, the main process itself."""
    children = read(f"/proc/{main_pid}/task/{main_pid}/children").split()
    return int(children[0]) if children else main_pid


def strings(raw: bytes) -> list[str]:
    """NUL-separated strings of /proc/PID/cmdline and environ."""
    return [item.decode("utf-8", "replace") for item in raw.split(b"\0") if item]


def environment(pid: int, names: list[str]) -> dict[str, str]:
    """Only the named variables: others may hold what nobody should copy."""
    pairs = [item.split("=", 1) for item in strings(read(f"/proc/{pid}/environ")) if "=" in item]
    return {name: value for name, value in pairs if name in names}


def journal(unit: str, invocation: str, patterns: list[str]) -> list[str]:
    """Lines of this invocation's journal that match one of the patterns.

    The first lines, not the last: what an engine says of its cards it says while it loads, and a
    server that logs each request says much afterwards.
    """
    which = ["-u", unit, f"_SYSTEMD_INVOCATION_ID={invocation}"]
    wanted = [re.compile(pattern) for pattern in patterns]
    lines = first_lines(["journalctl", "-q", "-o", "cat", "--no-pager", *which], LOG_LINES)
    return [line[:500] for line in lines if any(p.search(line) for p in wanted)]


def log_begins_s(unit: str, state: Dict[str, str]) -> Optional[float]:
    """Seconds from the start of the process to the first line that the journal still has of it.

    None when it has none: what an engine says while it loads is dropped when the journal rotates.
    """
    which = ["-u", unit, f"_SYSTEMD_INVOCATION_ID={state.get('InvocationID', '')}"]
    lines = first_lines(["journalctl", "-q", "-o", "short-monotonic", "--no-pager", *which], 1)
    first = re.match(r"\[ *([\d.]+)\]", lines[0]) if lines else None
    started_us = state.get("ExecMainStartTimestampMonotonic", "")
    if first is None or not started_us.isdigit():
        return None
    return float(first[1]) - int(started_us) / 1e6


def observe_unit(unit: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """What one unit is and what its engine says of itself."""
    state = unit_state(unit["unit"])
    main_pid = int(state.get("MainPID") or 0)
    pid = engine_pid(main_pid) if main_pid else 0
    names = [*spec["environment_names"], "MULTIGPU_REVISION"]
    return {
        "unit": unit["unit"],
        "active_state": state.get("ActiveState"),
        "sub_state": state.get("SubState"),
        "n_restarts": int(state.get("NRestarts") or 0),
        "argv": strings(read(f"/proc/{pid}/cmdline")) if pid else [],
        "environment": environment(pid, names) if pid else {},
        "log": journal(unit["unit"], state.get("InvocationID", ""), spec["log_patterns"]),
        "log_begins_s": log_begins_s(unit["unit"], state),
    }


def observe_service(spec: dict[str, Any]) -> dict[str, Any]:
    """Load one service, all of its units at once, and sample the cards meanwhile."""
    urls = [unit["url"] for unit in spec["units"]]
    headers = api_key(spec.get("api_key_file"))
    warm_up(urls, spec["model"], headers)
    load = Load(urls, spec["model"], spec["concurrency"], spec["max_tokens"], headers)
    sampler = Sampler()
    sampler.start()
    load.start()
    time.sleep(spec["seconds"])
    cards = sampler.result()
    return {
        "name": spec["name"],
        "load": load.stop(),
        "gpus": cards,
        "nvml_error": sampler.error,
        "units": [observe_unit(unit, spec) for unit in spec["units"]],
        "endpoint": asked_through(spec, headers),
    }


def asked_through(spec: dict[str, Any], headers: Optional[Dict[str, str]]) -> Optional[str]:
    """What one request to the endpoint said against it, "" when it was answered; None without."""
    if spec.get("endpoint") is None:
        return None
    try:
        complete(spec["endpoint"], spec["model"], 1, headers)
    except local.FAILURES as error:
        return local.said(error)
    return ""


def api_key(path: Optional[str]) -> Optional[Dict[str, str]]:
    """The header that shows the key of a file; without one the requests say what is missing."""
    if path is None:
        return None
    with contextlib.suppress(ValueError):
        return secret.bearer(secret.line(read(path)))
    return None


def warm_up(urls: list[str], model: str, headers: Optional[Dict[str, str]] = None) -> None:
    """One token each, so that lazy compilation does not look like an idle card.

    A failure is no verdict here: the load that follows meets it again and counts it.
    """

    def ask(url: str) -> None:
        with contextlib.suppress(*local.FAILURES):
            complete(url, model, 1, headers)

    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(REQUEST_TIMEOUT_S)


def main(arguments: list[str]) -> int:
    """`observe --spec JSON`: a list of services, written by `multigpu.observation.spec`."""
    parser = argparse.ArgumentParser(prog="multigpu observe", description=__doc__)
    parser.add_argument("--spec", required=True)
    services = json.loads(parser.parse_args(arguments).spec)
    seen = [observe_service(spec) for spec in services]
    print(json.dumps({"schema": SCHEMA, "services": seen, "end": END}), flush=True)
    os._exit(0)  # an NVML call may still block its thread
