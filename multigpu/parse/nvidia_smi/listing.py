"""Reader of `nvidia-smi -L`: a line for every card, and under it one for every MIG device."""

from __future__ import annotations

import re
from dataclasses import replace

from multigpu.hardware import Gpu, MigDevice
from multigpu.parse.nvidia_smi.architectures import compute_capability
from multigpu.parse.nvidia_smi.card import Query
from multigpu.parse.nvidia_smi.health import LOST
from multigpu.parse.nvidia_smi.lost import HANDLE, with_refused
from multigpu.parse.reading import Kind, Lines, Reading
from multigpu.parse.shape import text as valid
from multigpu.parse.shape import word

LONGEST = 300
CARD = re.compile(r"^\s*GPU (\d{1,3}): (.{1,200}) \(UUID: ([^()]{1,100})\)\s*$", re.ASCII)
# Drivers before 470 wrote `MIG-GPU-<uuid>/<GPU instance>/<compute instance>`.
SLICE = re.compile(
    r"^\s*MIG (\d[\w.+]{1,30}) +Device +(\d{1,3}): \(UUID: ([^()]{1,120})\)\s*$", re.ASCII
)
# `nvidia-smi nvlink -s` heads its links with the same line.
LINKS = re.compile(r"^\s*Link \d|NVLink", re.MULTILINE | re.IGNORECASE)


def read_list(text: str) -> Reading[Query]:
    """The cards in `nvidia-smi -L`: index, name and uuid; every other line is unread."""
    lines = Lines(text)
    gpus: list[Gpu] = []
    slices: list[list[MigDevice]] = []
    for index, line in lines:
        if len(line) > LONGEST:
            continue
        if card := CARD.match(line):
            gpus.append(_card(card))
            slices.append([])
        elif gpus and (part := SLICE.match(line)):
            slices[-1].append(MigDevice(int(part[2]), part[1], valid(word(part[3]))))
        elif not HANDLE.search(line):
            continue
        lines.mark(index)
    cards = tuple(map(_with_slices, gpus, slices))
    query = Query(gpus=cards, whole=bool(gpus))
    return lines.reading(with_refused(query, text, numbered=True))


def _card(card: re.Match[str]) -> Gpu:
    lost = LOST.search(card[2])
    name = valid(word(card[2])) if not lost else None
    return Gpu(
        index=int(card[1]),
        uuid=valid(word(card[3])),
        name=name,
        compute_capability=compute_capability(None, name),
        error=lost[0] if lost else None,
    )


def _with_slices(gpu: Gpu, slices: list[MigDevice]) -> Gpu:
    """A card with MIG devices is in MIG mode."""
    return replace(gpu, mig=True, mig_devices=tuple(slices)) if slices else gpu


def recognise(text: str) -> float:
    """Lines for cards and nothing of NVLink; surest when there is no other line."""
    head = text[:100_000]
    if "(UUID: " not in head:
        return 0.0
    lines = [line for line in head.split("\n") if line.strip() and len(line) <= LONGEST]
    ours = sum(bool(CARD.match(line) or SLICE.match(line)) for line in lines)
    if not ours or LINKS.search(head):
        return 0.0
    return 0.9 if ours == len(lines) else 0.6


KINDS: tuple[Kind, ...] = (
    Kind("nvidia-smi-list", "nvidia-smi's list of cards", recognise, read_list, "nvidia-smi -L"),
)
