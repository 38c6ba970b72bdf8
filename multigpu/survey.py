"""The screen that answers "what do I really have": cards, their connections, and what to mind.

Plain text of 80 to 120 columns that survives a log file. Every caution says what was found, what it
costs and what to do: `!` for what harms or limits, `·` for what is good to know. A machine without
the former is told so; what was not seen is said last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations

from multigpu.cautions import TENANT_MIB, Caution, Severity, vram_in_use_mib, warnings
from multigpu.hardware import Host, P2p, Vendor
from multigpu.mix import Mix, mix
from multigpu.parse.system import is_container, is_virtual_machine
from multigpu.screen.cards import card_lines
from multigpu.screen.pairs import island_lines, pair_lines, peer_access_lines
from multigpu.screen.text import NARROWEST, WIDEST, printable, wrapped
from multigpu.screen.unseen import unseen

__all__ = ["COLUMNS", "Caution", "survey", "warnings"]

COLUMNS = 80
# What boards say that were not given a name.
PLACEHOLDERS = {
    *("System Product Name", "To Be Filled By O.E.M.", "To be filled by O.E.M."),
    *("Default string", "Not Specified", "Unknown"),
}


def survey(host: Host, columns: int = COLUMNS) -> str:
    """The whole screen, ending in a newline; no line is longer than `columns` (40 to 120)."""
    columns = min(max(columns, NARROWEST), WIDEST)
    found = warnings(host)
    lines = [
        *_header(host, columns),
        *card_lines(host, columns),
        *_left_out(host, columns),
        *pair_lines(host, columns),
        *island_lines(host, columns),
        *peer_access_lines(host, columns),
        *_setup(host, columns),
    ]
    if host.usable and all(caution.severity is Severity.NOTE for caution in found):
        lines += wrapped("  ok ", _all_well(host), columns)
    lines += [line for caution in found for line in _caution_lines(caution, columns)]
    lines += _unseen(host, columns)
    return "\n".join(line.rstrip() for line in lines) + "\n"


# --- header -----------------------------------------------------------------------------------


def _header(host: Host, columns: int) -> list[str]:
    """Name, count and mix to the left, driver and machine to the right; two lines when too long."""
    left = f"{printable(host.name)} · {_count(host)}" + (" · SIMULATED" if host.simulated else "")
    right = " · ".join(printable(part) for part in _versions(host))
    system = wrapped("  ", " · ".join(_system(host)), columns)
    if len(left) + 2 + len(right) > columns:
        return [*wrapped("", left, columns), *wrapped("  ", right, columns), *system]
    return [left + right.rjust(columns - len(left)), *system]


def _versions(host: Host) -> Iterator[str]:
    # Cards that answer have one, whatever was seen of it.
    known = host.usable or host.partial
    amd = bool(host.gpus) and all(gpu.vendor is Vendor.AMD for gpu in host.gpus)
    if amd and known and not host.rocm:
        yield "ROCm ?"
    elif host.driver or not host.rocm:
        yield f"driver {host.driver or '?'}" if host.driver or known else "no driver"
    if host.cuda:
        yield f"CUDA {host.cuda}"
    if host.rocm:
        yield f"ROCm {host.rocm}"
    yield _machine(host.virtualization)


def _machine(virtualization: str | None) -> str:
    if virtualization is None:
        return "virtualization unknown"
    if virtualization == "none":
        return "bare metal"
    kind = "container" if is_container(virtualization) else "virtual machine"
    return f"{kind} ({virtualization})"


def _system(host: Host) -> list[str]:
    """Operating system, processors, memory and disk, as far as they are known."""
    words = [
        host.os,
        host.cpus and f"{host.cpus} CPUs",
        host.memory_mib and f"{host.memory_mib / 1024:.0f} GiB RAM",
        host.disk_free_mib is not None and f"{host.disk_free_mib / 1024:.0f} GiB disk free",
    ]
    return [word for word in words if word and isinstance(word, str)]


def _count(host: Host) -> str:
    """`2 GPUs, mixed by memory`, `2 GPUs, 1 usable`, `no GPU`."""
    count, usable = len(host.gpus), len(host.usable)
    if count == 0:
        return "no GPU seen" if host.partial else "no GPU"
    if usable < count:
        alike = f", {mix(host.usable)}" if usable > 1 else ""
        return f"{count} GPU{'' if count == 1 else 's'}, {usable or 'none'} usable{alike}"
    return "1 GPU" if mix(host.gpus) is Mix.SINGLE else f"{count} GPUs, {mix(host.gpus)}"


# --- below the cards ----------------------------------------------------------------------------


def _left_out(host: Host, columns: int) -> list[str]:
    """Display functions that are no cards to plan with, each with the reason."""
    return [
        line
        for out in host.left_out
        for line in wrapped(
            "  - ", f"{out.name or 'display'} {out.pci_bus_id or ''}: {out.reason}", columns
        )
    ]


def _setup(host: Host, columns: int) -> list[str]:
    """What has no column at every width: product, NUMA, ECC, kernel module, IOMMU, NICs."""
    ecc = [gpu.index for gpu in host.usable if gpu.ecc]
    module = {"NVIDIA": "closed"}.get(host.module_license or "", "open")
    nodes = host.numa_nodes or 1
    words = [
        host.product if host.product and host.product not in PLACEHOLDERS else "",
        f"{nodes} NUMA nodes" if nodes > 1 else "",
        f"ECC on {'all cards' if len(ecc) == len(host.usable) else _indices(ecc)}" if ecc else "",
        f"{module} kernel module" if host.module_license else "",
        f"IOMMU {host.iommu}" if host.iommu else "",
        f"{len(host.nics)} NIC{'' if len(host.nics) == 1 else 's'}" if host.nics else "",
    ]
    shown = " · ".join(word for word in words if word)
    return wrapped("  ", shown, columns) if shown and host.gpus else []


def _indices(indices: Iterable[int]) -> str:
    return "GPU " + ", ".join(map(str, indices))


# --- cautions -----------------------------------------------------------------------------------


def _caution_lines(caution: Caution, columns: int) -> Iterator[str]:
    mark = "·" if caution.severity is Severity.NOTE else "!"
    yield from wrapped(f"  {mark} ", caution.found, columns)
    if caution.needed:
        yield from wrapped("    needed ", caution.needed, columns)
    if caution.costs:
        yield from wrapped("    costs  ", caution.costs, columns)
    if caution.do:
        yield from wrapped("    do     ", caution.do, columns)


def _all_well(host: Host) -> str:
    """The sentence of a healthy machine: only what was really looked at."""
    gpus = host.usable
    pairs = [host.pair(a.index, b.index) for a, b in combinations(gpus, 2)]
    ports = not is_virtual_machine(host.virtualization)
    checked = [
        ("every card answers", True),
        ("all lanes are up", ports and all(g.pcie.width_current is not None for g in gpus)),
        ("power limits at default", all(g.power_limit_default_w is not None for g in gpus)),
        (
            f"no other process holds {TENANT_MIB} MiB of VRAM",
            all(vram_in_use_mib(g) is not None for g in gpus),
        ),
        (
            "P2P granted (a grant, not yet a proof)",
            bool(pairs) and all(pair and pair.p2p_read is P2p.OK for pair in pairs),
        ),
    ]
    return ", ".join(words for words, looked_at in checked if looked_at) or "nothing to mind"


def _unseen(host: Host, columns: int) -> list[str]:
    missing = unseen(host)
    return wrapped("  not seen: ", "; ".join(missing), columns) if missing else []
