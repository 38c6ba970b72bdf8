"""The whole path in one command: rehearsal plans, then two lab hosts, served, verified, re-run.

    make demo

Exit status 0 when everything held, also when this machine cannot run the lab; it says so.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

from multigpu.hardware import Host
from multigpu.labels import label
from multigpu.mix import mix
from multigpu.parse import capture
from multigpu.planfile import read

ROOT = Path(__file__).resolve().parent.parent
PYINFRA = str(Path(sys.executable).with_name("pyinfra"))
LAB = (sys.executable, "tests/lab/lab.py")
SERVE = (*LAB, "exec", "--", PYINFRA, "inventories/lab.py", "deploys/serve.py", "-y")
HOSTS = ROOT / ".lab" / "hosts.json"
LAB_IMPOSSIBLE = 3
STEPS = 5
PORT = 8000

# Lines of pyinfra that say nothing here: fifteen connections to files, and an empty result table.
NOISE = re.compile(
    r"\] +(Connected|Ready:)|\] +wrote rehearsal/|^--> (Load|Skip|Begin|Res|Disc)"
    r"|^ +(Operation|Grand total) "
)
REFUSED = re.compile(r"\[@fake/(?P<machine>\S+)\] +(?P<line>no plan .*)")

# What a client on the host does; the service listens on the host's loopback.
ASK = """
import json, urllib.request
body = json.dumps({"model": "chat", "prompt": "two gpus are", "max_tokens": 16}).encode()
request = urllib.request.Request(
    "http://127.0.0.1:%d/v1/completions", body, {"Content-Type": "application/json"})
print(urllib.request.urlopen(request, timeout=60).read().decode())
"""


class Failed(Exception):
    """A step did not hold; the text says which."""


class Clock:
    """Headlines with the seconds since the start, and how long each step took."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.marks: list[tuple[str, float]] = []

    def headline(self, text: str) -> None:
        now = time.monotonic() - self.started
        self.marks.append((text, now))
        step = f"step {len(self.marks)} of {STEPS}, after {now:.0f} s: {text}"
        print(f"\n{'=' * 80}\n{step}\n{'=' * 80}", flush=True)

    def summary(self) -> None:
        """Seconds of every step, and of all."""
        end = time.monotonic() - self.started
        ends = [at for _, at in self.marks[1:]] + [end]
        print()
        for (text, at), until in zip(self.marks, ends, strict=True):
            print(f"  {until - at:6.1f} s  {text}")
        print(f"  {end:6.1f} s  in all", flush=True)


def run(*argv: str) -> int:
    """Run a command in the checkout, its output visible all the time."""
    return subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL).returncode


def rehearse() -> None:
    """All plan screens as they come, then a table of them. Raises Failed when there is none."""
    argv = (PYINFRA, "inventories/rehearsal.py", "deploys/serve.py", "-y")
    refused: dict[str, str] = {}
    process = subprocess.Popen(
        argv, cwd=ROOT, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    for line in process.stdout or ():
        if found := REFUSED.search(line):
            refused[found["machine"]] = found["line"]
        if not NOISE.search(line):
            print(line, end="", flush=True)
    if process.wait() not in (0, 1):
        raise Failed("the rehearsal did not end as it should; see above")
    table(refused)


def table(refused: dict[str, str]) -> None:
    """One line a machine: how mixed its cards are, what is planned or why nothing is."""
    print("every captured machine in one line; its screen is above:\n")
    planned = 0
    for path in sorted((ROOT / "tests" / "hosts").glob("*.json")):
        name = path.stem
        kind = cards_of(capture.read(path.read_text(), name))
        if name in refused:
            print(f"  {name:20}  {kind:21}  refused, see its line above")
            continue
        file = ROOT / "rehearsal" / "plans" / f"{name}.yaml"
        for plan in read(file.read_text() if file.exists() else None, str(file)).values():
            print(f"  {name:20}  {kind:21}  {label(plan.chosen)}")
            planned += 1
    if not planned:
        raise Failed("no machine was planned; see above")
    print(
        f"\n{planned} planned; {len(refused)} refused, as they should be: no usable card, or too "
        "little memory\nwhat each would get: rehearsal/<machine>/; plans: rehearsal/plans/"
    )


def cards_of(machine: Host) -> str:
    """`mixed by memory`, or how many cards can be used when not all can."""
    usable, all_cards = len(machine.usable), len(machine.gpus)
    return mix(machine.usable) if usable == all_cards else f"{usable} of {all_cards} GPUs usable"


def serve_lab(clock: Clock) -> None:
    """Serve, show, serve again. Raises Failed."""
    clock.headline("bare hosts to verified services")
    if run(*SERVE):
        raise Failed("serving failed; the reason is above")
    clock.headline("a completion from each host")
    print("the model has random weights: noise is right, silence is not")
    for host in json.loads(HOSTS.read_text()):
        print(f"{host['name']} ({host['ip']}): {completion(host['name'])}", flush=True)
    clock.headline("the same deploy again; nothing may change")
    changed, failed = changes()
    print(f"second run: {changed} changes, {failed} errors")
    if (changed, failed) != (0, 0):
        raise Failed("the second run was to change nothing")


def completion(name: str) -> str:
    """One answer of a host's service. Raises Failed when there is none."""
    done = subprocess.run(
        [*LAB, "ssh", name, f"python3 -c {shlex.quote(ASK % PORT)}"],
        cwd=ROOT, text=True, stdin=subprocess.DEVNULL, capture_output=True,
    )  # fmt: skip
    try:
        answer = json.loads(done.stdout)
        return f"{answer['usage']['completion_tokens']} tokens: {answer['choices'][0]['text']!r}"
    except (ValueError, KeyError, IndexError):
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise Failed(f"{name} gave no completion; it said: {said[-1][:200]}") from None


def changes() -> tuple[int, int]:
    """Serve with --json; (operations that changed something, operations that failed)."""
    done = subprocess.run(
        [*SERVE, "--json"], cwd=ROOT, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        totals = json.loads(done.stdout)["results"]["totals"]
    except (ValueError, KeyError):
        return 0, 1
    return int(totals["success"]), int(totals["error"])


def in_the_lab(clock: Clock) -> str:
    """Boot, serve and take down again what this run booted. Returns the closing sentence."""
    found_running = HOSTS.exists()
    clock.headline("boot a matched and a mixed pair (simulated GPUs)")
    if not found_running and os.geteuid() == 0:
        print("the first time this builds llama.cpp and a Debian image: six to nine minutes")
    status = run(*LAB, "up", "matched", "mixed")
    if status == LAB_IMPOSSIBLE:
        return "the rehearsal is all that this machine can show: the lab needs what is said above"
    try:
        if status:
            raise Failed("the lab did not come up; the reason is above")
        serve_lab(clock)
    finally:
        if found_running:
            print("the lab was up before and stays up; `make lab-down` removes it")
        else:
            run(*LAB, "down")
    return "everything held: planned, served over both cards of each host, verified, and stable"


def main() -> int:
    """All steps."""
    clock = Clock()
    try:
        clock.headline("plans for captured machines; no host is touched")
        rehearse()
        closing, status = in_the_lab(clock), 0
    except Failed as failure:
        closing, status = f"DEMO FAILED: {failure}", 1
    except KeyboardInterrupt:
        closing, status = "interrupted", 130
    clock.summary()
    print(f"\n{closing}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
