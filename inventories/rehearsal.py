"""Captured machines instead of hosts: the whole plan and the rendered files, in seconds.

    pyinfra inventories/rehearsal.py deploys/survey.py -y
    pyinfra inventories/rehearsal.py deploys/serve.py -y

Nothing is contacted (pyinfra's @fake connector answers with the capture); files go to rehearsal/.
Machines without a usable card, or with too little memory, are refused, as they should be, and the
exit status is 1 for them.
To rehearse a machine of yours: run deploys/survey.py against it, and copy captures/<host>.json
beside the others.
"""

from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_CAPTURES = sorted((_ROOT / "tests" / "hosts").glob("*.json"))

# vLLM's wheel of PyPI is for NVIDIA cards: these hosts are said to have a ROCm build of their own.
_ROCM = {"model": "Qwen3-32B-AWQ", "executable": "/opt/vllm-rocm/bin/vllm", "context": 16384}
_SERVICES = {
    "2x7900xtx": _ROCM,
    "8xMI210-two-hives": {**_ROCM, "objective": "throughput", "concurrency": 16},
    "1x4090": {"model": "Qwen3-8B", "context": 16384, "concurrency": 2},
    "2x3090-x4": {
        "model": "Qwen3-14B-AWQ",
        "objective": "throughput",
        "context": 8192,
        "concurrency": 8,
    },
    "8xH100-nvswitch": {"model": "Llama-3.1-70B", "context": 32768, "concurrency": 16},
}
_DEFAULT = {"model": "Qwen3-32B-AWQ", "context": 16384, "concurrency": 4}


def _services(machine: str) -> dict[str, dict[str, object]]:
    wish = dict(_SERVICES.get(machine, _DEFAULT))
    return {"chat": {**wish, "model": f"inventories/models/{wish['model']}"}}


rehearsal = [
    (
        f"@fake/{capture.stem}",
        {
            "fake_responses": {"MULTIGPU_PROBE": capture.read_text()},
            "fake_delay": 0,
            "fake_delay_jitter": 0,
            "services": _services(capture.stem),
            "rehearsal_directory": "rehearsal",
            "plans_directory": "rehearsal/plans",
            "captures_directory": "rehearsal/captures",
        },
    )
    for capture in _CAPTURES
]
