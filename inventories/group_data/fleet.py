"""What every host of inventories/fleet.py serves."""

ssh_user = "deploy"
_sudo = True

services = {
    "chat": {
        "model": "Qwen/Qwen3-32B-AWQ",
        "objective": "throughput",
        "context": 16384,
        "concurrency": 16,
        "port": 8000,
    },
}
