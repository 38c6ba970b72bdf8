"""The cards of a host as vLLM counts them: what it may take of each, and its defaults there.

Like cards with the same free memory are one object, so that what is worked out for one of them
holds for all. Kept with the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from math import ceil, floor

from multigpu.hardware import Gpu, Host, Vendor
from multigpu.memo import memo
from multigpu.memory import FREE_MARGIN_MIB, Room, room
from multigpu.plan import Wish
from multigpu.runtimes.vllm_release import RENDERED, batched_tokens


@dataclass(frozen=True, eq=False)
class Card:
    """`gpu` is one of the cards it stands for.

    `fraction` is the largest `--gpu-memory-utilization`, up to vLLM's own 0.92, with which vLLM
    starts: it refuses when less than that is free. `batch` are the tokens of a step vLLM takes by
    itself where this is an engine's first card. `kind` is what resident weights depend on.
    `other_mib` are whole MiB that others hold. Of one fraction cards of one `size`, of any hosts,
    hold the same.
    """

    gpu: Gpu
    room: Room
    fraction: float
    batch: int
    kind: tuple[bool, tuple[int, int] | None]
    other_mib: float
    size: int


def cards(host: Host, wish: Wish) -> dict[int, Card]:
    """By NVML index."""
    known = memo(host)
    key = ("vllm-cards", wish.name)
    found: dict[int, Card] | None = known.get(key)
    if found is None:
        alike: dict[object, Card] = {}
        found = known[key] = {gpu.index: _card(gpu, wish, alike) for gpu in host.gpus}
    return found


def _card(gpu: Gpu, wish: Wish, alike: dict[object, Card]) -> Card:
    here = room(gpu, wish)
    kind = (gpu.vendor is Vendor.AMD, gpu.compute_capability)
    key = (here, gpu.memory_mib, gpu.name, kind)
    if key not in alike:
        share = floor((here.free_mib - FREE_MARGIN_MIB) / here.total_mib * 100) / 100
        other = float(ceil(here.other_mib))
        fraction = max(0.01, min(RENDERED.gpu_memory_utilization, share))
        size = _size(kind, here.total_mib)
        alike[key] = Card(gpu, here, fraction, batched_tokens(gpu, {}), kind, other, size)
    return alike[key]


@lru_cache(maxsize=4096)
def _size(kind: tuple[bool, tuple[int, int] | None], total_mib: float) -> int:
    """A number of its own for each."""
    return next(_NUMBERS)


_NUMBERS = count()
