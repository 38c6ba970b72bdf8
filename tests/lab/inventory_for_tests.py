"""The lab's inventory with other wishes: `MULTIGPU_LAB_SERVICES` holds them as JSON.

`hosts` there gives each host services of its own, {} those of the lab.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from inventories.lab import data, read_hosts

_wishes = json.loads(os.environ.get("MULTIGPU_LAB_SERVICES", "{}"))
_seconds = int(os.environ.get("MULTIGPU_LAB_VERIFY_S", "3"))


def _data(row):
    found = data(row)
    if row["name"] in _wishes.get("hosts", {}):
        services = _wishes["hosts"][row["name"]]
        if not services:  # the lab's own
            services = found["services"]
    elif _wishes.get("replace"):
        services = _wishes["services"]
    else:
        services = {"chat": {**found["services"]["chat"], **_wishes.get("chat", {})}}
    reactions = _wishes.get("reactions", {})
    return {**found, "services": services, "verify_s": _seconds, "reactions": reactions}


gpu_hosts = [(row["name"], _data(row)) for row in read_hosts()]
