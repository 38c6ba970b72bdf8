"""What a test or a person does with a lab that is up."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from . import cluster, faults, hosts, network
from .hosts import LabHost
from .settings import LabError, Settings
from .shell import environment

TIMEOUT_SECONDS = 120.0
Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Lab:
    """A running lab; `hosts` in the order of their addresses."""

    settings: Settings
    hosts: tuple[LabHost, ...]

    @classmethod
    def running(cls, settings: Settings | None = None) -> Lab:
        """The lab that is up. Raises LabError when none is."""
        chosen = settings or Settings()
        rows = tuple(cluster.read_hosts(chosen))
        if not rows:
            raise LabError("no lab is up; start one with `python tests/lab/lab.py up`")
        return cls(chosen, rows)

    def host(self, name: str) -> LabHost:
        """The host of that name. Raises LabError with the known names."""
        for row in self.hosts:
            if row.name == name:
                return row
        raise LabError(f"no host called {name}; up are {', '.join(h.name for h in self.hosts)}")

    def run(
        self, host: str, command: str, check: bool = True, timeout: float = TIMEOUT_SECONDS
    ) -> Done:
        """Run a shell command as the operator. With `check`, a failure is an AssertionError."""
        return self._run(hosts.ssh(self.settings, self.host(host).name, command), check, timeout)

    def put(self, host: str, source: Path, target: str) -> None:
        """Copy a file onto a host, owned by the operator."""
        with source.open("rb") as file:
            argv = hosts.ssh(self.settings, self.host(host).name, f"cat > {shlex.quote(target)}")
            subprocess.run(argv, stdin=file, check=True, env=environment())

    def exec(self, *argv: str, check: bool = False, timeout: float = TIMEOUT_SECONDS) -> Done:
        """Run a command on the controller's side, where the hosts answer, in the checkout."""
        return self._run([*network.inside(self.settings), *argv], check, timeout)

    def pyinfra(self, *arguments: str, timeout: float = 600.0) -> Done:
        """Run this Python's pyinfra in the checkout; `-y --json` prints the totals on stdout."""
        return self.exec(sys.executable, "-m", "pyinfra", *arguments, timeout=timeout)

    def reset(self, host: str) -> None:
        """Make a host bare again: a fresh disk and a boot. Same address and host key."""
        cluster.renew(self.settings, self.host(host))

    def break_host(self, host: str, state: str) -> None:
        """`no-driver`, `hang`, `latin1`, `python`, or `none` to mend."""
        faults.break_host(self.settings, self.host(host).name, state)

    def lose_card(self, host: str, index: int, lost: bool = True) -> None:
        """Let a card fall off the bus, or bring it back."""
        fault = f"/run/simulated-gpu/{index}/fault"
        self.run(host, f"echo lost > {fault}" if lost else f"rm -f {fault}")

    def _run(self, argv: list[str], check: bool, timeout: float) -> Done:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=timeout,
            cwd=self.settings.checkout, env=environment(), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{argv[-1]!r} ended with {done.returncode}: {done.stderr}")
        return done
