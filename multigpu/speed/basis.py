"""What a prediction rests on, how far it is stretched, and when there is none."""

from __future__ import annotations

from multigpu.hardware import Host, Vendor
from multigpu.plan import Candidate, ModelSpec
from multigpu.speed.cards import Cards, cards
from multigpu.speed.constants import CALIBRATED, CALIBRATED_GFX, EXTRAPOLATED

RUNTIMES = ("vllm", "sglang", "llama.cpp")
ROWS = {
    "vllm": "73 published measurements with vLLM and SGLang on NVIDIA cards",
    "vllm-amd": "32 published measurements with vLLM on one pair of R9700",
    "llama.cpp": "30 published measurements with llama.cpp on NVIDIA cards",
}


def doubts(candidate: Candidate, host: Host, model: ModelSpec) -> tuple[str, ...]:
    """Why no number is given; nothing where one may be."""
    found = []
    known = cards(host)
    if any(known.by_index.get(index) is None for index in candidate.gpus):
        names = sorted({host.gpu(i).name or "unnamed" for i in _unknown(candidate, known)})
        found.append(f"memory bandwidth and arithmetic of {', '.join(names)} are not known")
    if candidate.runtime not in RUNTIMES:
        found.append(f"nothing was measured with {candidate.runtime}")
    if candidate.cpu_offload_mib > 0:
        found.append("weights in the host's memory: nothing was measured with that")
    if model.lower_bound:
        found.append(f"the model is larger than counted: {'; '.join(model.lower_bound)}")
    if candidate.runtime != "vllm" and _amd(candidate, host):
        found.append(f"nothing was measured with {candidate.runtime} on AMD cards")
    return tuple(found)


def _unknown(candidate: Candidate, known: Cards) -> list[int]:
    return [index for index in candidate.gpus if known.by_index.get(index) is None]


def _amd(candidate: Candidate, host: Host) -> bool:
    return any(host.gpu(index).vendor is Vendor.AMD for index in candidate.gpus)


def reach(candidate: Candidate, host: Host) -> float:
    """1 where cards of this kind were measured, `EXTRAPOLATED` where none was."""
    for index in candidate.gpus:
        gpu, card = host.gpu(index), cards(host).by_index[index]
        capability = card.capability if card is not None else None
        if gpu.vendor is Vendor.AMD:
            if gpu.gfx not in CALIBRATED_GFX:
                return EXTRAPOLATED
        elif capability not in CALIBRATED:
            return EXTRAPOLATED
    return 1.0


def basis(engine: str, wide: float) -> str:
    """One sentence for the plan."""
    far = "; no card of this generation among them, so the range is wider" if wide > 1 else ""
    return f"cost model fitted to {ROWS[engine]}{far}"
