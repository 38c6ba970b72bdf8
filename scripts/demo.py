"""The whole path in one command: rehearsal plans, then two lab hosts, served, verified, re-run.

    make demo

Exit status 0 when everything held, also when this machine cannot run the lab; it says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYINFRA = str(Path(sys.executable).with_name("pyinfra"))
LAB = [sys.executable, "tests/lab/lab.py"]
LAB_IMPOSSIBLE = 3
STARTED = time.monotonic()


def headline(text: str) -> None:
    """One step, with the seconds since the start."""
    print(f"\n=== {time.monotonic() - STARTED:5.0f} s  {text}", flush=True)


def run(*argv: str) -> int:
    """Run a command in the checkout, its output visible all the time."""
    return subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL).returncode


def changes(*argv: str) -> tuple[int, int]:
    """Run pyinfra with --json; (operations that changed something, operations that failed)."""
    done = subprocess.run(
        argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    try:
        totals = json.loads(done.stdout)["results"]["totals"]
    except (ValueError, KeyError):
        return 0, 1
    return int(totals["success"]), int(totals["error"])


def completion(name: str, ip: str, port: int) -> None:
    """Ask one host for a completion, as a client on the host would."""
    body = json.dumps({"model": "chat", "prompt": "two gpus are", "max_tokens": 16})
    request = (
        "import urllib.request as u;"
        f"r=u.Request('http://127.0.0.1:{port}/v1/completions',{body!r}.encode(),"
        "{'Content-Type':'application/json'});"
        "print(u.urlopen(r,timeout=60).read().decode())"
    )
    done = subprocess.run(
        [*LAB, "ssh", name, f'python3 -c "{request}"'],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    answer = json.loads(done.stdout or "{}")
    choices = answer.get("choices") or [{}]
    usage = answer.get("usage") or {}
    text = choices[0].get("text", "no answer")
    print(f"{name} ({ip}): {usage.get('completion_tokens', 0)} tokens: {text!r}")


def lab_hosts() -> list[dict[str, object]]:
    """The running lab's hosts."""
    found: list[dict[str, object]] = json.loads((ROOT / ".lab" / "hosts.json").read_text())
    return found


def serve_lab() -> int:
    """Serve, show, serve again. Returns the exit status."""
    headline("serve: install, start and verify on both hosts")
    serve = (*LAB, "exec", "--", PYINFRA, "inventories/lab.py", "deploys/serve.py", "-y")
    if run(*serve):
        return 1
    headline("a completion from each host (random weights: expect noise, not words)")
    for host in lab_hosts():
        completion(str(host["name"]), str(host["ip"]), 8000)
    headline("the same deploy again")
    changed, failed = changes(*serve, "--json")
    print(f"second run: {changed} changes, {failed} errors")
    return 0 if (changed, failed) == (0, 0) else 1


def main() -> int:
    """All steps."""
    headline("plans for captured machines (no host is touched; files under rehearsal/)")
    if run(PYINFRA, "inventories/rehearsal.py", "deploys/serve.py", "-y") not in (0, 1):
        return 1
    headline("two lab hosts with simulated GPUs: prepare and boot")
    status = run(*LAB, "up", "matched", "mixed")
    if status == LAB_IMPOSSIBLE:
        print("the rehearsal above is all this machine can show; the lab needs what is named there")
        return 0
    try:
        return status or serve_lab()
    finally:
        headline("remove the lab")
        run(*LAB, "down")


if __name__ == "__main__":
    sys.exit(main())
