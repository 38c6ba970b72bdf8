"""llama-server on virtual devices of one card, which it splits a model over unevenly.

`GGML_CUDA_DEVICES=2` makes llama.cpp's CUDA backend show the card twice. Models are headers with a
hole for their data, so nothing is downloaded; the trial load of `--fit on` prints its memory.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.llama_cpp.architectures import MODELS, TIED
from benchmarks.llama_cpp.files import write
from benchmarks.llama_cpp.program import (
    Case,
    Terms,
    environment,
    free_port,
    terms,
    unpacked,
    wheel,
)
from benchmarks.llama_cpp_memory import TERMS, Row, predicted
from multigpu.store.gguf_files import from_header

NAMES = ("Llama-3.1-8B", "Qwen3-32B", "Qwen3-30B-A3B", "Gemma-3-27B", "gpt-oss-20b")
DEVICES = 2


def program(given: str | None, folder: Path) -> Path | None:
    """The folder with `bin/` and `lib/`: the given one, else the CUDA wheel of the cache."""
    if given:
        return Path(given)
    found = wheel()
    if found is None:
        return None
    place = unpacked(found, folder / "llama.cpp")
    return place if (place / "lib" / "libggml-cuda.so").exists() else None


def cases(units: int) -> Iterator[Case]:
    """Two devices, uneven, by the settings that change what is held."""
    split = (units - units // 3, units // 3)
    yield Case(split)
    yield Case(split, context=32768, ubatch=2048)
    yield Case(split, context=32768, slots=4)
    yield Case(split, context=32768, slots=4, unified=True)


def rows(folder: Path, names: tuple[str, ...] = NAMES) -> Iterator[Row]:
    """Every term of every device. Raises RuntimeError where llama-server prints none."""
    with tempfile.TemporaryDirectory() as place:
        for name in names:
            architecture, metadata = MODELS[name]
            path = Path(place, f"{name}.gguf")
            write(folder / "lib", path, architecture, metadata, tied=name in TIED)
            model = from_header(name, path)
            for case in cases(model.num_hidden_layers + 1):
                printed = breakdown(folder, path, case)
                ours = predicted(model, case, device="cuda")
                for device, (mine, theirs) in enumerate(zip(ours, printed, strict=True)):
                    for term, value, whole in zip(TERMS, mine, theirs, strict=True):
                        yield Row(name, architecture, case, device, term, value, whole)
            path.unlink()


def breakdown(folder: Path, model: Path, case: Case) -> list[Terms]:
    """What the trial load prints; the server is ended before it really loads."""
    argv = [
        *(str(folder / "bin" / "llama-server"), "--model", str(model), "--split-mode", "layer"),
        *("--fit", "on", "--log-jsonl", "--verbosity", "4", "--port", str(free_port())),
        *case.flags,
    ]
    twice = {"GGML_CUDA_DEVICES": str(DEVICES)}
    lines: list[str] = []
    with subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**environment(folder / "lib"), **twice},
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if "fit_memory_breakdown" in line:
                    return terms(line)
        finally:
            process.kill()
    raise RuntimeError(f"{model.name}: {''.join(lines[-4:])}")


def record(found: list[Row]) -> dict[str, Any]:
    """For the report: how many terms are right, and the worst of each model in MiB."""
    names = dict.fromkeys(row.model for row in found)
    worst = {
        name: max((r.error for r in found if r.model == name), key=abs, default=0.0)
        for name in names
    }
    return {
        "devices": DEVICES,
        "terms": len(found),
        "right": sum(row.right for row in found),
        "worst_mib": {name: round(error) for name, error in worst.items()},
        "rows": [
            [r.model, list(r.case.split), r.case.context, r.case.ubatch, r.case.slots,
             r.device, r.term, round(r.predicted), r.printed]
            for r in found
        ],
    }  # fmt: skip
