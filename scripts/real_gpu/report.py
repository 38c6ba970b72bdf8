"""The report as Markdown: predicted beside printed, in GiB."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean
from typing import Any

GIB = 1024
# A card may hold this much more than vLLM's fraction once requests run: what kernels allocate late
# is not in vLLM's own sum.
OVER_MIB = 2048


def markdown(found: dict[str, Any]) -> str:
    """The whole report of the JSON one."""
    lines = ["# A real card against what is predicted for it", ""]
    for name, part in (("probe", _probe), ("llama.cpp", _llama), ("vllm", _vllm)):
        lines += [f"## {name}", ""]
        if "skipped" in found[name]:
            lines += [f"Skipped: {found[name]['skipped']}", ""]
        else:
            lines += [*part(found[name]), ""]
    return "\n".join(lines)


def _probe(part: dict[str, Any]) -> Iterator[str]:
    for gpu in part["gpus"]:
        yield f"- {gpu['name']}: {gpu['memory_mib']} MiB, compute {gpu['compute_capability']}"
    same = "the same" if part["memory_mib"] == part["nvml_memory_mib"] else "NOT the same"
    yield f"- memory by NVML: {part['nvml_memory_mib']} MiB, {same}"
    for name, read in part["nvidia_smi"].items():
        yield f"- nvidia-smi {name}: {read}"


def _llama(part: dict[str, Any]) -> Iterator[str]:
    share = 100 * part["right"] / part["terms"] if part["terms"] else 0.0
    yield f"{part['right']} of {part['terms']} terms right ({share:.1f} %), on {part['devices']}"
    yield "virtual devices with an uneven split; the worst of each model in MiB:"
    yield ""
    yield from (f"- {name}: {error:+d}" for name, error in part["worst_mib"].items())


def _vllm(part: dict[str, Any]) -> Iterator[str]:
    boots = [boot for boot in part["boots"] if boot.get("printed", {}).get("kv_gib")]
    yield "| model | KV | found | weights | found | steps, context | found | graphs | found |"
    yield "|---" * 9 + "|"
    yield from map(_row, boots)
    yield ""
    errors = [_kv_error(boot) for boot in boots]
    if errors:
        yield f"KV cache: mean error {mean(map(abs, errors)):.2f} GiB over {len(errors)} boots."
    yield from map(_used, boots)
    for boot in part["boots"]:
        for speed in boot.get("speeds", []):
            yield _speed(boot["model"], speed)
        if "refused" in boot or boot.get("ready") is False:
            yield f"- {boot['model']}: {boot.get('refused', 'was not ready; see its log')}"


def _row(boot: dict[str, Any]) -> str:
    ours, theirs = boot["predicted"], boot["printed"]
    rest = theirs["other_than_kv_gib"] - theirs["weights_gib"]
    cells = [
        (ours["kv_cache_mib"], theirs["kv_gib"]),
        (ours["weights_mib"], theirs["weights_gib"]),
        (ours["activations_mib"] + ours["overhead_mib"], rest),
        (ours["graphs_mib"], theirs.get("graphs_estimate_gib", 0.0)),
    ]
    numbers = " | ".join(f"{mib / GIB:.2f} | {gib:.2f}" for mib, gib in cells)
    return f"| {boot['model']} {' '.join(boot['wish'])} | {numbers} |"


def _kv_error(boot: dict[str, Any]) -> float:
    return float(boot["predicted"]["kv_cache_mib"] / GIB - boot["printed"]["kv_gib"])


def _used(boot: dict[str, Any]) -> str:
    budget = boot["predicted"]["capacity_mib"]
    used = boot.get("nvml_loaded_mib") or boot.get("nvml_ready_mib") or 0
    verdict = "within" if used <= budget + OVER_MIB else "OVER"
    ready = boot.get("nvml_ready_mib") or 0
    return (
        f"- {boot['model']}: {ready} MiB in use when ready, {used} under load; may take "
        f"{budget:.0f} at {boot['utilization']}: {verdict} the {OVER_MIB} MiB for late kernels"
    )


def _speed(model: str, speed: dict[str, Any]) -> str:
    said = speed.get("predicted")
    beside = f" (predicted {said['ttft_ms']:.0f}, {said['tpot_ms']:.1f})" if said else ""
    return (
        f"- {model}, {speed['requests']} at a time: TTFT {speed['ttft_ms']:.0f} ms, "
        f"TPOT {speed['tpot_ms']:.1f} ms{beside}, {speed['output_tokens_per_s']:.0f} tokens/s"
    )
