"""Environment of a planned service: device order and peer access, each setting with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from multigpu.backend import GGML_RUNTIMES, Backend, choose
from multigpu.groups import bonded
from multigpu.hardware import Host, P2p, Vendor
from multigpu.placement import even
from multigpu.plan import Candidate, ModelSpec, Setting, Wish


def settings(host: Host, model: ModelSpec, chosen: Candidate, wish: Wish) -> tuple[Setting, ...]:
    """Ours first; what the inventory sets replaces ours of the same name."""
    found = {setting.name: setting for setting in _ours(host, model, chosen, wish)}
    for name, value in wish.env.items():
        found[name] = Setting(name, value, "set in the inventory")
    return tuple(found.values())


def used_backend(host: Host, chosen: Candidate, wish: Wish) -> Backend:
    """What the chosen cards are reached by; llama.cpp has the choice, the others CUDA or HIP."""
    gpus = [host.gpu(index) for index in chosen.gpus]
    if chosen.runtime in GGML_RUNTIMES:
        return choose(gpus, wish, host.rocm)
    return Backend.HIP if any(gpu.vendor is Vendor.AMD for gpu in gpus) else Backend.CUDA


def own_nodes(host: Host, chosen: Candidate, wish: Wish) -> tuple[str, ...]:
    """PCI addresses of AMD cards that a process over Vulkan sees alone; none where it sees all.

    Vulkan numbers the cards it can open, in an order of its own, so the unit lets each process open
    its own render nodes only. NVIDIA's device files cannot be told apart by group, and pinned
    `devices` are numbers among all cards.
    """
    gpus = [host.gpu(index) for index in chosen.gpus]
    addresses = [gpu.pci_bus_id for gpu in gpus if gpu.vendor is Vendor.AMD and gpu.pci_bus_id]
    vulkan = used_backend(host, chosen, wish) is Backend.VULKAN
    if not vulkan or wish.devices is not None or len(addresses) < len(gpus):
        return ()
    return tuple(addresses)


def _ours(host: Host, model: ModelSpec, chosen: Candidate, wish: Wish) -> Iterator[Setting]:
    if wish.devices is None:
        yield from _devices(host, chosen, used_backend(host, chosen, wish))
    if chosen.runtime in GGML_RUNTIMES:
        return
    if chosen.runtime == "vllm" and used_backend(host, chosen, wish) is Backend.CUDA:
        # On by default since FlashInfer is one of vLLM's requirements (0.33.0): it is compiled by
        # nvcc, which took more than a minute on 16 cores and which such a host need not have.
        why = "FlashInfer's sampler would be compiled with nvcc at the first start"
        yield Setting("VLLM_USE_FLASHINFER_SAMPLER", "0", why)
    if chosen.pipeline_parallel_size > 1 and chosen.layers is not None:
        yield from _partition(model, chosen, chosen.layers)
    if chosen.tensor_parallel_size > 1:
        yield from _peer_access(host, chosen)
    if chosen.tensor_parallel_size * chosen.pipeline_parallel_size > 1:
        yield from _fine_grained(host, chosen)


def _partition(model: ModelSpec, chosen: Candidate, layers: tuple[int, ...]) -> Iterator[Setting]:
    """Blocks per stage, where the runtime would count otherwise by itself."""
    value = ",".join(str(n) for n in layers)
    why = "blocks per stage, so that every card's memory is used"
    if chosen.runtime == "sglang":
        yield Setting("SGLANG_PP_LAYER_PARTITION", value, why)
    elif layers != even(model.num_hidden_layers, chosen.pipeline_parallel_size):
        yield Setting("VLLM_PP_LAYER_PARTITION", value, why)


def _devices(host: Host, chosen: Candidate, backend: Backend) -> Iterator[Setting]:
    """The cards that CUDA or HIP shows to the process; Vulkan shows what it can open.

    ROCR_VISIBLE_DEVICES is never set: it would renumber what HIP_VISIBLE_DEVICES counts.
    """
    value = ",".join(str(index) for index in chosen.gpus)
    why = "the planned cards, in the planned order"
    if backend is Backend.VULKAN:
        return
    if backend is Backend.HIP:
        # vLLM raises at import when HIP_ and CUDA_VISIBLE_DEVICES differ: exactly one is set.
        numbers = ",".join(str(hip_number(host, index)) for index in chosen.gpus)
        yield Setting("HIP_VISIBLE_DEVICES", numbers, f"{why}, as HIP numbers them")
        return
    yield Setting(
        "CUDA_DEVICE_ORDER", "PCI_BUS_ID", "indices mean the same as in nvidia-smi (NVML)"
    )
    yield Setting("CUDA_VISIBLE_DEVICES", value, why)


def hip_number(host: Host, index: int) -> int:
    """The number HIP knows a card by; where KFD did not tell, its place among the AMD cards."""
    known = host.gpu(index).hip_index
    if known is not None:
        return known
    return sum(gpu.vendor is Vendor.AMD and gpu.index < index for gpu in host.gpus)


def granted(host: Host, gpus: tuple[int, ...]) -> bool:
    """True when the driver grants peer reads between some pair of the cards."""
    pairs = (host.pair(a, b) for a, b in combinations(gpus, 2))
    return any(pair is not None and pair.p2p_read is P2p.OK for pair in pairs)


def doubtful(host: Host, gpus: tuple[int, ...]) -> bool:
    """True when peer access is granted over PCIe inside a virtual machine.

    A hypervisor's clique asserts peer access without proof; on a studied host the bandwidth test
    passed while every peer path was a mirror and collectives hung (NVIDIA/nccl #2335).
    """
    virtual = host.virtualization not in (None, "", "none")
    return virtual and granted(host, gpus) and not bonded(host, gpus)


def _peer_access(host: Host, chosen: Candidate) -> Iterator[Setting]:
    if doubtful(host, chosen.gpus):
        why = "peer access over PCIe in a virtual machine is granted without proof"
        yield Setting("NCCL_P2P_DISABLE", "1", why)
    elif chosen.runtime == "vllm" and granted(host, chosen.gpus) and not bonded(host, chosen.gpus):
        why = "vLLM tests peer transfers once instead of trusting the driver's grant"
        yield Setting("VLLM_SKIP_P2P_CHECK", "0", why)


def _fine_grained(host: Host, chosen: Candidate) -> Iterator[Setting]:
    """RCCL over PCIe needs it where cards can read each other ("RCCL usage tips": large BARs)."""
    gpus = [host.gpu(index) for index in chosen.gpus]
    able = all(gpu.vendor is Vendor.AMD and gpu.resizable_bar for gpu in gpus)
    if able and not bonded(host, chosen.gpus) and not doubtful(host, chosen.gpus):
        why = "lets RCCL use peer access between cards on PCIe"
        yield Setting("HSA_FORCE_FINE_GRAIN_PCIE", "1", why)
