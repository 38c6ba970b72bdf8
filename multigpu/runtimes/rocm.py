"""What vLLM 0.33.0, SGLang and llama.cpp do not do on AMD cards, by the card's gfx architecture.

Nothing here was run on an AMD card: it is read in the sources named beside each table. `vllm/` is
the 0.33.0 wheel, ROCm's numbers are those of /opt/rocm/.info/version.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from multigpu.backend import HIP_MINIMUM, HIP_TARGETS, OVERRIDE, served_by_hip, version
from multigpu.hardware import Gpu, Host, Vendor
from multigpu.labels import cards
from multigpu.memo import memo
from multigpu.plan import Candidate, ModelSpec, Reason, Wish

# docs/getting_started/installation/gpu.rocm.inc.md ("requirements"): the cards vLLM names, and the
# least ROCm for each.
VLLM_ROCM: dict[str, tuple[int, ...]] = {
    "gfx90a": (6, 3),
    "gfx942": (6, 3),
    "gfx950": (7, 0),
    "gfx1100": (6, 3),
    "gfx1101": (6, 3),
    "gfx1150": (7, 0, 2),
    "gfx1151": (7, 0, 2),
    "gfx1200": (6, 3),
    "gfx1201": (6, 3),
}
# CMakeLists.txt (`HIP_SUPPORTED_ARCHS`) compiles for these too; the documentation names them not.
VLLM_BUILDS = frozenset({"gfx906", "gfx908", "gfx1030", "gfx1102", "gfx1103", "gfx1152", "gfx1153"})
# The same page, "Prebuilt Wheels": what the wheels of the project's own index need.
WHEEL_PYTHON, WHEEL_GLIBC = (3, 12), "2.35"
LOCK = "vllm-rocm"
"""Name of the operator's lock of such wheels."""
WHEEL_INDEX = "https://wheels.vllm.ai/rocm/"
# vllm/platforms/rocm.py, `supported_quantization`: bitsandbytes and GGUF are not in it.
NO_KERNEL = frozenset({"bitsandbytes"})
# Matrices in FP8 with a scale per tensor or row: `_rocm_torch_fp8_scaled_mm_supported` of
# vllm/model_executor/kernels/linear/scaled_mm/pytorch.py. With a scale per block of weights
# Triton computes on every card (`_POSSIBLE_FP8_BLOCK_KERNELS`).
FP8_TARGETS = frozenset({"gfx942", "gfx950", "gfx1200", "gfx1201"})
# Arithmetic of their own; elsewhere weights are unpacked (kernels `Emulation*`, `TritonW4A16`).
NATIVE: dict[str, frozenset[str]] = {
    "fp8": FP8_TARGETS,
    "nvfp4": frozenset(),
    "mxfp4": frozenset({"gfx950"}),
    "mxfp8": frozenset({"gfx950"}),
}
# `use_custom_allreduce` and `_rocm_arch_available`: custom and quick all-reduce, by prefix.
OWN_ALL_REDUCE = ("gfx94", "gfx95")


def of(candidate: Candidate, host: Host) -> tuple[Gpu, ...]:
    """The AMD cards of a candidate."""
    # Asked for every candidate of a host, and most have none.
    known = memo(host)
    if "amd" not in known:
        known["amd"] = any(gpu.vendor is Vendor.AMD for gpu in host.gpus)
    if not known["amd"]:
        return ()
    gpus = (host.gpu(index) for index in candidate.gpus)
    return tuple(gpu for gpu in gpus if gpu.vendor is Vendor.AMD)


def vllm(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    """What stands against vLLM on these cards; nothing where none is AMD's."""
    gpus = of(candidate, host)
    if gpus:
        yield from _vllm_cards(gpus, wish)
        yield from _vllm_rocm(gpus, host)
        yield from _quantization(gpus, model)
        yield from _kv_cache(gpus, wish)


def refuses(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> bool:
    """True where a card cannot serve the model, however much memory it has."""
    return next(vllm(candidate, host, model, wish), None) is not None


def _vllm_cards(gpus: Sequence[Gpu], wish: Wish) -> Iterator[Reason]:
    built = VLLM_ROCM.keys() | (VLLM_BUILDS if _own_build(wish) else set())
    for gfx in _targets(gpus):
        if gfx not in built and OVERRIDE not in wish.env:
            tried = " or executable (a build of your own)" if gfx in VLLM_BUILDS else ""
            yield Reason(
                "gfx-unsupported",
                f"{_named(gpus, gfx)}: vLLM is not made for {gfx}",
                f"one of {', '.join(sorted(VLLM_ROCM, key=_order))}{tried}",
                "serve a GGUF with llama.cpp on these cards",
            )


def _vllm_rocm(gpus: Sequence[Gpu], host: Host) -> Iterator[Reason]:
    found = version(host.rocm)
    needed = max((VLLM_ROCM.get(gfx, (6, 3)) for gfx in _targets(gpus)), default=(6, 3))
    if found is not None and found < needed:
        yield _too_old("vLLM", host, needed)


def _too_old(who: str, host: Host, needed: tuple[int, ...]) -> Reason:
    least = ".".join(str(part) for part in needed)
    hint = f"install ROCm {least} or newer on {host.name}"
    return Reason("rocm-version", f"ROCm {host.rocm}", f"{least} for {who} on these cards", hint)


def _quantization(gpus: Sequence[Gpu], model: ModelSpec) -> Iterator[Reason]:
    """Formats that no ROCm kernel of vLLM multiplies by."""
    word, hint = model.quantization, "take an AWQ, GPTQ or 16-bit checkpoint, or a GGUF"
    if word in NO_KERNEL:
        found = f"{cards([gpu.index for gpu in gpus])} with a {word} checkpoint"
        yield Reason("quantization-on-rocm", found, "a format that vLLM has on ROCm", hint)
    if word == "fp8" and model.group_size is None:
        for gfx in _targets(gpus):
            if gfx not in FP8_TARGETS:
                found = f"{_named(gpus, gfx)} ({gfx}) with FP8 scales per tensor or row"
                needed = f"one of {', '.join(sorted(FP8_TARGETS, key=_order))}, or block scales"
                yield Reason("quantization-on-rocm", found, needed, hint)


def _kv_cache(gpus: Sequence[Gpu], wish: Wish) -> Iterator[Reason]:
    if wish.kv_cache_dtype == "nvfp4" or wish.flags.get("--kv-cache-dtype") == "nvfp4":
        found = f"{cards([gpu.index for gpu in gpus])} with a KV cache in nvfp4"
        hint = "set kv_cache_dtype to fp8 or int8_per_token_head"
        yield Reason("kv-cache-dtype", found, "an NVIDIA card of 10.0 or 10.3", hint)


def vllm_cautions(candidate: Candidate, host: Host, model: ModelSpec) -> Iterator[Reason]:
    """What loads on AMD cards, but is computed in another format or without own kernels."""
    gpus, word = of(candidate, host), model.quantization or ""
    for gfx in _targets(gpus):
        if gfx in VLLM_BUILDS:
            hint = "try it before anybody relies on it; llama.cpp knows these cards better"
            found = f"{_named(gpus, gfx)}: vLLM compiles for {gfx}, and does not list it"
            yield Reason("gfx-untested", found, None, hint)
        if word in NATIVE and gfx not in NATIVE[word]:
            found, native = f"{gfx} has no {word} arithmetic in vLLM", NATIVE[word]
            needed = ", ".join(sorted(native, key=_order)) or "an NVIDIA card"
            hint = "it saves memory but not time; nothing to do"
            yield Reason("weight-only", found, needed, hint)
    if candidate.tensor_parallel_size > 1 and any(
        not (gpu.gfx or OWN_ALL_REDUCE[0]).startswith(OWN_ALL_REDUCE) for gpu in gpus
    ):
        found = "vLLM's own all-reduce is for MI300 and MI350; RCCL does it on these cards"
        yield Reason("rccl-all-reduce", found, None, "nothing to do; small steps take longer")


def overridden(wish: Wish, gpus: Iterable[Gpu]) -> Iterator[Reason]:
    """The operator tells ROCm that the cards are others: possible, and nobody's promise."""
    if OVERRIDE in wish.env and any(gpu.vendor is Vendor.AMD for gpu in gpus):
        found = f"{OVERRIDE}={wish.env[OVERRIDE]}: code for other cards runs on these"
        hint = "compare its answers with those of Vulkan or a processor once"
        yield Reason("gfx-override", found, None, hint)


def build(candidate: Candidate, host: Host, wish: Wish) -> Iterator[Reason]:
    """vLLM for ROCm is not on PyPI: what its wheels need, and where the project keeps them."""
    gpus = of(candidate, host)
    if not gpus or _own_build(wish):
        return
    lacking = [text for text in (_python(host), _glibc(host)) if text is not None]
    where = f"{cards([gpu.index for gpu in gpus])}: PyPI's wheel of vLLM is for CUDA"
    yield Reason(
        "cuda-wheel",
        "; ".join([where, *lacking]),
        f"a ROCm build: Python {_dotted(WHEEL_PYTHON)}, glibc {WHEEL_GLIBC}, ROCm of the wheel",
        f"add a lock {LOCK}-VERSION.txt of wheels from {WHEEL_INDEX} or set executable; or serve a "
        "GGUF with llama.cpp",
    )


def _python(host: Host) -> str | None:
    if host.python is None or host.python[:2] == WHEEL_PYTHON:
        return None
    return f"{host.name} has Python {_dotted(host.python[:2])}"


def _glibc(host: Host) -> str | None:
    found = version(host.glibc)
    if found is None or found >= (version(WHEEL_GLIBC) or ()):
        return None
    return f"{host.name} has glibc {host.glibc}"


def no_lock(host: str) -> str:
    """What lacks where vLLM is to be installed on AMD cards from wheels."""
    return (
        f"PyPI's wheel of vLLM is for CUDA and {host} is planned on AMD cards: put the hashed lock "
        f"of ROCm wheels (Python {_dotted(WHEEL_PYTHON)}, glibc {WHEEL_GLIBC}; vLLM's index is "
        f"{WHEEL_INDEX}VERSION/VARIANT) into templates/requirements/{LOCK}-VERSION.txt and set "
        "package_index or wheel_directory, or set executable to a ROCm build on the host"
    )


def llama_cpp(gpus: Sequence[Gpu], host: Host, wish: Wish) -> Iterator[Reason]:
    """Cards that llama.cpp's HIP backend does not start on with the ROCm of the host."""
    found = version(host.rocm)
    if found is not None and found < HIP_MINIMUM:
        yield _too_old("llama.cpp's HIP", host, HIP_MINIMUM)
        return
    for gfx in _targets(gpus):
        if served_by_hip(gfx, host.rocm, wish):
            continue
        release = f"ROCm {host.rocm}" if found is not None else "ROCm of today"
        yield Reason(
            "gfx-unsupported",
            f"{_named(gpus, gfx)}: rocBLAS of {release} has no kernels for {gfx}",
            f"one of {', '.join(sorted(HIP_TARGETS, key=_order))}{_span(gfx)}",
            f"set backend to vulkan, or {OVERRIDE} in env to a near one that you tried",
        )


def _span(gfx: str) -> str:
    """The releases that know the card, where some do."""
    if gfx not in HIP_TARGETS:
        return ""
    first, last = HIP_TARGETS[gfx]
    until = f" to {_dotted(last)}" if last is not None else " or newer"
    return f" (this one: ROCm {_dotted(first)}{until})"


def _own_build(wish: Wish) -> bool:
    return wish.executable is not None or wish.wheel is not None


def _targets(gpus: Iterable[Gpu]) -> list[str]:
    return sorted({gpu.gfx for gpu in gpus if gpu.gfx is not None}, key=_order)


def _order(gfx: str) -> tuple[int, str]:
    return len(gfx), gfx


def _named(gpus: Sequence[Gpu], gfx: str) -> str:
    return cards([gpu.index for gpu in gpus if gpu.gfx == gfx])


def _dotted(parts: Iterable[int]) -> str:
    return ".".join(str(part) for part in parts)
