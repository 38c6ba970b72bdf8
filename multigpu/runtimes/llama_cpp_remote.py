"""llama.cpp's devices behind other processes (`--rpc`), one replica at a time.

A ggml-rpc-server serves one client at a time and the next one waits (tools/rpc/rpc-server.cpp:
accept, then serve until it is closed), and llama-server asks every server of `--rpc` for its
devices before it starts: a replica must know its own only.
"""

from __future__ import annotations

from collections.abc import Sequence

from multigpu.backend import REMOTE
from multigpu.plan import Plan


def own(plan: Plan, names: Sequence[str]) -> tuple[dict[str, str | None], Sequence[str]]:
    """`--rpc` of one process, and its device names as they are numbered there.

    `names` are the planned devices of this process; `RPC1` is the second server of the wish.
    """
    wished = plan.wish.flags.get("--rpc")
    if "--rpc" not in plan.wish.flags:
        return {}, names
    servers = (wished or "").split(",")
    numbers = [name.removeprefix(REMOTE) for name in names]
    known = all(number.isdecimal() and int(number) < len(servers) for number in numbers)
    if plan.chosen.replicas == 1 or not known:
        return {"--rpc": wished}, names
    value = ",".join(servers[int(number)] for number in numbers)
    return {"--rpc": value}, [f"{REMOTE}{i}" for i in range(len(names))]
