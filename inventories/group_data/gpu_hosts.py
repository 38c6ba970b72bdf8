"""What every host of the group `gpu_hosts` serves, unless its own data say otherwise.

Only `model` is required. All keys: docs/inventory.md.
"""

_sudo = True

services = {
    "chat": {
        "model": "Qwen/Qwen3-32B-AWQ",  # hub id, /path/on/the/host, or ./path/on/this/machine
        "objective": "latency",  # latency | throughput | context
        "context": 32768,
        "concurrency": 4,
    },
}
