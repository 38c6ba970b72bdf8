"""The survey as plain values for `--json`: mappings, lists, text, numbers, true, false, null.

Keys are the field names of `multigpu.hardware` (units in the names) and stable; unknown is null.
Files and paths of a host are left out: they are managed state, not hardware.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from multigpu.as_json import as_json
from multigpu.cautions import warnings
from multigpu.fleet import NOBODY
from multigpu.hardware import Host
from multigpu.islands import islands
from multigpu.mix import mix
from multigpu.peer_access import groups, peer_access
from multigpu.screen.unseen import unseen

SCHEMA = 1
LEFT_OUT = ("files", "paths", "units", "unseen")


def survey_json(host: Host) -> dict[str, Any]:
    """The host's facts, and beside them `mix`, `islands`, `p2p`, `cautions`, `not_seen`.

    `p2p` has one entry per group of cards with the answers `driver`, `nccl`, `custom_all_reduce`.
    """
    facts = as_json(host)
    return {
        "schema": SCHEMA,
        **{key: value for key, value in facts.items() if key not in LEFT_OUT},
        "usable": [gpu.index for gpu in host.usable],
        "mix": str(mix(host.usable)) if host.usable else None,
        "islands": as_json(islands(host)),
        "p2p": as_json([peer_access(host, group) for group in groups(host)]),
        "cautions": as_json(warnings(host)),
        "not_seen": list(unseen(host)),
    }


def fleet_json(
    hosts: Iterable[Host], unreadable: Mapping[str, str] = NOBODY
) -> list[dict[str, Any]]:
    """One entry a host; one that could not be read has `name` and `error` only."""
    return [
        *map(survey_json, hosts),
        *({"schema": SCHEMA, "name": name, "error": why} for name, why in unreadable.items()),
    ]
