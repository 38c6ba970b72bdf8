"""Takes fences away after saying why they are there; not while the reason still stands.

    multigpu-host.pyz unfence [--dry] host=GPU-a,GPU-b chat=GPU-a,GPU-b ...

`host` is the host's fence, with all planned cards, others those of services with theirs. A
reason stands while NVML says that a card is lost or needs a reset or a reboot, or nvidia-smi does
not list it; the kernel log tells what was, not what is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Dict, List, Optional

from multigpu.host import devices, reactions_files, reactions_need
from multigpu.host.ledger import Clock, Ledger
from multigpu.host.react import HOME
from multigpu.host.requests import line

HOST = "host"


def described(content: str) -> str:
    """What a fence says, for people."""
    try:
        found = json.loads(content)
        at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(float(found["at"])))
        words = f"{found['reason']}, {found.get('text') or ''}".rstrip(", ")
        return line(f"{words} (by {found.get('by', 'somebody')}, {at})")
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return line(content) or "it does not say why"


def standing(cards: List[str]) -> List[str]:
    """Why these cards would not work now; [] when nothing is wrong with them."""
    wanted: Dict[str, Optional[str]] = {c: None for c in cards if c[0] not in "/#"}
    seen = reactions_need.look(wanted, Ledger(), Clock.now(), xid_file=os.devnull)
    told = [need.text for need in seen.needs.values()]
    lost = devices.missing([card for card in cards if card not in seen.needs])
    return [*told, *(f"{card} {why}" for card, why in lost.items())]


def unfence(home: str, name: str, cards: List[str], dry: bool) -> bool:
    """One fence; False when it stays."""
    service = None if name == HOST else name
    content = reactions_files.read_fence(home, service)
    if content is None:
        return True
    say(f"{name} is fenced: {described(content)}")
    reasons = standing(cards)
    if reasons:
        say(f"{name} stays fenced: {'; '.join(reasons)}; do: mend that, then again")
        return False
    if not dry:
        reactions_files.remove_fence(home, service)
        say(f"{name}: the fence is gone; do: deploys/serve.py")
    return True


def say(text: str) -> None:
    """One line."""
    print(f"multigpu: {text}", file=sys.stderr, flush=True)


def main(arguments: List[str]) -> int:
    """0 when no fence is left (with --dry: none would stay), 1 when a reason still stands."""
    parser = argparse.ArgumentParser(prog="multigpu unfence", description=__doc__)
    parser.add_argument("--home", default=HOME)
    parser.add_argument("--dry", action="store_true", help="say, and leave everything")
    parser.add_argument("fences", nargs="+", metavar="host=CARD,... | SERVICE=CARD,...")
    options = parser.parse_args(arguments)
    cards = devices.services_of(options.fences)
    gone = [unfence(options.home, name, own, options.dry) for name, own in cards.items()]
    return 0 if all(gone) else 1
