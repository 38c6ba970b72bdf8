"""Before any service: device files are there, and each service's cards are.

systemd skips a device group that /proc/devices does not list when a service starts, and a hardened
service cannot load a driver. So this runs first, as root, in the oneshot multigpu-devices.service.
For each service whose cards are all there it leaves a file in $RUNTIME_DIRECTORY, which the
service's unit asks for (AssertPathExists=): a lost card stops the services that need it and no
other.

A card is named by its UUID or, with `#` in front, by its index (nvidia-smi -L), an AMD card by its
PCI address; a path must exist.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from typing import Callable, Dict, Iterable, List, Optional, Tuple

COMMAND_TIMEOUT_S = 20.0
"""A driver whose firmware hangs (Xid 119) blocks nvidia-smi for ever."""
PAUSE_S = 2.0
PERSISTENCED = "/run/nvidia-persistenced/socket"
PCI_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
LISTED = re.compile(r"^GPU (\d+):.*\(UUID: (\S+?)\)", re.MULTILINE)


def run(argv: List[str]) -> Tuple[Optional[int], str]:
    """Exit status and everything a command said; None when it is not there or did not end."""
    try:
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=COMMAND_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return None, f"{argv[0]} did not answer within {COMMAND_TIMEOUT_S:g} s"
    except OSError as error:
        return None, f"{argv[0]}: {error.strerror}"
    return done.returncode, done.stdout.decode("utf-8", "replace")


def prepare_nvidia() -> None:
    """Load the driver and make its device files; what fails shows when the cards are counted."""
    if shutil.which("nvidia-modprobe"):
        run(["nvidia-modprobe", "-c0", "-u"])


def keep_nvidia() -> None:
    """Keep the cards initialised between processes, where no nvidia-persistenced does so."""
    if not os.path.exists(PERSISTENCED):
        run(["nvidia-smi", "-pm", "1"])


def nvidia_cards() -> Tuple[List[str], str]:
    """UUIDs and `#index` of the cards that answer, and what nvidia-smi said of the others."""
    _, said = run(["nvidia-smi", "-L"])
    found = [name for number, uuid in LISTED.findall(said) for name in (uuid, f"#{number}")]
    rest = [line.strip() for line in said.splitlines() if line.strip() and not LISTED.match(line)]
    # Slices of a card (MIG) stand below it.
    return found, " ".join(line for line in rest if not line.startswith("MIG "))


def is_device(path: str) -> bool:
    """True for a character device."""
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except OSError:
        return False


def render_node(address: str, root: str = "/") -> bool:
    """True when the driver made a render node for the card at a PCI address."""
    try:
        names = os.listdir(os.path.join(root, f"sys/bus/pci/devices/{address}/drm"))
    except OSError:
        return False
    nodes = [name for name in names if name.startswith("renderD")]
    return any(is_device(os.path.join(root, "dev/dri", name)) for name in nodes)


def missing(wanted: Iterable[str]) -> Dict[str, str]:
    """What is not there, each with what is known of it."""
    names = list(wanted)
    lost = {name: "is not there" for name in names if name[0] == "/" and not os.path.exists(name)}
    amd = [name for name in names if PCI_ADDRESS.fullmatch(name)]
    lost.update({name: "has no render node" for name in amd if not render_node(name)})
    nvidia = [name for name in names if name[0] != "/" and name not in amd]
    if nvidia:
        found, said = nvidia_cards()
        why = f"is not listed by nvidia-smi -L, which has {len(found) // 2} cards"
        why += f" and says: {said[:200]}" if said else ""
        lost.update({name: why for name in nvidia if name not in found})
    return lost


def wait(
    wanted: List[str], limit_s: float, look: Callable[[List[str]], Dict[str, str]]
) -> Dict[str, str]:
    """What is still missing after `limit_s`: at a boot the driver may load late."""
    deadline = time.monotonic() + limit_s
    lost = look(wanted)
    while lost and time.monotonic() < deadline:
        time.sleep(min(PAUSE_S, max(0.0, deadline - time.monotonic())))
        lost = look(wanted)
    return lost


def mark(directory: str, services: Dict[str, List[str]], lost: Dict[str, str]) -> List[str]:
    """A file for each service that may start; returns a line for each that may not."""
    lines = []
    for service, wanted in services.items():
        gone = [f"{name} {lost[name]}" for name in wanted if name in lost]
        if gone:
            lines.append(
                f"{service} does not start: {'; '.join(gone)}; do: look with dmesg and "
                "deploys/survey.py, reboot, or plan again without it (deploys/plan.py)"
            )
        else:
            open(os.path.join(directory, service), "w").close()
    return lines


def services_of(words: Iterable[str]) -> Dict[str, List[str]]:
    """`chat=GPU-a,GPU-b` as a mapping."""
    pairs = (word.partition("=")[::2] for word in words)
    return {name: [item for item in items.split(",") if item] for name, items in pairs}


def main(arguments: List[str]) -> int:
    """`devices [--limit-s N] SERVICE=CARD,...`: 0 when all services may start, else 1."""
    parser = argparse.ArgumentParser(prog="multigpu devices", description=__doc__)
    parser.add_argument("--limit-s", type=float, default=30, help="seconds to wait for the cards")
    parser.add_argument("services", nargs="+", metavar="SERVICE=CARD,...")
    options = parser.parse_args(arguments)
    directory = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if not directory:
        print("multigpu: RUNTIME_DIRECTORY is not set: start me as a unit", file=sys.stderr)
        return 2
    for name in os.listdir(directory):
        os.unlink(os.path.join(directory, name))
    services = services_of(options.services)
    wanted = list(dict.fromkeys(name for names in services.values() for name in names))
    nvidia = any(name[0] != "/" and not PCI_ADDRESS.fullmatch(name) for name in wanted)
    if nvidia:
        prepare_nvidia()
    lost = wait(wanted, options.limit_s, missing)
    if nvidia:
        keep_nvidia()
    lines = mark(directory, services, lost)
    for line in lines:
        print(f"multigpu: {line}", file=sys.stderr, flush=True)
    return 1 if lines else 0
