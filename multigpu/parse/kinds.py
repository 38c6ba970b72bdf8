"""Every format that can be read, in one explicit tuple, and which of them a text is.

Adding a format touches its reader, this tuple and one test.
"""

from __future__ import annotations

import difflib

from multigpu.errors import CaptureError
from multigpu.hardware import Host
from multigpu.parse import capture
from multigpu.parse.amd import amd_smi, rocm_smi, rocminfo
from multigpu.parse.engines import llama_cpp_log, model_files, sglang_log, vllm_log
from multigpu.parse.kernel import kernel_log
from multigpu.parse.nccl import nccl_log, nccl_tests, nvbandwidth, p2p_bandwidth
from multigpu.parse.nvidia_smi import listing, query_gpu, table, topology, xml
from multigpu.parse.nvidia_smi import text as words
from multigpu.parse.pci import lspci
from multigpu.parse.reading import Kind, Reading, Unread


def _read_captured(text: str) -> Reading[Host | None]:
    """The probe's document; one that is cut stays unread, with the reason."""
    lines = sum(bool(line.strip()) for line in text.split("\n"))
    try:
        return Reading(capture.read(text, "captured machine"), (), lines)
    except CaptureError as error:
        return Reading(None, (Unread(1, str(error)),), lines)


def _is_captured(text: str) -> float:
    return 1.0 if capture.BEGIN.search(text[:20_000]) and '"tools"' in text[:400_000] else 0.0


CAPTURED = Kind(
    "captured-machine",
    "captured machine of deploys/survey.py or of the probe",
    _is_captured,
    _read_captured,
)

KINDS: tuple[Kind, ...] = (
    CAPTURED,
    *xml.KINDS,
    *words.KINDS,
    *query_gpu.KINDS,
    *table.KINDS,
    *listing.KINDS,
    *topology.KINDS,
    *lspci.KINDS,
    *rocm_smi.KINDS,
    *amd_smi.KINDS,
    *rocminfo.KINDS,
    *kernel_log.KINDS,
    *nccl_log.KINDS,
    *nccl_tests.KINDS,
    *p2p_bandwidth.KINDS,
    *nvbandwidth.KINDS,
    *vllm_log.KINDS,
    *sglang_log.KINDS,
    *llama_cpp_log.KINDS,
    *model_files.KINDS,
)


def kind(name: str) -> Kind:
    """The format of that name. Raises CaptureError with the nearest known names for another."""
    for known in KINDS:
        if known.name == name:
            return known
    names = [known.name for known in KINDS]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    known_as = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(names)}"
    raise CaptureError(f"no format is called {name!r}; {known_as}")


def guess(text: str) -> Kind | None:
    """The format that is surest of the text; None when none is.

    Of two that are equally sure the first in the tuple wins.
    """
    ranked = [(known.recognise(text), -rank, known) for rank, known in enumerate(KINDS)]
    sure, _, best = max(ranked, key=lambda entry: entry[:2])
    return best if sure > 0 else None
