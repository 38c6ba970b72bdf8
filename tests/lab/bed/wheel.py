"""The llama.cpp wheel, whose `ggml-rpc-server` plays a card and whose `llama-server` is served."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from . import needs
from .settings import CHECKOUT, LabError, Settings
from .shell import run, run_visibly

SCRIPT = CHECKOUT / "scripts" / "build_llama_wheel.py"


def wheel(settings: Settings) -> Path:
    """The cached wheel, built when it is not there (some six minutes on two cores)."""
    path = Path(run(sys.executable, SCRIPT, "--cache", settings.cache, "--where").strip())
    if not path.exists():
        needs.install(needs.COMPILER_FILES)
        command = (sys.executable, SCRIPT, "--cache", settings.cache)
        run_visibly("llama.cpp wheel", *command, step=r"\[\d+/\d+\]")
    return path


def extract_device(wheel_file: Path, target: Path) -> None:
    """Put `ggml-rpc-server` and the libraries it loads into `target`/bin and `target`/lib."""
    with zipfile.ZipFile(wheel_file) as archive:
        names = [
            name
            for name in archive.namelist()
            if name == "bin/ggml-rpc-server" or (name.startswith("lib/libggml") and ".so" in name)
        ]
        if "bin/ggml-rpc-server" not in names:
            raise LabError(f"{wheel_file.name} holds no ggml-rpc-server")
        archive.extractall(target, names)
    (target / "bin" / "ggml-rpc-server").chmod(0o755)
