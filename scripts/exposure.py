"""The exposure level of every kind of unit, as docs/security.md quotes it (needs systemd-analyze).

PYTHONPATH=. python scripts/exposure.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests import hardened


def main() -> int:
    """A line a kind. Returns 1 when one is above 2.0, 2 when nothing here can judge."""
    if not hardened.can_judge():
        print("exposure: systemd-analyze of systemd 250 or newer is needed", file=sys.stderr)
        return 2
    worst = True
    with tempfile.TemporaryDirectory() as folder:
        for kind in hardened.KINDS:
            score, good = hardened.exposure(hardened.write(hardened.unit(kind), Path(folder)))
            print(f"{score:4.1f}  {kind}")
            worst = worst and good
    return 0 if worst else 1


if __name__ == "__main__":
    sys.exit(main())
