"""One service on one lab host: how it is put back, looked at and hurt.

What the supervisor wrote is read from the host's own disk, which this machine sees: no time passes
for asking.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bed import cluster, hosts
from bed.client import Lab

SERVICE = "chat"
UNIT = f"multigpu-{SERVICE}.service"
OWNER = f"multigpu-{SERVICE}"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/short-clocks.conf"
SHORT = {
    "tick": 0.5, "stall": 12, "corroborated": 6, "frozen": 3, "dead": 5, "canary": 0, "early": 0,
}  # fmt: skip
"""Seconds in place of 1, 180, 55, 10, 30, 60, 600; the start is repeated after 1 s, not 5."""
POLL_S = 0.1
CLIENTS = "/tmp/clients.py"
STRANGER = "/usr/lib/simulated-gpu/engine/stranger.py"


@dataclass
class Bench:
    """`shape`: vllm, sglang or llama. `short`: the clocks are shortened by a drop-in."""

    lab: Lab
    host: str
    shape: str
    port: int
    short: bool = False
    root: Path = field(init=False)
    program: str = ""

    def __post_init__(self) -> None:
        self.root = hosts.root(cluster.find_work(self.lab.settings), self.host)

    # --- commands ---

    def run(self, command: str, check: bool = True) -> str:
        """As root on the host."""
        done = self.lab.run(self.host, f"sudo sh -c {shlex.quote(command)}", check=check)
        return done.stdout.strip()

    def at_once(self, command: str) -> float:
        """Do it. The time just before, of the clock that all hosts share."""
        return float(self.run(f"date +%s.%N; {command}").splitlines()[0])

    def control(self, **told: Any) -> float:
        """Tell the simulated engines that run now what to do wrong; `later=True`: the next ones."""
        if not told.pop("later", False):
            told["started_before"] = time.time()
        path = f"/run/simulated-gpu/engine-{self.port}.json"
        text = shlex.quote(json.dumps(told))
        return self.at_once(f"printf %s {text} > {path}.new && mv {path}.new {path}")

    def obey(self) -> None:
        """No fault any more."""
        self.run(f"rm -f /run/simulated-gpu/engine-{self.port}.json /run/simulated-gpu/*/fault")

    # --- what is there ---

    @property
    def directory(self) -> Path:
        return self.root / f"var/lib/multigpu/{SERVICE}"

    def state(self) -> dict[str, Any]:
        """The supervisor's file; {} without one."""
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.directory / f"state/{SERVICE}.json").read_text())
        return {}

    def records(self) -> int:
        """Restarts that were ever counted."""
        return sum(self.state().get("restarts", {}).values())

    def shown(self, name: str) -> str:
        return self.run(f"systemctl show -P {name} {UNIT}")

    def pids(self, words: str) -> list[int]:
        """Processes of the service whose command line has these words."""
        command = f"pgrep -u {OWNER} -f -- {shlex.quote(words)}"
        return [int(word) for word in self.run(command, check=False).split()]

    def main_pid(self) -> int:
        return int(self.shown("MainPID"))

    def engine_pid(self) -> int:
        main = self.main_pid()
        return int(self.run(f"cat /proc/{main}/task/{main}/children").split()[0])

    def orphans(self) -> list[str]:
        """Processes of the service's user outside of its unit, or more than one engine in it."""
        inside = self.run(f"cat $(find /sys/fs/cgroup -path '*{UNIT}*' -name cgroup.procs)", False)
        owned = self.run(f"pgrep -u {OWNER}", check=False).split()
        main = self.shown("MainPID")
        children = self.run(f"cat /proc/{main}/task/{main}/children", check=False).split()
        outside = [pid for pid in owned if pid not in inside.split()]
        return outside + children[1:]

    def answers(self) -> bool:
        """One token comes within 5 s."""
        body = shlex.quote(json.dumps({"prompt": "one", "max_tokens": 1}))
        url = f"http://127.0.0.1:{self.port}/v1/completions"
        code = self.run(f"curl -s -m 5 -o /dev/null -w %{{http_code}} -d {body} {url}", False)
        return code.endswith("200")

    def files(self) -> str:
        """Hashes of every managed file, and of anything that is half of one."""
        return self.run(
            "sha256sum /etc/multigpu/chat.* /etc/systemd/system/multigpu-*.service 2>/dev/null; "
            "find /etc/multigpu /etc/systemd/system /opt/multigpu/services -name '*.new*' "
            "-o -name '*.partial*' | grep multigpu || true"
        )

    # --- putting back ---

    def wait(self, what: str, over: Callable[[], Any], limit_s: float) -> Any:
        """What `over()` gives, once it is true. AssertionError after `limit_s`."""
        deadline = time.monotonic() + limit_s
        while not (found := over()):
            now = self.state()
            assert time.monotonic() < deadline, (
                f"{self.shape} on {self.host}: not {what} within {limit_s:g} s: {now.get('state')} "
                f"{now.get('last_verdict')} {now.get('restarts')}"
            )
            time.sleep(POLL_S)
        return found

    def clocks(self, short: bool) -> None:
        """Short ones are appended to the supervisor's options: the last one holds."""
        if short:
            text = self.run(f"grep -h ^ExecStart= /etc/systemd/system/{UNIT}")
            words = " ".join(f"--{name}-s {value}" for name, value in SHORT.items())
            line = text.replace(" -- ", f" {words} --backoff-s 1 --kill-s 3 -- ", 1)
            content = f"[Service]\nExecStart=\n{line}\nRestartSec=1\n"
            self.run(f"mkdir -p {DROP_IN.rpartition('/')[0]}")
            (self.root / DROP_IN.lstrip("/")).write_text(content)
        else:
            self.run(f"rm -rf {DROP_IN.rpartition('/')[0]}")
        self.short = short
        self.run("systemctl daemon-reload")

    def fresh(self, short: bool) -> None:
        """A service without a past that serves."""
        self.obey()
        if short != self.short:
            self.clocks(short)
        self.run(
            f"systemctl stop {UNIT} load-{self.port} stranger 2>/dev/null; "
            f"rm -rf {self.in_guest}/state/*.json {self.in_guest}/evidence {self.in_guest}/fenced; "
            f"rm -f /run/multigpu/xid.json; systemctl reset-failed; systemctl start {UNIT}"
        )
        self.wait("serving", self.serving, 30)

    @property
    def in_guest(self) -> str:
        return f"/var/lib/multigpu/{SERVICE}"

    def serving(self) -> bool:
        return self.state().get("state") == "serving" and self.answers()

    @contextlib.contextmanager
    def load(self, users: int = 2) -> Iterator[None]:
        """Requests, one after the other, of some users; begun when some run."""
        url = f"http://127.0.0.1:{self.port}"
        self.run(
            f"systemd-run -q --collect --unit=load-{self.port} python3 {CLIENTS} {url} {users} 600"
        )
        try:
            time.sleep(1.0)
            yield
        finally:
            self.run(f"systemctl kill -s KILL load-{self.port}; systemctl stop load-{self.port}",
                     check=False)  # fmt: skip
