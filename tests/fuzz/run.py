"""Feed broken texts to every reader: `python -m tests.fuzz.run --count 200000`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from multigpu.outline import outline
from multigpu.parse import kinds
from multigpu.parse.reading import Reading
from tests.fuzz.corpus import corpus
from tests.fuzz.machines import check_machine
from tests.fuzz.mutations import mutated

SLOW_S = 2.0
"""No text of some thousand characters may take a reader so long: a regular expression exploded.

Time of the processor, which another program on it does not lengthen.
"""
MACHINE_EVERY = 100
"""A whole machine takes some fifty times as long as a text."""


@dataclass
class Tally:
    """Inputs by reader, and what went wrong."""

    inputs: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def add(self, other: Tally) -> None:
        self.inputs += other.inputs
        self.failures += other.failures
        self.slowest_s = max(self.slowest_s, other.slowest_s)


def fuzz(seed: int, count: int, until: float) -> Tally:
    """`count` broken texts, each read as its format, some judged by every recogniser."""
    random, tally = Random(seed), Tally()
    texts = corpus()
    for number in range(count):
        name, text = random.choice(texts)
        broken = mutated(text, random.choice(texts)[1], random)
        started = time.process_time()
        try:
            check(name, broken, thorough=number % 20 == 0)
            if number % MACHINE_EVERY == MACHINE_EVERY - 1:
                name = "whole machine"
                check_machine(random)
        except Exception:
            tally.failures.append(
                f"{name} (seed {seed}, number {number}):\n{traceback.format_exc()}"
            )
            save(name, seed, number, broken)
        taken = time.process_time() - started
        if taken > SLOW_S:
            tally.failures.append(f"{name} (seed {seed}, number {number}) took {taken:.1f} s")
        tally.slowest_s = max(tally.slowest_s, taken)
        tally.inputs[name] += 1
        if time.monotonic() > until or len(tally.failures) > 20:
            break
    return tally


def check(name: str, text: str, *, thorough: bool) -> None:
    """The reader gives a reading that can be shown; every so often all recognisers are asked."""
    reading = kinds.kind(name).read(text)
    assert isinstance(reading, Reading)
    assert all(entry.line >= 1 for entry in reading.unread)
    if thorough:
        kinds.guess(text)
        outline(reading.value)


def save(name: str, seed: int, number: int, text: str) -> None:
    """Keep what broke a reader where FUZZ_DIRECTORY says."""
    if folder := os.environ.get("FUZZ_DIRECTORY"):
        path = os.path.join(folder, f"{name}-{seed}-{number}.txt")
        with open(path, "w", encoding="utf-8", errors="surrogatepass") as stream:
            stream.write(text)


def fuzz_all(count: int, seconds: float, seed: int, workers: int) -> Tally:
    """The whole count over several processes; ends early when the time is up."""
    until = time.monotonic() + seconds
    share = -(-count // workers)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        tallies = pool.starmap(fuzz, [(seed + i, share, until) for i in range(workers)])
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    started = time.monotonic()
    total = fuzz_all(options.count, options.seconds, options.seed, options.workers)
    for name, inputs in sorted(total.inputs.items()):
        print(f"{inputs:8} {name}")
    print(f"{total.inputs.total():8} in all, {time.monotonic() - started:.0f} s, "
          f"slowest {total.slowest_s:.2f} s, {len(total.failures)} failures")  # fmt: skip
    print("\n".join(total.failures[:5]))
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main())
