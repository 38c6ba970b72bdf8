"""What a run learned of all its hosts, shown once the last of them has answered.

pyinfra runs a deploy for each host at the same time; nothing comes after all of them that may still
print. So each host reports here, and the one that completes the list shows the fleet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pyinfra import host, state

from deploys.common import machine_name
from multigpu.hardware import Host


@dataclass
class Roundup:
    """Machines that answered, and why the others could not be read, by name."""

    machines: dict[str, Host] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    reported: set[str] = field(default_factory=set)

    def report(self, show: Callable[[Roundup], None]) -> None:
        """Count this host as done, whatever became of it; the last one shows everything."""
        self.reported.add(str(host.name))
        waited_for = {str(h.name) for h in state.activated_hosts}
        if waited_for <= self.reported:
            known = {*self.machines, *self.unreadable}
            for name in sorted(machine_name(h) for h in state.failed_hosts):
                if name not in known:
                    self.unreadable[name] = "no answer; pyinfra says above why"
            show(self)


RUN = Roundup()
