"""Predicted memory of llama.cpp against what llama-server itself prints, term by term.

    python -m benchmarks.llama_cpp_memory [NAME ...] [--wheel FILE] [--offload] [--json]

Writes GGUFs of published models without their data (header and a hole), starts ggml-rpc-server
processes as devices, lets llama-server load on trial over two and three of them with uneven splits,
and compares model, context and compute of every device with ours; with `--offload` over one and two
devices with experts or blocks left on the CPU. A term is right within 3 % or 200 MiB. Devices
compute on the CPU; CUDA's own context is not part of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure
from benchmarks.llama_cpp.architectures import MODELS, TIED
from benchmarks.llama_cpp.files import write
from benchmarks.llama_cpp.program import Case, LlamaCpp, Terms, devices, unpacked, wheel
from multigpu.plan import Candidate, ModelSpec, Strategy
from multigpu.runtimes.llama_cpp_offload import on_cards, streamed_mib
from multigpu.runtimes.llama_cpp_profile import COPIES, profile
from multigpu.runtimes.llama_cpp_settings import Settings, Slots
from multigpu.store.gguf_files import from_header

SHARE, MIB = 0.03, 200
GOAL_ARCHITECTURES = 30
NO_WHEEL = "no llama.cpp wheel in the cache: scripts/build_llama_wheel.py builds one"
TERMS = ("model", "context", "compute")
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"context": 32768},
    {"context": 32768, "ubatch": 2048},
    {"context": 32768, "slots": 4},
    {"context": 32768, "slots": 4, "unified": True},
    {"context": 131072, "cache_type": "q8_0"},
    {"context": 32768, "slots": 4, "cache_type": "q8_0"},
    {"context": 32768, "ubatch": 2048, "slots": 4, "unified": True, "cache_type": "q8_0"},
    {"flash_attn": False},
    {"context": 16384, "ubatch": 2048, "flash_attn": False},
)


@dataclass(frozen=True)
class Row:
    """One term of one device: MiB as predicted and as printed."""

    model: str
    architecture: str
    case: Case
    device: int
    term: str
    predicted: float
    printed: int

    @property
    def error(self) -> float:
        """MiB, positive where too much was predicted."""
        return self.predicted - self.printed

    @property
    def right(self) -> bool:
        """Within 3 % or 200 MiB."""
        return abs(self.error) <= max(MIB, SHARE * self.printed)


def splits(model: ModelSpec) -> Iterator[Case]:
    """Two and three devices, uneven, under every setting."""
    units = model.num_hidden_layers + 1
    a, b = units // 3 + 2, units // 4
    for split in ((a + (units - a) // 3, units - a - (units - a) // 3), (a, b, units - a - b)):
        for setting in SETTINGS:
            yield Case(split, **setting)


def offloads(model: ModelSpec) -> Iterator[Case]:
    """One and two devices with experts of some and of all blocks on the CPU, else whole blocks."""
    blocks = model.num_hidden_layers
    for ubatch in (512, 2048):
        for devices_of in (lambda n: (n,), lambda n: (n - n // 3, n // 3)):
            if model.num_experts:
                for n in (blocks // 3, blocks):
                    yield Case(devices_of(blocks + 1), 32768, ubatch, cpu_moe=n)
            for n in (blocks // 3, blocks):
                yield Case(devices_of(n), 32768, ubatch, gpu_layers=n)


Cases = Callable[[ModelSpec], Iterator[Case]]
Predicted = list[tuple[float, float, float]]


def predicted(model: ModelSpec, case: Case, device: str = "rpc") -> Predicted:
    """Our terms of every device, which is a ggml-rpc-server or a "cuda" one."""
    kind = case.cache_type
    settings = Settings(case.ubatch, case.flash_attn, kind, kind, device=device)
    sums = profile(on_cards(model, case.cpu_moe), settings)
    slots = Slots(case.context, case.slots, case.unified)
    copies = 1 if case.cpu_moe or case.gpu_layers is not None else COPIES
    start = sums.n_units - sum(case.split)
    found: Predicted = []
    for count in case.split:
        part = sums.part((start, start + count), len(case.split), copies)
        streamed = _streamed(model, case) if device == "cuda" and not found else 0.0
        found.append((part.weights, part.cache(slots), part.compute(slots) + streamed))
        start += count
    return found


def _streamed(model: ModelSpec, case: Case) -> float:
    given = Candidate("llama.cpp", Strategy.LAYER_SPLIT, tuple(range(len(case.split))))
    offloaded = replace(given, cpu_moe_layers=case.cpu_moe, gpu_layers=case.gpu_layers)
    return streamed_mib(offloaded, model)


def compared(
    llama: LlamaCpp, folder: Path, names: Iterable[str], cases: Cases = splits
) -> Iterator[Row]:
    """Every term of every case of the named models."""
    for name in names:
        architecture, metadata = MODELS[name]
        path = folder / f"{name}.gguf"
        write(llama.library, path, architecture, metadata, tied=name in TIED)
        model = from_header(name, path)
        print(name, file=sys.stderr)
        for case in cases(model):
            printed = llama.breakdown(path, case)
            yield from _rows(name, architecture, case, predicted(model, case), printed)
        path.unlink()


def _rows(
    name: str,
    architecture: str,
    case: Case,
    ours: list[tuple[float, float, float]],
    theirs: list[Terms],
) -> Iterator[Row]:
    for device, (mine, printed) in enumerate(zip(ours, theirs, strict=True)):
        for term, value, whole in zip(TERMS, mine, printed, strict=True):
            yield Row(name, architecture, case, device, term, value, whole)


def table(rows: list[Row]) -> Iterator[str]:
    """One line per model: terms that are right, and the worst error of each term in MiB."""
    yield f"{'model':22} {'architecture':14} {'right':>9}   " + "  ".join(f"{t:>8}" for t in TERMS)
    for name in dict.fromkeys(row.model for row in rows):
        mine = [row for row in rows if row.model == name]
        right = f"{sum(row.right for row in mine)}/{len(mine)}"
        worst = [_worst(row for row in mine if row.term == term) for term in TERMS]
        numbers = "  ".join(f"{error:+8.0f}" for error in worst)
        yield f"{name:22} {mine[0].architecture:14} {right:>9}   {numbers}"


def _worst(rows: Iterable[Row]) -> float:
    return max((row.error for row in rows), key=abs, default=0.0)


def all_right(rows: Iterable[Row]) -> set[str]:
    """Architectures without a term that is wrong."""
    found = list(rows)
    return {row.architecture for row in found} - {r.architecture for r in found if not r.right}


def summary(rows: list[Row]) -> dict[str, float | int | str]:
    """The score: architectures, share of terms that are right, and the worst of them."""
    worst = max(rows, key=lambda row: abs(row.error) / max(MIB, SHARE * row.printed))
    return {
        "architectures": len({row.architecture for row in rows}),
        "architectures_all_right": len(all_right(rows)),
        "terms": len(rows),
        "share_right": sum(row.right for row in rows) / len(rows),
        "worst": f"{worst.model} {worst.term} {worst.predicted:.0f} for {worst.printed} MiB",
    }


def measured(
    wheel_path: Path, names: Iterable[str] = tuple(MODELS), cases: Cases = splits
) -> list[Row]:
    """Every term of the named models, by the llama.cpp of that wheel; two minutes for all."""
    with tempfile.TemporaryDirectory() as place:
        folder = unpacked(wheel_path, Path(place))
        with devices(folder, 3) as llama:
            return list(compared(llama, folder, names, cases))


def missing() -> str | None:
    """What this machine lacks to be measured on, None where it can."""
    return NO_WHEEL if wheel() is None else None


def score() -> list[Figure]:
    """Architectures of which every term is right, and the share of all terms that are."""
    found = wheel()
    if found is None:
        raise FileNotFoundError(NO_WHEEL)
    rows = measured(found)
    right = 100 * sum(row.right for row in rows) / len(rows)
    name, whole = "llama.cpp memory", len(all_right(rows))
    goal = f">= {GOAL_ARCHITECTURES}"
    return [
        Figure(
            f"{name}: architectures within 3 % or {MIB} MiB in every term",
            float(whole),
            "",
            goal,
            whole >= GOAL_ARCHITECTURES,
        ),
        Figure(f"{name}: terms within 3 % or {MIB} MiB, of {len(rows)}", right, "%", "", True),
    ]


def main(arguments: Sequence[str]) -> int:
    """Print the table and the score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="models of architectures.py (default: all)")
    parser.add_argument("--wheel", type=Path, default=wheel())
    parser.add_argument("--offload", action="store_true", help="weights on the CPU instead")
    parser.add_argument("--json", action="store_true", help="print the score alone, as JSON")
    given = parser.parse_args(arguments)
    if given.wheel is None:
        parser.exit(1, NO_WHEEL + "\n")
    rows = measured(given.wheel, given.names or MODELS, offloads if given.offload else splits)
    if not given.json:
        print("\n".join(table(rows)))
    print(json.dumps(summary(rows), indent=None if given.json else 1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
