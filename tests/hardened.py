"""Units of every runtime on every kind of card, for tests and for `scripts/exposure.py`."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from multigpu import credentials, units
from multigpu.backend import Backend
from multigpu.plan import Plan, Service, Setting
from multigpu.store import texts
from tests.plans import LAYER_SPLIT, TENSOR_PARALLEL, plan

ROOT = Path(__file__).parent.parent
ANALYZE = shutil.which("systemd-analyze")
OFFLINE = Setting("HF_HUB_OFFLINE", "1", "the model is on the host")
KINDS: dict[str, tuple[str, Backend, dict[str, object]]] = {
    "llama-server, CUDA": ("llama.cpp", Backend.CUDA, {}),
    "llama-server, ROCm": ("llama.cpp", Backend.HIP, {}),
    "llama-server, Vulkan": ("llama.cpp", Backend.VULKAN, {}),
    "llama-server, RPC devices": ("llama.cpp", Backend.CUDA, {"devices": ("RPC0", "RPC1")}),
    "llama_cpp.server, CUDA": ("llama_cpp.server", Backend.CUDA, {}),
    "vLLM, CUDA": ("vllm", Backend.CUDA, {}),
    "vLLM, ROCm": ("vllm", Backend.HIP, {}),
    "SGLang, CUDA": ("sglang", Backend.CUDA, {}),
    "vLLM, CUDA, at every address": ("vllm", Backend.CUDA, {"bind": "0.0.0.0"}),
    "vLLM, CUDA, fetching by itself": ("vllm", Backend.CUDA, {"env": {"HF_HUB_OFFLINE": "0"}}),
}


def unit(kind: str, **wish: object) -> units.RenderedUnit:
    """The unit of one kind, with an API key."""
    runtime, backend, wished = KINDS[kind]
    chosen = replace(TENSOR_PARALLEL if runtime in ("vllm", "sglang") else LAYER_SPLIT)
    made = plan(replace(chosen, runtime=runtime), **{"api_key_file": "key", **wished, **wish})  # type: ignore[arg-type]
    return rendered(replace(made, backend=backend))


def rendered(made: Plan, *argv: str) -> units.RenderedUnit:
    """The unit of a plan's first process."""
    runtime, wish = made.chosen.runtime, made.wish
    program = f"/opt/multigpu/runtimes/{runtime}/bin/engine"
    service = Service(
        "chat",
        (program, "--model", "/srv/model", *argv, *credentials.words(runtime, "chat", wish)),
        (),
        wish.port,
        "/health",
        made.chosen.gpus,
        credentials=credentials.of_engine(runtime, wish),
    )
    settings = () if wish.env.get("HF_HUB_OFFLINE") == "0" else (OFFLINE,)
    return units.render(
        made,
        service,
        host_program="/opt/multigpu/host/multigpu-host.pyz",
        extra=settings,
        templates=texts.templates(ROOT / "templates"),
    )


def text(unit: units.RenderedUnit) -> str:
    """The unit file."""
    return unit.files[1].content


def write(unit: units.RenderedUnit, directory: Path) -> Path:
    """The unit file under its own name."""
    path = directory / unit.name
    path.write_text(text(unit))
    return path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """systemd-analyze, which must be there."""
    return subprocess.run([ANALYZE or "", *arguments], capture_output=True, text=True)


def can_judge() -> bool:
    """True when there is a systemd-analyze that judges files (systemd 250 and newer)."""
    return ANALYZE is not None and "--offline" in analyze("--help").stdout


def exposure(path: Path, threshold: float = 2.0) -> tuple[float, bool]:
    """The exposure level of a unit file, and whether it stays within the threshold."""
    limit = f"--threshold={round(threshold * 10)}"
    done = analyze("security", "--offline=true", limit, "--no-pager", str(path))
    found = re.search(r"Overall exposure level for .*: ([\d.]+) ", done.stdout)
    assert found is not None, done.stdout + done.stderr
    return float(found[1]), done.returncode == 0
