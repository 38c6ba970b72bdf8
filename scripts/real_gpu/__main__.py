"""What a real NVIDIA card says against what is predicted for it, in one call.

    python -m scripts.real_gpu [--out FOLDER] [--only probe,llama.cpp,vllm]
                               [--llama FOLDER] [--vllm COMMAND] [--models a,b]

The probe and the readers on the real nvidia-smi; llama-server over two virtual devices of one card
with an uneven split; vLLM on made-up weights with the command line that is rendered. What this
machine has not is skipped, saying so. Writes report.md, report.json and the engines' logs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.real_gpu import llama_cpp, models, probe, report, vllm
from scripts.real_gpu.cards import total_mib

PARTS = ("probe", "llama.cpp", "vllm")
# One dense model, one of experts, one with windows; what does not fit the card is refused.
MODELS = "Phi-4-mini,Trinity-Mini,gemma-3-12b"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when everything that was not skipped ran, 1 otherwise."""
    options = _options(arguments)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {name: {"skipped": "not asked for"} for name in PARTS}
    steps = {"probe": _probe, "llama.cpp": _llama, "vllm": _vllm}
    failed = False
    for name in options.only.split(","):
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            found[name] = steps[name](options, out)
        except (RuntimeError, OSError, ValueError) as error:
            found[name], failed = {"skipped": f"failed: {error}"}, True
        (out / "report.json").write_text(json.dumps(found, indent=1) + "\n")
        (out / "report.md").write_text(report.markdown(found) + "\n")
    print((out / "report.md").read_text())
    return 1 if failed else 0


def _probe(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    if total_mib() is None:
        return {"skipped": "NVML does not answer here (nvidia-ml-py, a driver)"}
    made = probe.captured(out / "capture.json")
    return {**made, "nvidia_smi": probe.read_nvidia_smi(out)}


def _llama(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    if total_mib() is None:
        return {"skipped": "NVML does not answer here (nvidia-ml-py, a driver)"}
    folder = llama_cpp.program(options.llama, out)
    if folder is None:
        return {"skipped": "no llama.cpp with CUDA: scripts/build_llama_wheel.py --cuda"}
    return llama_cpp.record(list(llama_cpp.rows(folder)))


def _vllm(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    capture = out / "capture.json"
    if shutil.which(shlex.split(options.vllm)[0]) is None:
        return {"skipped": f"no program {options.vllm}: name one with --vllm"}
    if not capture.exists():
        return {"skipped": "no capture of this machine: run the probe too"}
    boots = []
    for name, config in models.found(options.configs, options.models.split(",")):
        print(f"vllm {name} ...", file=sys.stderr, flush=True)
        folder = models.made(config, out / "models" / name)
        log, flags = out / f"{name}.log", shlex.split(options.vllm_flags)
        record = vllm.boot(options.vllm, capture, folder, log, pairs=options.wish, flags=flags)
        boots.append(record)
        shutil.rmtree(folder)
    return {"boots": boots}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="build/real-gpu", help="folder of the report and the logs")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--llama", help="folder with bin/ and lib/ of a llama.cpp with CUDA")
    parser.add_argument("--vllm", default="vllm", help="command that stands for `vllm`")
    parser.add_argument("--vllm-flags", default="", help="given to vLLM beside the rendered ones")
    parser.add_argument("--configs", action="append", default=[], help="folders NAME/config.json")
    parser.add_argument("--models", default=MODELS, help="parts of their names, with commas")
    parser.add_argument("--wish", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
