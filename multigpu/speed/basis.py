"""What a prediction rests on, how far it is stretched, and when there is none."""

from __future__ import annotations

from multigpu.backend import GGML_RUNTIMES
from multigpu.hardware import Gpu, Host
from multigpu.plan import Candidate, ModelSpec
from multigpu.speed.cards import cards
from multigpu.speed.constants import EXTRAPOLATED, LLAMA_CPP_CALIBRATED, LLAMA_CPP_GFX

RUNTIMES = ("vllm", "sglang", *GGML_RUNTIMES)
ROWS = {
    "vllm": "73 published measurements with vLLM and SGLang on NVIDIA cards",
    "vllm-amd": "32 published measurements with vLLM on one pair of R9700",
    "llama.cpp": "30 published measurements with llama.cpp on NVIDIA cards",
    "llama.cpp-amd": "measurements with llama.cpp on NVIDIA cards, scaled by 6 published ones of "
    "an RX 7900 XTX and an AI PRO R9700",
}


def doubts(candidate: Candidate, host: Host, model: ModelSpec) -> tuple[str, ...]:
    """Why no number is given; nothing where one may be."""
    found = []
    known = cards(host)
    if not known.unknown.isdisjoint(candidate.gpus):
        unknown = [index for index in candidate.gpus if index in known.unknown]
        names = sorted({host.gpu(index).name or "unnamed" for index in unknown})
        found.append(f"memory bandwidth and arithmetic of {', '.join(names)} are not known")
    if candidate.runtime not in RUNTIMES:
        found.append(f"nothing was measured with {candidate.runtime}")
    if candidate.cpu_offload_mib > 0:
        found.append("weights in the host's memory: nothing was measured with that")
    if model.lower_bound:
        found.append(f"the model is larger than counted: {'; '.join(model.lower_bound)}")
    if candidate.runtime == "sglang" and not known.amd.isdisjoint(candidate.gpus):
        found.append(f"nothing was measured with {candidate.runtime} on AMD cards")
    return tuple(found)


def reach(candidate: Candidate, host: Host) -> float:
    """1 where cards of this kind were measured, `EXTRAPOLATED` where none was."""
    if candidate.runtime in GGML_RUNTIMES:
        near = all(_measured_with_llama_cpp(host.gpu(index)) for index in candidate.gpus)
        return 1.0 if near else EXTRAPOLATED
    return 1.0 if cards(host).far.isdisjoint(candidate.gpus) else EXTRAPOLATED


def _measured_with_llama_cpp(gpu: Gpu) -> bool:
    return gpu.gfx in LLAMA_CPP_GFX or gpu.compute_capability in LLAMA_CPP_CALIBRATED


def basis(engine: str, wide: float) -> str:
    """One sentence for the plan."""
    far = "; no card of this generation among them, so the range is wider" if wide > 1 else ""
    return f"cost model fitted to {ROWS[engine]}{far}"
