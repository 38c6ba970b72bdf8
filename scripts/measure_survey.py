"""How long a survey takes: reading one machine, and pyinfra over two hundred.

    python scripts/measure_survey.py

Prints milliseconds to read the captured 8-GPU machine of tests/hosts (best and median of many), and
seconds of wall time for deploys/survey.py on 200 @fake hosts, pyinfra's own start included.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from multigpu.parse.capture import read

ROOT = Path(__file__).resolve().parents[1]
HOSTS = ROOT / "tests" / "hosts"
REPEATS, FLEET = 50, 200

INVENTORY = """
from pathlib import Path
_captures = sorted(Path({hosts!r}).glob("*.json"))
_texts = [path.read_text() for path in _captures]
fleet = [
    (
        f"@fake/host-{{i:03d}}",
        {{
            "fake_responses": {{"MULTIGPU_PROBE": _texts[i % len(_texts)]}},
            "fake_delay": 0,
            "fake_delay_jitter": 0,
            "captures_directory": {captures!r},
        }},
    )
    for i in range({count})
]
"""


def reading_ms(name: str) -> list[float]:
    """Milliseconds of each of many readings of one captured machine."""
    text = (HOSTS / f"{name}.json").read_text(encoding="ascii")
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        read(text, name)
        taken.append((time.perf_counter() - started) * 1000)
    return taken


def fleet_s(folder: Path) -> float:
    """Wall seconds of one survey of many hosts."""
    inventory = folder / "inventory.py"
    captures = folder / "captures"
    inventory.write_text(INVENTORY.format(hosts=str(HOSTS), captures=str(captures), count=FLEET))
    command = [sys.executable, "-m", "pyinfra", str(inventory), "deploys/survey.py", "-y"]
    started = time.monotonic()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    taken = time.monotonic() - started
    kept = len(list(captures.glob("*.json")))
    if kept != FLEET:
        sys.exit(f"{kept} of {FLEET} hosts were read:\n{done.stdout.decode()[-2000:]}")
    return taken


def main() -> None:
    """Print the figures."""
    taken = reading_ms("8xH100-nvswitch")
    print(
        f"read 8xH100-nvswitch: best {min(taken):.1f} ms, median {statistics.median(taken):.1f} ms"
    )
    with tempfile.TemporaryDirectory() as folder:
        print(f"survey of {FLEET} @fake hosts: {fleet_s(Path(folder)):.1f} s")


if __name__ == "__main__":
    main()
