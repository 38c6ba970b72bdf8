"""Where the lab keeps things and how they are called.

Names carry a token made from the checkout's path, so that labs of two checkouts never meet; each
lab's network is a namespace of its own, so they may share one subnet.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
CHECKOUT = HERE.parents[1]
USER = "ops"
SUBNET = "10.77.0"


class LabError(Exception):
    """One line for the person who started the lab."""


class LabNotPossible(LabError):
    """This machine cannot run the lab; the text says why."""


def cache_directory() -> Path:
    """`$MULTIGPU_CACHE`, else `~/.cache/multigpu`."""
    chosen = os.environ.get("MULTIGPU_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "multigpu"


@dataclass(frozen=True)
class Settings:
    """One checkout's lab. `work` holds the hosts' disks and may lie outside the checkout."""

    checkout: Path = CHECKOUT
    cache: Path = field(default_factory=cache_directory)

    @property
    def token(self) -> str:
        return hashlib.sha256(str(self.checkout.resolve()).encode()).hexdigest()[:6]

    @property
    def prefix(self) -> str:
        """Begins the name of every namespace, cgroup, unit and mount of this lab."""
        return f"lab-{self.token}"

    @property
    def state(self) -> Path:
        return self.checkout / ".lab"

    @property
    def works(self) -> tuple[Path, ...]:
        """Candidates for the hosts' disks, best first; the last one is made a tmpfs."""
        outside = f"multigpu-{self.prefix}"
        return (self.state / "work", Path("/var/tmp") / outside, Path("/run") / outside)

    @property
    def hosts_file(self) -> Path:
        return self.state / "hosts.json"

    @property
    def key(self) -> Path:
        return self.state / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.state / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        return self.state / "ssh_config"
