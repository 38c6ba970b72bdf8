"""AMD cards from the outputs of tools alone, for machines that a person saved by hand.

A capture of ours needs none of them: sysfs knows more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from multigpu.hardware import Gpu, GpuPair
from multigpu.parse.amd.amd_smi import AmdSmi
from multigpu.parse.amd.amd_smi import read_json as amd_smi_json
from multigpu.parse.amd.amd_smi import read_text as amd_smi_text
from multigpu.parse.amd.rocm_smi import RocmSmi
from multigpu.parse.amd.rocm_smi import read_json as rocm_smi_json
from multigpu.parse.amd.rocm_smi import read_text as rocm_smi_text
from multigpu.parse.amd.rocminfo import RocmInfo, read_rocminfo
from multigpu.parse.reading import Reading
from multigpu.parse.same_card import filled, same_card
from multigpu.parse.shape import tool

Output = RocmSmi | AmdSmi | RocmInfo
# Command -> reader, the fullest first.
OUTPUTS: dict[str, Callable[[str], Reading[RocmSmi] | Reading[AmdSmi] | Reading[RocmInfo]]] = {
    "amd-smi static --json": amd_smi_json,
    "amd-smi static": amd_smi_text,
    "rocm-smi --showallinfo --json": rocm_smi_json,
    "rocm-smi": rocm_smi_text,
    "rocm-smi --showtopo": rocm_smi_text,
    "rocminfo": read_rocminfo,
}


def amd_outputs(tools: dict[str, object]) -> tuple[tuple[Gpu, ...], tuple[GpuPair, ...]]:
    """Cards and pairs by the tools' own indices; the fullest output gives the cards."""
    gpus: tuple[Gpu, ...] = ()
    pairs: tuple[GpuPair, ...] = ()
    for command, read in OUTPUTS.items():
        printed = tool(tools, command).stdout
        if not printed.strip():
            continue
        found: Output = read(printed).value
        gpus = tuple(filled(g, same_card(g, found.gpus)) for g in gpus) if gpus else found.gpus
        pairs = pairs or getattr(found, "pairs", ())
    return gpus, pairs


def renumbered(
    gpus: tuple[Gpu, ...], pairs: tuple[GpuPair, ...], first_index: int
) -> tuple[tuple[Gpu, ...], tuple[GpuPair, ...]]:
    """The same from another first index on."""
    moved = tuple(replace(gpu, index=gpu.index + first_index) for gpu in gpus)
    return moved, tuple(replace(p, a=p.a + first_index, b=p.b + first_index) for p in pairs)
