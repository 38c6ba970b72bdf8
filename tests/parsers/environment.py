"""A cached environment in which the parsers of vLLM and SGLang can be imported without a GPU.

One virtual environment with torch and what the parsers import, and one folder per unpacked wheel
of a runtime: their own requirements contradict each other, and most of them are kernels.
`TORCH` names another build of torch than the default one.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

WHEELS = ("vllm==0.33.0", "vllm==0.32.0", "sglang==0.5.23")
TORCH = os.environ.get("TORCH", "torch==2.13.0")
IMPORTED = (
    "transformers==5.19.0",
    "triton",
    "xgrammar==0.2.8",
    "llguidance==1.7.6",
    "compressed-tensors==0.17.0",
    "mistral_common>=1.11.6",
    "openai-harmony",
    "fastapi",
    "uvicorn",
    "uvloop",
    "openai",
    "pydantic",
    "aiohttp",
    "requests",
    "psutil",
    "cachetools",
    "msgspec",
    "pyzmq",
    "cloudpickle",
    "blake3",
    "py-cpuinfo",
    "prometheus_client",
    "regex",
    "einops",
    "partial-json-parser",
    "cbor2",
    "pybase64",
    "setproctitle",
    "ninja",
    "nvidia-ml-py",
    "gguf",
    "python-json-logger",
    "watchfiles",
    "sentencepiece",
    "protobuf",
    "jsonschema",
    "ijson",
    "orjson",
    "ipython",
    "python-multipart",
    "pillow",
)
"""What the parsers' modules import, and the configuration classes of vLLM."""


def cache() -> Path:
    """Where the environment lies, keyed by what is in it."""
    base = Path(os.environ.get("MULTIGPU_CACHE") or Path.home() / ".cache" / "multigpu")
    text = " ".join((TORCH, *IMPORTED, *WHEELS, str(sys.version_info[:2])))
    return base / f"parsers-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def python() -> Path:
    """Its interpreter; the environment is made when it is not there (2 GB, some minutes)."""
    home = cache()
    interpreter = home / "venv" / "bin" / "python"
    if not (home / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", home / "venv"], check=True)
        _pip(interpreter, TORCH)
        _pip(interpreter, *IMPORTED)
        for wheel in WHEELS:
            target = str(home / wheel)
            _pip(interpreter, "--no-deps", "--upgrade", "--target", target, wheel)
        (home / "ready").touch()
    return interpreter


def _pip(interpreter: Path, *arguments: str) -> None:
    options = ("--quiet", "--disable-pip-version-check", "--no-cache-dir")
    subprocess.run([interpreter, "-m", "pip", "install", *options, *arguments], check=True)


def variables(wheel: str) -> dict[str, str]:
    """Environment variables of a process that imports this wheel, and our scripts."""
    scripts = Path(__file__).parents[2] / "scripts"
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(cache()),
        "PYTHONPATH": f"{cache() / wheel}{os.pathsep}{scripts}",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
