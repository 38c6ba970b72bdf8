"""Boots of the rendered release on an H200, term by term: what its constants stand on.

    python -m benchmarks.vllm_boots

`vllm_boots.tsv` holds what vLLM 0.33.0 printed on one H200 (143,771 MiB, 0.92, 8192 tokens of
context) with made-up weights, started by scripts/real_gpu with VLLM_USE_FLASHINFER_SAMPLER=0, as
FlashInfer was not there; each was a first start, which compiles. Of models with a vision tower the
text part was started. Constants were fitted on these boots: it is no test of them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from types import MappingProxyType

from benchmarks.memory_rows import model
from multigpu.gpus.what_if import host
from multigpu.plan import Candidate, Strategy, Wish
from multigpu.runtimes.vllm_memory import sized
from multigpu.runtimes.vllm_release import RENDERED

TABLE = Path(__file__).with_suffix(".tsv")
GIB = 1024


@dataclass(frozen=True)
class Boot:
    """One boot: the terms in GiB as printed and as predicted: weights, steps, graphs, KV cache."""

    name: str
    printed: tuple[float, ...]
    predicted: tuple[float, ...]

    @property
    def error(self) -> float:
        """GiB of KV cache predicted too much."""
        return self.predicted[-1] - self.printed[-1]


def boots() -> Iterator[Boot]:
    """Every boot whose configuration is here or in ../shared."""
    card, way = host("1x H200"), Candidate("vllm", Strategy.SINGLE, (0,))
    release = RENDERED
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            spec = model(row["model"])
            if spec is None:
                continue
            flags: dict[str, str | None] = {"--max-num-seqs": row["max_num_seqs"]}
            if row["eager"] == "yes":
                flags["--enforce-eager"] = None
            wish = Wish("chat", spec.name, context=8192, flags=MappingProxyType(flags))
            text = replace(spec, vision_mib=0.0)
            held = sized(way, card, text, wish, release).memory[0]
            names = ("weights_gib", "steps_and_context_gib", "graphs_estimate_gib", "kv_gib")
            steps = held.activations_mib + held.overhead_mib
            mib = (held.weights_mib, steps, held.graphs_mib, held.kv_cache_mib)
            yield Boot(
                f"{row['model']} {' '.join(flags)} {row['max_num_seqs']}",
                tuple(float(row[name]) for name in names),
                tuple(value / GIB for value in mib),
            )


def main() -> int:
    """A line per boot, then the mean error of the KV cache."""
    found = list(boots())
    for boot in found:
        pairs = zip(boot.predicted, boot.printed, strict=True)
        terms = "  ".join(f"{ours:6.2f} {theirs:6.2f}" for ours, theirs in pairs)
        print(f"{boot.name[:58]:58} {terms}  {boot.error:+.2f}")
    print(f"mean absolute error of the KV cache: {mean(abs(b.error) for b in found):.2f} GiB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
