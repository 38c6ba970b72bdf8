"""Seconds of the first and the second `serve` on 1, 2 and 4 lab hosts, and SSH commands of a no-op.

    python tests/lab/measure.py

Takes the lab down before and after. The load of the verification (8 s by default) is part of every
serve; it is printed apart.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAB = [sys.executable, "tests/lab/lab.py"]
VERIFY_S = 8


def lab(*words: str) -> None:
    subprocess.run([*LAB, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def serve(plans: str, *options: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Wall seconds and output of one run of deploys/serve.py."""
    started = time.monotonic()
    command = [sys.executable, "-m", "pyinfra", "inventories/lab.py", "deploys/serve.py", "-y"]
    data = ["--data", f"plans_directory={plans}", "--data", f"verify_s={VERIFY_S}"]
    done = subprocess.run(
        [*LAB, "exec", "--", *command, *data, *options],
        cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ},
    )  # fmt: skip
    return time.monotonic() - started, done


def measure(hosts: int) -> str:
    """One row: seconds of first and second serve, changes of the second, commands per host."""
    lab("down")
    lab("up", "--hosts", str(hosts))
    with tempfile.TemporaryDirectory() as plans:
        first_s, first = serve(plans)
        if first.returncode:
            raise SystemExit(first.stderr)
        second_s, second = serve(plans, "--json")
        changes = json.loads(second.stdout)["results"]["totals"]["success"]
        _, verbose = serve(plans, "-vv")
    commands = (verbose.stdout + verbose.stderr).count(">>> ") / hosts
    return f"{hosts:5}  {first_s:7.1f}  {second_s:8.1f}  {changes:7}  {commands:17.1f}"


def main() -> None:
    if not shutil.which("ip"):
        raise SystemExit("the lab is not possible here: no ip command")
    print(f"load of one verification: {VERIFY_S} s; this machine has {os.cpu_count()} CPUs")
    print("hosts  first s  second s  changes  commands per host", flush=True)
    try:
        for hosts in (1, 2, 4):
            print(measure(hosts), flush=True)
    finally:
        lab("down")


if __name__ == "__main__":
    main()
