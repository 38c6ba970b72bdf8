"""Hosts of the lab that runs on this machine; see tests/lab/lab.py.

    python tests/lab/lab.py up matched mixed
    python tests/lab/lab.py exec -- pyinfra inventories/lab.py deploys/survey.py

Their GPUs are simulated: each card is a llama.cpp device reached over the host's loopback, which is
why the service names its devices itself.
"""

import json
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
STATE = CHECKOUT / ".lab"
SERVICES = {
    "chat": {
        "model": ".lab/models/tiny.gguf",
        "runtime": "llama.cpp",
        "strategy": "layer_split",
        "context": 2048,
        "concurrency": 2,
        "port": 8000,
        "devices": ["RPC0", "RPC1"],
        "flags": {"--rpc": "127.0.0.1:50052,127.0.0.1:50053"},
    },
}


def read_hosts() -> list[dict[str, Any]]:
    """Rows of `.lab/hosts.json`. Ends pyinfra with one line when no lab is up."""
    try:
        rows: list[dict[str, Any]] = json.loads((STATE / "hosts.json").read_text())
    except FileNotFoundError:
        raise SystemExit("no lab is up; start one with `python tests/lab/lab.py up`") from None
    return rows


def data(row: dict[str, Any]) -> dict[str, Any]:
    wheel = next((STATE / "wheels").glob("*.whl")).relative_to(CHECKOUT)
    return {
        "ssh_hostname": row["ip"],
        "ssh_port": row["port"],
        "ssh_user": row["user"],
        "ssh_key": row["key"],
        "ssh_known_hosts_file": str(STATE / "known_hosts"),
        "ssh_strict_host_key_checking": "yes",
        "ssh_allow_agent": False,
        "ssh_look_for_keys": False,
        "_sudo": True,
        "plans_directory": ".lab/plans",
        "captures_directory": ".lab/captures",
        "services": {name: {**wish, "wheel": str(wheel)} for name, wish in SERVICES.items()},
    }


gpu_hosts = [(row["name"], data(row)) for row in read_hosts()]
