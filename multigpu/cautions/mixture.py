"""Cards that are not alike: what the mix opens and closes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from multigpu.cautions.caution import Caution, Severity, indices
from multigpu.hardware import Gpu, Host
from multigpu.mix import Mix, mix


def _mixture(host: Host) -> Iterator[Caution]:
    """One caution a host; cards whose architecture was not seen are not called different."""
    cards = host.usable
    kind = mix(cards)
    if kind is Mix.VENDOR:
        yield _vendors(cards)
    elif kind is Mix.ARCHITECTURE and all(g.compute_capability or g.gfx for g in cards):
        yield _architectures(cards)
    elif kind is Mix.MEMORY:
        yield _memory(cards)


def _vendors(cards: Sequence[Gpu]) -> Caution:
    vendors = ", ".join(
        f"{sum(g.vendor is vendor for g in cards)} of {vendor.name}"
        for vendor in dict.fromkeys(gpu.vendor for gpu in cards)
    )
    return Caution(
        "mixed-vendor",
        f"cards of two vendors: {vendors}",
        "tensor and pipeline parallel stay within one vendor: NCCL and RCCL never form one group",
        "plan one service a vendor; llama.cpp with Vulkan is the only runtime that can span both",
        needed="one vendor in a group of cards",
        gpus=indices(cards),
        severity=Severity.LIMIT,
    )


def architecture(gpu: Gpu) -> str:
    """`sm_86` or `gfx1100`; `?` when neither was seen."""
    if gpu.compute_capability:
        return "sm_{}{}".format(*gpu.compute_capability)
    return gpu.gfx or "?"


def _architectures(cards: Sequence[Gpu]) -> Caution:
    found = ", ".join(
        f"{len(same)}x {name}"
        for name, same in {
            name: [gpu for gpu in cards if architecture(gpu) == name]
            for name in map(architecture, cards)
        }.items()
    )
    return Caution(
        "mixed-architecture",
        f"cards of different architectures: {found}",
        "in one group only formats and kernels that the oldest card has (FP8 needs sm_89), at the "
        "pace of the slowest; replicas and a layer split stay open",
        "nothing to set: a plan goes by the lowest, which comes first in device order; pin `gpus` "
        "to keep to alike cards",
        needed="one architecture in a group of cards that shares every layer",
        gpus=indices(cards),
        severity=Severity.LIMIT,
    )


def _memory(cards: Sequence[Gpu]) -> Caution:
    sizes = sorted({gpu.memory_mib or 0 for gpu in cards})
    idle = sum((gpu.memory_mib or 0) - sizes[0] for gpu in cards)
    return Caution(
        "mixed-memory",
        f"cards of different memory: {', '.join(map(str, sizes))} MiB",
        f"even shares (tensor parallel) leave {idle} MiB of the larger cards unused",
        "a layer split, uneven pipeline stages or one service a card use all of it",
        needed="equal memory for even shares",
        gpus=indices(cards),
        severity=Severity.LIMIT,
    )


RULES = (_mixture,)
