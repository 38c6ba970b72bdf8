"""What a host keeps of its generations, and whether a transaction works there just now."""

from __future__ import annotations

from pyinfra.api import FactBase
from typing_extensions import override

from multigpu.transaction import DIRECTORY, STATUS, UNIT, Seen, read

# The last lines of multigpu.host.deploy_lock and .transaction are read, nothing is waited for.
_PROGRAM = f"""
import glob, json, os, subprocess
def text(path):
    try:
        return open(path, encoding="utf-8").read()
    except (OSError, ValueError):
        return ""
def of(path):
    try:
        found = json.loads(text(path) or "{{}}")
    except ValueError:
        found = {{}}
    return found if isinstance(found, dict) else {{}}
shown = subprocess.run(["systemctl", "show", "-p", "ActiveState", "--value", "{UNIT}"],
    stdout=subprocess.PIPE).stdout.decode().strip()
found = {{"state": of("{DIRECTORY}/state.json"), "busy": shown in ("activating", "active"),
    "line": of("{STATUS}").get("line"), "lock": of("/run/multigpu/deploy.lock").get("id", ""),
    "runtimes": {{}}, "plans": {{}}}}
for path in glob.glob("{DIRECTORY}/*/manifest.json"):
    name = path.split("/")[-2]
    if name.isdecimal():
        found["runtimes"][name] = of(path).get("runtimes", [])
        found["plans"][name] = text(os.path.dirname(path) + "/plan.yaml")
print(json.dumps(found))
"""


class Generations(FactBase[Seen | None]):
    """The generations of this host; None: unknown."""

    @staticmethod
    @override
    def default() -> None:
        return None

    @override
    def command(self) -> str:
        return f"python3 - <<'MULTIGPU_GENERATIONS'\n{_PROGRAM}\nMULTIGPU_GENERATIONS\n"

    @override
    def process(self, output: list[str]) -> Seen | None:
        return read("\n".join(output))
