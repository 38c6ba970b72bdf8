"""llama.cpp's backends against a candidate: what each cannot do, and what it calls its devices.

Facts of 0.5.0-dev (0c1e57098): ggml/src/ggml-vulkan/ggml-vulkan.cpp (devices in the order of
vkEnumeratePhysicalDevices, integrated ones too; no `ggml_backend_comm_init`), ggml-backend-reg.cpp
and ggml-cuda/ (CUDA and HIP are one source with the same symbols), docs/multi-gpu.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from multigpu.backend import Backend, choose, device_names, of_devices
from multigpu.hardware import Gpu, Host, Vendor
from multigpu.labels import cards
from multigpu.plan import Candidate, Plan, Reason, Strategy, Wish
from multigpu.runtimes import rocm

VENDORS = {Backend.CUDA: Vendor.NVIDIA, Backend.HIP: Vendor.AMD}
# Vulkan of integrated graphics or of a second vendor stands in the same list.
LISTED = "`llama-server --list-devices` on the host prints them"


def objections(candidate: Candidate, host: Host, wish: Wish) -> Iterator[Reason]:
    """What the backend of these cards cannot do."""
    if wish.backend is None and wish.devices is None and not rocm.of(candidate, host):
        return
    gpus = [host.gpu(index) for index in candidate.gpus]
    backend = choose(gpus, wish, host.rocm)
    yield from _one_build(wish)
    yield from _cards(backend, gpus, wish)
    if backend is Backend.HIP:
        yield from rocm.llama_cpp([g for g in gpus if g.vendor is Vendor.AMD], host, wish)
    if backend is Backend.VULKAN:
        yield from _vulkan(candidate, host, wish)


def _one_build(wish: Wish) -> Iterator[Reason]:
    """Devices of two backends need a build with both, which is the operator's."""
    named = sorted(of_devices(wish.devices or ()) - {Backend.CPU})
    if len(named) < 2 or wish.executable is not None or wish.wheel is not None:
        return
    needed = "devices of one backend"
    if {Backend.CUDA, Backend.HIP} <= set(named):
        # Same symbols twice: only backends that are loaded at run time bear it (GGML_BACKEND_DL).
        needed += " (CUDA and HIP together need a build with GGML_BACKEND_DL)"
    hint = (
        "name Vulkan devices for cards of both vendors, or bring the build as executable or wheel"
    )
    yield Reason("backend-mixed", f"devices of {' and '.join(named)}", needed, hint)


def _cards(backend: Backend, gpus: Sequence[Gpu], wish: Wish) -> Iterator[Reason]:
    """CUDA is NVIDIA's and HIP AMD's; the CPU's backend serves no card, but those of RPC."""
    remote = of_devices(wish.devices or ()) == {Backend.CPU}
    vendor = VENDORS.get(backend)
    wrong = [gpu.index for gpu in gpus if vendor is not None and gpu.vendor is not vendor]
    if wrong:
        names = {host_vendor(gpus, index) for index in wrong}
        found = f"backend {backend} with {cards(wrong)} of {' and '.join(sorted(names))}"
        yield Reason("backend-cards", found, f"cards of {vendor}", "leave backend out")
    if backend is Backend.CPU and not remote:
        found = f"backend cpu leaves {cards([gpu.index for gpu in gpus])} unused"
        yield Reason("backend-cards", found, "a backend of the cards", "leave backend out")


def host_vendor(gpus: Sequence[Gpu], index: int) -> str:
    """The vendor's word of one of the cards."""
    return next(str(gpu.vendor) for gpu in gpus if gpu.index == index)


def _vulkan(candidate: Candidate, host: Host, wish: Wish) -> Iterator[Reason]:
    if candidate.strategy is Strategy.TENSOR_SPLIT:
        found = "Vulkan has no reduction between cards of its own (llama.cpp pull request 25051)"
        hint = "use strategy layer_split, or backend hip where the cards allow it"
        yield Reason("tensor-split-backend", found, "CUDA or HIP", hint)
    if wish.devices is None and not _interchangeable(candidate, host):
        found = f"Vulkan counts the cards in an order of its own, {cards(candidate.gpus)} are meant"
        hint = f"set devices to the names in the order of gpus; {LISTED}"
        yield Reason("device-names", found, "devices, one name for each card", hint)


def _interchangeable(candidate: Candidate, host: Host) -> bool:
    """True where any numbering is right: one card a process, or like ones, and no others seen."""
    gpus = [host.gpu(index) for index in candidate.gpus]
    alone = all(gpu.vendor is Vendor.AMD and gpu.pci_bus_id for gpu in gpus)
    if not alone and (len(gpus) < len(host.gpus) or host.left_out):
        return False
    kinds = {(gpu.vendor, gpu.name, gpu.memory_mib, gpu.memory_free_mib) for gpu in gpus}
    return len(kinds) == 1 or (alone and candidate.replicas == len(gpus))


# libvulkan-dev of these is older than VK_EXT_layer_settings, which ggml-vulkan.cpp names: on Debian
# 12 (1.3.239) the build was run and ended there; the others are older still.
OLD_HEADERS = ("Debian GNU/Linux 11", "Debian GNU/Linux 12", "Ubuntu 20.04", "Ubuntu 22.04")


def _headers(host: Host, wish: Wish) -> Iterator[Reason]:
    """Vulkan's headers of the distribution, where llama.cpp is built on the host."""
    built = wish.executable is None and wish.wheel is None
    if built and (host.os or "").startswith(OLD_HEADERS):
        found = f"{host.os}: its Vulkan headers are too old to build llama.cpp with"
        hint = "build it on a newer release and set wheel, or executable"
        yield Reason("vulkan-headers", found, "VK_EXT_layer_settings in them", hint)


def cautions(candidate: Candidate, host: Host, wish: Wish) -> Iterator[Reason]:
    """What Vulkan costs, and what nobody promises of a card that is overridden."""
    gpus = [host.gpu(index) for index in candidate.gpus]
    yield from rocm.overridden(wish, gpus)
    if choose(gpus, wish, host.rocm) is Backend.VULKAN:
        found = "Vulkan: prompts are read more slowly than with HIP or CUDA, more so over a split"
        hint = "measure it: it is predicted as HIP; decode is as fast or faster on RDNA cards"
        yield Reason("vulkan-speed", found, None, hint)
        yield from _headers(host, wish)


def names(plan: Plan, replica: int) -> Sequence[str]:
    """Devices of one replica in the order of the planned cards: the pinned ones, else CUDA0.. .

    They count the cards that the process sees, so they start at 0 in every replica; over Vulkan it
    sees all unless its unit opens its own only (`environment.own_nodes`).
    """
    size = len(plan.chosen.gpus) // plan.chosen.replicas
    start = replica * size
    if plan.wish.devices is not None:
        return plan.wish.devices[start : start + size]
    if plan.backend is Backend.VULKAN and not plan.gpu_addresses:
        return device_names(plan.backend, start + size)[start:]
    return device_names(plan.backend, size)
