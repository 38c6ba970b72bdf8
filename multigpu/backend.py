"""llama.cpp's backends: which one a set of cards gets, how it is built, what it calls its devices.

Facts are those of llama.cpp 0.5.0-dev (0c1e57098, in the sdist of llama-cpp-python 0.3.36):
docs/build.md ("CUDA", "HIP", "Vulkan"), docs/multi-gpu.md (RCCL) and the CMakeLists.txt of
ggml/src/ggml-cuda, ggml-hip and ggml-vulkan. What was never run on such a card says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from multigpu.errors import WishError
from multigpu.hardware import Gpu, Vendor
from multigpu.wish_values import Strategy, Wish


class Backend(StrEnum):
    """A backend of ggml that devices belong to."""

    CUDA = "cuda"
    HIP = "hip"
    VULKAN = "vulkan"
    CPU = "cpu"


GGML_RUNTIMES = ("llama.cpp", "llama_cpp.server")
"""Runtimes whose devices are ggml's; vLLM and SGLang have one backend for each vendor."""
DEVICE_PREFIX = {Backend.CUDA: "CUDA", Backend.HIP: "ROCm", Backend.VULKAN: "Vulkan"}
"""How device names begin in `--device` and in the log (GGML_CUDA_NAME, GGML_VK_NAME)."""
REMOTE = "RPC"
"""Devices of ggml-rpc-server: the process itself needs no backend but the CPU's."""

HIP_MINIMUM = (6, 1)
"""`At least ROCM/HIP V6.1 is required`: ggml/src/ggml-hip/CMakeLists.txt."""
# rocBLAS, which ggml-hip links, ships kernels for these: the first release with them and the last,
# None where they are still there. ROCm issue 4625 lists the files of 6.4.0, where gfx906 ended;
# gfx950 and gfx115x are of 7.0 (rocBLAS' CMakeLists.txt). Others need HSA_OVERRIDE_GFX_VERSION.
HIP_TARGETS: dict[str, tuple[tuple[int, int], tuple[int, int] | None]] = {
    "gfx906": ((6, 1), (6, 3)),
    "gfx908": ((6, 1), None),
    "gfx90a": ((6, 1), None),
    "gfx942": ((6, 1), None),
    "gfx950": ((7, 0), None),
    "gfx1030": ((6, 1), None),
    "gfx1100": ((6, 1), None),
    "gfx1101": ((6, 1), None),
    "gfx1102": ((6, 1), None),
    "gfx1150": ((7, 0), None),
    "gfx1151": ((7, 0), None),
    "gfx1200": ((6, 4), None),
    "gfx1201": ((6, 4), None),
}
OVERRIDE = "HSA_OVERRIDE_GFX_VERSION"
"""Makes ROCm take a card for another one: `10.3.0` is gfx1030. Only ever set by the operator."""
OWN_REDUCTION = 2
"""Cards that llama.cpp's own all-reduce takes (ggml/src/ggml-cuda/allreduce.cu), HIP's too."""


@dataclass(frozen=True)
class Tool:
    """Something a build needs on the host. `program` is what is looked for, or a header's `path`.

    `directories` are searched beside the PATH; `debian` and `rhel` name the packages.
    """

    debian: str
    rhel: str
    program: str | None = None
    path: str | None = None
    directories: tuple[str, ...] = ()


# The toolkits come from their vendors' package repositories, under the same names on both families
# (CUDA Installation Guide for Linux; ROCm installation for Linux); the others from the
# distribution: build.md names those of Debian and Ubuntu.
TOOLS: dict[Backend, tuple[Tool, ...]] = {
    Backend.CUDA: (Tool("cuda-toolkit", "cuda-toolkit", "nvcc", None, ("/usr/local/cuda/bin",)),),
    # Headers lie below /opt/rocm, or /usr where the distribution packages ROCm: CMake looks there.
    Backend.HIP: (
        Tool(
            "hip-dev rocm-llvm hipblas-dev rocblas-dev",
            "hip-devel rocm-llvm hipblas-devel rocblas-devel",
            "hipconfig",
            None,
            ("/opt/rocm/bin",),
        ),
    ),
    Backend.VULKAN: (
        Tool("glslc", "glslc", "glslc"),
        Tool("libvulkan-dev", "vulkan-headers vulkan-loader-devel", None, "/usr/include/vulkan"),
        Tool("spirv-headers", "spirv-headers-devel", None, "/usr/include/spirv/unified1"),
    ),
    Backend.CPU: (),
}
COMPILER = (Tool("g++", "gcc-c++", "g++"),)
"""Every build needs it; cmake and ninja come from the lock of the tools."""


def tools(backend: Backend) -> tuple[Tool, ...]:
    """What must be on the host before a build of that backend begins."""
    return COMPILER + TOOLS[backend]


def of_devices(names: Iterable[str]) -> frozenset[Backend]:
    """Backends that pinned device names belong to; names of no backend of ours are left out."""
    found = set()
    for name in names:
        found |= {kind for kind, prefix in DEVICE_PREFIX.items() if name.startswith(prefix)}
        found |= {Backend.CPU} if name.startswith(REMOTE) else set()
    return frozenset(found)


def wished(wish: Wish) -> Backend | None:
    """What the wish says: `backend`, else what its `devices` are called. None where it is free.

    Remote devices beside local ones ask for nothing more.
    """
    if wish.backend is not None:
        return Backend(wish.backend)
    named = of_devices(wish.devices or ())
    local = named - {Backend.CPU} or named
    return next(iter(local)) if len(local) == 1 else None


def choose(gpus: Sequence[Gpu], wish: Wish, rocm: str | None = None) -> Backend:
    """The backend that these cards are served by; `rocm` is the release on the host.

    CUDA for NVIDIA's, HIP for AMD's that its rocBLAS has kernels for, Vulkan for the others and
    for cards of both vendors in one process.
    """
    asked = wished(wish)
    if asked is not None:
        return asked
    vendors = {gpu.vendor for gpu in gpus}
    if not vendors:
        return Backend.CPU
    if vendors == {Vendor.NVIDIA}:
        return Backend.CUDA
    if vendors == {Vendor.AMD} and all(served_by_hip(gpu.gfx, rocm, wish) for gpu in gpus):
        return Backend.HIP
    return Backend.VULKAN


def served_by_hip(gfx: str | None, rocm: str | None, wish: Wish) -> bool:
    """True where rocBLAS of that ROCm has kernels for the card, or the operator overrides it.

    A card or a release that is not known passes, the release as one of today.
    """
    if gfx is None or OVERRIDE in wish.env:
        return True
    if gfx not in HIP_TARGETS:
        return False
    (first, last), found = HIP_TARGETS[gfx], version(rocm)
    if found is None:
        return last is None
    return first <= found[:2] and (last is None or found[:2] <= last)


def version(text: str | None) -> tuple[int, ...] | None:
    """(6, 3, 1) of `6.3.1-48`; None for what does not begin with numbers."""
    match = re.match(r"\d+(?:\.\d+)*", text or "", re.ASCII)
    return None if match is None else tuple(int(part) for part in match[0].split("."))


def cmake_arguments(
    backend: Backend, gpus: Sequence[Gpu], *, rccl: bool = False, override: str | None = None
) -> tuple[str, ...]:
    """Words for CMAKE_ARGS that add `backend` with code for exactly these cards.

    A value may hold `;`: quote it for a shell. `rccl` is for a tensor split over AMD cards
    (`wants_rccl`), `override` the value of HSA_OVERRIDE_GFX_VERSION: that card is compiled for
    then. Raises WishError where the architecture of a card is not known: code for any
    other one does not start.
    """
    if backend is Backend.CUDA:
        return ("-DGGML_CUDA=ON", f"-DCMAKE_CUDA_ARCHITECTURES={';'.join(_capabilities(gpus))}")
    if backend is Backend.HIP:
        targets = ("-DGGML_HIP=ON", f"-DGPU_TARGETS={';'.join(_targets(gpus, override))}")
        return (*targets, "-DGGML_HIP_RCCL=ON") if rccl else targets
    return ("-DGGML_VULKAN=ON",) if backend is Backend.VULKAN else ()


def wants_rccl(backend: Backend, wish: Wish, gpus: Sequence[Gpu]) -> bool:
    """True for a wished tensor split over more than two AMD cards.

    Two are reduced by llama.cpp's own kernel. RCCL is off by default because it was not faster
    everywhere (docs/multi-gpu.md).
    """
    split = wish.strategy is Strategy.TENSOR_SPLIT
    return backend is Backend.HIP and split and len(gpus) > OWN_REDUCTION


BUILD_ENVIRONMENT: dict[Backend, tuple[tuple[str, str], ...]] = {
    Backend.HIP: (("HIPCXX", '"$(hipconfig -l)/clang"'), ("HIP_PATH", '"$(hipconfig -R)"')),
}
"""Shell assignments beside CMAKE_ARGS, as build.md gives them ("HIP")."""


def build_environment(backend: Backend) -> tuple[tuple[str, str], ...]:
    """(name, value as a shell word) of what a build needs set; the tools must be in the PATH."""
    return BUILD_ENVIRONMENT.get(backend, ())


def device_names(backend: Backend, count: int) -> tuple[str, ...]:
    """`CUDA0`, `CUDA1` ..: devices are numbered among those that the process sees."""
    return tuple(f"{DEVICE_PREFIX[backend]}{i}" for i in range(count))


def _capabilities(gpus: Sequence[Gpu]) -> list[str]:
    """`86`, `89`, `120`: ggml makes `120a` of the last by itself."""
    found = {gpu.compute_capability for gpu in gpus if gpu.vendor is Vendor.NVIDIA}
    known = sorted(capability for capability in found if capability is not None)
    if None in found or not known:
        raise _unknown(gpus, "compute capability", "nvidia-smi -q -x")
    return [f"{major}{minor}" for major, minor in known]


def _targets(gpus: Sequence[Gpu], override: str | None) -> list[str]:
    if override is not None:
        return [_overridden(override)]
    found = {gpu.gfx for gpu in gpus if gpu.vendor is Vendor.AMD}
    known = sorted((gfx for gfx in found if gfx is not None), key=lambda gfx: (len(gfx), gfx))
    if None in found or not known:
        raise _unknown(gpus, "gfx architecture", "rocminfo")
    return known


def _overridden(value: str) -> str:
    """gfx1030 of `10.3.0`, gfx90a of `9.0.10`."""
    parts = version(value) or ()
    if len(parts) != 3 or any(part > 15 for part in parts[1:]):
        raise WishError(f"{OVERRIDE} is {value!r}: write three numbers, such as 10.3.0")
    return f"gfx{parts[0]}{parts[1]:x}{parts[2]:x}"


def _unknown(gpus: Sequence[Gpu], what: str, tool: str) -> WishError:
    cards = ", ".join(f"GPU {gpu.index}" for gpu in gpus) or "no card"
    return WishError(
        f"the {what} of {cards} is not known, and llama.cpp is built for exactly the cards of the "
        f"host: mend `{tool}` on it, or give a wheel built elsewhere as wheel"
    )
