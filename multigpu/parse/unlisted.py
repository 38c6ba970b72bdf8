"""Cards that PCI shows and the driver does not list, and why the driver's list is not whole."""

from __future__ import annotations

import re
from collections.abc import Iterable

from multigpu.hardware import Gpu
from multigpu.parse import pci
from multigpu.parse.nvidia_smi.card import Query
from multigpu.parse.nvidia_smi.lost import read_refusals
from multigpu.parse.pci.cards import PCI_ONLY
from multigpu.parse.shape import Tool

NOT_GIVEN = f"{PCI_ONLY}: nvidia-smi's output was not given"


def unlisted(
    on_bus: tuple[pci.Device, ...], listed: Query, query: Tool, partial: bool
) -> tuple[Gpu, ...]:
    """Cards on PCI that the driver does not list, each with the reason as far as it is known.

    `partial`: what a person saved; that the driver's list is not among it is no fault of a card.
    """
    seen = {gpu.pci_bus_id for gpu in listed.gpus}
    if None in seen:  # a list without addresses (nvidia-smi -L): nothing can be told apart
        return ()
    refused = read_refusals(query.stdout + "\n" + query.stderr)
    unasked = partial and query.missing and not listed.gpus
    return tuple(
        Gpu(
            index=0,
            name=product(device.name),
            pci_bus_id=device.address,
            error=_why_unlisted(device, listed, query, refused, unasked),
        )
        for device in on_bus
        if device.address not in seen
    )


def product(name: str | None) -> str | None:
    """`GeForce RTX 3090` of lspci's `NVIDIA Corporation GA102 [GeForce RTX 3090]`, else None."""
    match = re.search(r"\[([^\[\]]{2,80})\](?!.*\[)", name or "")
    named = match is not None and not re.fullmatch(r"[0-9a-f]{4}(:[0-9a-f]{4})?", match[1])
    return match[1] if match and named else None


def _why_unlisted(
    device: pci.Device, listed: Query, query: Tool, refused: dict[str, str], unasked: bool
) -> str:
    if device.address in refused:
        return f"the driver has no handle of it: {refused[device.address]}"
    if device.dead:
        return "it does not answer on PCI"
    if device.driver not in ("nvidia", None):
        return f"bound to the kernel driver {device.driver}, not to nvidia"
    if unasked:
        return NOT_GIVEN
    if listed.gpus:
        return "on PCI, but nvidia-smi does not list it"
    return f"the driver does not answer: {_short(query)}"


def _short(query: Tool) -> str:
    """Why there is no list of cards, in a few words."""
    if query.missing:
        return "nvidia-smi is not installed"
    return "nvidia-smi timed out" if query.timed_out else query.said.split(". ")[0]


def problems(
    query: Tool, listed: Query, on_bus: tuple[pci.Device, ...], captured: dict[str, object]
) -> Iterable[str]:
    """What keeps the driver's list of cards from being whole: found, needed, what to do."""
    cards = len(on_bus)
    if query.missing and captured.get("partial") is True:
        return
    if not on_bus and not listed.gpus and query.missing:
        yield (
            "no GPU found: PCI shows no NVIDIA or AMD card and nvidia-smi is not installed; "
            "needed: at least one card; do: check power cables and slots, then `lspci -nn`"
        )
    elif query.missing and (cards or listed.gpus):
        yield (
            f"nvidia-smi is not installed, but PCI shows {cards} NVIDIA card(s); needed: the "
            "NVIDIA driver with its tools; do: install the distribution's driver package and reboot"
        )
    elif query.timed_out:
        after = f"{query.seconds:.0f} s" if query.seconds else "its time"
        yield (
            f"nvidia-smi gave no answer within {after}; needed: a driver that answers; do: look "
            "for NVRM Xid lines in `journalctl -k`, then reboot"
        )
    elif not query.missing and not query.ok and not _asked_singly(query, listed):
        ended = "could not be started" if query.rc is None else f"ended with status {query.rc}"
        yield (
            f'nvidia-smi {ended}: "{query.said}"; needed: a driver that answers; do: {_cure(query)}'
        )
    elif query.ok and not listed.whole:
        yield (
            "nvidia-smi -q -x printed no whole document; needed: its XML; do: run it on the host "
            "and look at its end"
        )


def _asked_singly(query: Tool, listed: Query) -> bool:
    """One card without a handle ended the whole query, and the others answered when asked alone.

    The row of that card says it then.
    """
    return bool(listed.gpus) and "device handle" in query.stdout + query.stderr


def _cure(query: Tool) -> str:
    """What to do about a failure that nvidia-smi names."""
    said = query.stdout + query.stderr
    if "communicate with the NVIDIA driver" in said:
        return (
            "`modprobe nvidia` and read its message; after a kernel update the module has to be "
            "built for the running kernel (`dkms status`)"
        )
    if "version mismatch" in said:
        return "reboot: the loaded module is older or newer than the libraries after an update"
    if "No devices were found" in said:
        return "look for NVRM lines in `journalctl -k`: the driver refused the cards it saw"
    if "device handle" in said:
        return "look for NVRM Xid lines in `journalctl -k` for the card that is lost, then reboot"
    return "run `nvidia-smi` on the host and look for NVRM lines in `journalctl -k`"
