"""The constants of multigpu/speed, fitted again to the measurement table.

    python -m benchmarks.calibrate

Prints the lines of multigpu/speed/constants.py: constants, on how many rows, and the spread of the
errors of rows whose rig was left out. Nothing is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple
from math import exp, log

from benchmarks.decode_speed import OTHERS, Scored, quantile, scored
from benchmarks.fitting import SIGMA, fit
from benchmarks.groundtruth import usable_rows


def main() -> None:
    """Fit to all rows, leave one rig out for the spread, print both."""
    rows = [row for row in usable_rows() if row.runtime not in OTHERS]
    if not rows:
        print("measurements.tsv is not there: nothing to fit")
        return
    found = fit(rows)
    named = {"VLLM": found.vllm, "LLAMA_CPP": found.llama_cpp}
    for name, engine in named.items():
        print(f"{name} = {type(engine).__name__}({_numbers(astuple(engine))})")
    print(f"ROCM = Slower({_numbers(astuple(found.rocm))})")
    print(f"LINKS = Links({_numbers(astuple(found.links))})")
    counts = Counter(row.runtime for row in rows)
    print(f"# rows: {dict(counts)}, residual scale {SIGMA}")
    left_out = scored(rows)
    for kind in ("vllm", "vllm-amd", "llama.cpp"):
        some = [one for one in left_out if _kind(one) == kind]
        print(f"# {kind}: {_spread(some)}")


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def _kind(one: Scored) -> str:
    name = "llama.cpp" if one.row.runtime == "llama.cpp" else "vllm"
    host = one.row.host
    return "vllm-amd" if name == "vllm" and host and host.gpus[0].vendor == "amd" else name


def _spread(some: Sequence[Scored]) -> str:
    """80 % of measured / predicted, for decode, prompts and the first token."""
    decode = [-one.error for one in some]
    prefill = [
        log(one.row.measured.prefill_tokens_per_s / one.prefill_tokens_per_s)
        for one in some
        if one.row.measured.prefill_tokens_per_s
    ]
    timed = [(one, one.row.measured.ttft_ms) for one in some if one.row.measured.ttft_ms]
    spread = [log(was / one.ttft_low_ms) for one, was in timed]
    together = [log(was / one.ttft_high_ms) for one, was in timed]
    parts = []
    kinds = {
        "decode": decode,
        "prefill": prefill,
        "ttft of spread arrivals": spread,
        "ttft of all at once": together,
    }
    for what, values in kinds.items():
        if values:
            low, middle, high = (exp(quantile(values, q)) for q in (0.1, 0.5, 0.9))
            parts.append(f"{what} {low:.2f} {middle:.2f} {high:.2f} of {len(values)}")
    return ", ".join(parts)


if __name__ == "__main__":
    main()
