"""Write the captured machines: `python -m tests.hosts.generate`.

The text is what the tools of the machine's releases print; it says that it is simulated, so every
screen of these machines does.
"""

from __future__ import annotations

from tests.hosts import HERE
from tests.hosts.machines import MACHINES
from tests.rigs.capture import text_of


def main() -> None:
    """Write all files beside this module."""
    for rig in MACHINES:
        (HERE / f"{rig.host.name}.json").write_text(text_of(rig), encoding="ascii")


if __name__ == "__main__":
    main()
