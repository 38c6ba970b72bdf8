"""What NCCL and RCCL print with NCCL_DEBUG=INFO about a host's GPUs.

Formats: NCCL src/debug.cc, src/init.cc, src/transport/{p2p,shm,net}.cc, src/graph/connect.cc of
2.7 to 2.30; RCCL of ROCm 6 and 7. The job is simulated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from multigpu.hardware import Gpu
from tests.rigs.dialect import Dialect

# Pair of ranks -> transports as written, one a channel.
Ways = Mapping[tuple[int, int], tuple[str, ...]]


def bus_id(address: str) -> str:
    """One hex number of domain, bus, device and function (`busIdToInt64`)."""
    return f"{int(address.replace(':', '').replace('.', ''), 16):x}"


def release(dialect: Dialect) -> tuple[int, int]:
    """2.27 of 2.27.7."""
    major, minor = dialect.nccl.split(".")[:2]
    return int(major), int(minor)


def render(
    gpus: tuple[Gpu, ...],
    ways: Ways,
    dialect: Dialect,
    *,
    host: str = "rig-7",
    network: str = "Socket",
    warnings: Iterable[str] = (),
    overrides: Mapping[str, str] | None = None,
    channels: int = 2,
) -> str:
    """The log of a job with one process per GPU, rank n on gpus[n]."""
    body = [*_start(host, network, dialect)]
    for name, value in (overrides or {}).items():
        body.append(_info(host, 0, f"{name} set by environment to {value}."))
    body += [_warning(host, text, dialect) for text in warnings]
    body += [_init(host, gpus, rank, "START", dialect) for rank in range(len(gpus))]
    body += _graph(host, len(gpus), channels)
    for pair, written in ways.items():
        body += _channels(host, gpus, pair, written, dialect)
    body.append(_info(host, 0, _counts(channels, dialect)))
    body += [_init(host, gpus, rank, "COMPLETE", dialect) for rank in range(len(gpus))]
    return "".join(dialect.launcher + line + "\n" for line in body)


def _info(host: str, device: int, text: str) -> str:
    return f"{host}:{4000 + device}:{4100 + device} [{device}] NCCL INFO {text}"


def _start(host: str, network: str, dialect: Dialect) -> list[str]:
    lines = [_info(host, 0, "Bootstrap : Using eth0:192.0.2.7<0> (simulated)")]
    if dialect.rccl:
        lines += [
            _info(host, 0, f"RCCL version : {dialect.nccl}-HEAD:2b22ab0"),
            "HIP version  : 6.4.43482",
            "ROCm version : " + dialect.rocm,
            "Hostname     : " + host,
        ]
    elif release(dialect) < (2, 20):
        lines.append(f"NCCL version {dialect.nccl}+cuda{dialect.cuda}")
    else:
        lines.append(_info(host, 0, f"NCCL version {dialect.nccl}+cuda{dialect.cuda}"))
    lines.append(_info(host, 0, f"Using network {network}"))
    if release(dialect) >= (2, 18):
        lines.append(_info(host, 0, "NVLS multicast support is not available on dev 0"))
    return lines


def _warning(host: str, text: str, dialect: Dialect) -> str:
    """Old releases begin a warning with an empty line, new ones with a time."""
    if release(dialect) < (2, 24):
        return f"\n{host}:4000:4100 [0] misc/socket.cc:57 NCCL WARN {text}"
    return f"[2026-05-05 06:16:47] {host}:4000:4100 [0] plugin/net.cc:334 NCCL WARN {text}"


def _init(host: str, gpus: tuple[Gpu, ...], rank: int, state: str, dialect: Dialect) -> str:
    bus = bus_id(gpus[rank].pci_bus_id or "0000:00:00.0")
    if release(dialect) < (2, 16):
        where = f"cudaDev {rank} busId {bus}"
        return _info(
            host, rank, f"comm 0x14db rank {rank} nranks {len(gpus)} {where} - Init {state}"
        )
    call = "ncclCommInitRank comm" if release(dialect) < (2, 20) else "ncclCommInitRankConfig comm"
    where = f"cudaDev {rank} nvmlDev {gpus[rank].index} busId {bus} commId 0x54fe282d"
    return _info(host, rank, f"{call} 0x55b6 rank {rank} nranks {len(gpus)} {where} - Init {state}")


def _graph(host: str, ranks: int, channels: int) -> list[str]:
    order = "   ".join(str(rank) for rank in range(ranks))
    lines = [
        _info(host, 0, f"Channel {channel:02}/{channels:02} :    {order}")
        for channel in range(channels)
    ]
    trees = " ".join(f"[{channel}] -1/-1/-1->0->1" for channel in range(channels))
    return [*lines, _info(host, 0, "Trees " + trees)]


def _channels(
    host: str,
    gpus: tuple[Gpu, ...],
    pair: tuple[int, int],
    written: Iterable[str],
    dialect: Dialect,
) -> list[str]:
    """Both directions of every channel; what stands in brackets changed in 2.19."""
    lines = []
    for channel, way in enumerate(written):
        for a, b in (pair, pair[::-1]):
            marks = ("", "/0")[release(dialect) >= (2, 12)]
            ends = f"{_end(gpus, a, dialect)} -> {_end(gpus, b, dialect)}"
            role = " [send]" if way.startswith("NET") else ""
            tail = f" comm 0x55b6aa nRanks {len(gpus):02}" if dialect.rccl else ""
            text = f"Channel {channel:02}{marks} : {ends}{role} via {way}{tail}"
            lines.append(_info(host, a, text))
    return lines


def _end(gpus: tuple[Gpu, ...], rank: int, dialect: Dialect) -> str:
    return f"{rank}[{device(gpus, rank, dialect)}]"


def device(gpus: tuple[Gpu, ...], rank: int, dialect: Dialect) -> str:
    """What a channel line puts in brackets behind the rank."""
    if release(dialect) < (2, 19):
        return bus_id(gpus[rank].pci_bus_id or "0000:00:00.0")
    return str(gpus[rank].index)


def _counts(channels: int, dialect: Dialect) -> str:
    if release(dialect) < (2, 18):
        return f"{channels} coll channels, 16 p2p channels, 4 p2p channels per peer"
    return (
        f"{channels} coll channels, {channels} collnet channels, 0 nvls channels, "
        "16 p2p channels, 4 p2p channels per peer"
    )
