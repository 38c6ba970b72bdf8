"""nvidia-smi's default table of a made-up host, in the widths of its release; it says so above."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from multigpu.hardware import Gpu, Host
from tests.rigs.dialect import Dialect
from tests.rigs.nvidia_nodes import NA, nvml_bus_id
from tests.rigs.nvidia_smi import UNKNOWN, Busy

ERROR = "ERR!"


@dataclass(frozen=True)
class Layout:
    """Widths between the bars of the three columns, and of the MIG table's memory column."""

    columns: tuple[int, int, int]
    name: int
    memory: int

    @property
    def inside(self) -> int:
        """Between the outer bars."""
        return sum(self.columns) + 2


OLD = Layout((31, 22, 22), 18, 22)
MIDDLE = Layout((41, 22, 22), 28, 32)
NEW = Layout((41, 24, 22), 28, 34)


def layout(dialect: Dialect) -> Layout:
    """Wider since 530, and once more since 550."""
    return NEW if dialect.branch >= 550 else MIDDLE if dialect.branch >= 530 else OLD


def table(host: Host, dialect: Dialect, busy: Busy = UNKNOWN) -> str:
    """Cards, MIG devices where there are any, processes; pasted copies have a margin."""
    wide = layout(dialect)
    lines = [
        f"# {dialect.remark}",
        f"{dialect.now:%c}       ",
        _rule((wide.inside,)),
        _bar(_versions(dialect, wide)),
        _rule(wide.columns),
        *_headings(dialect, wide),
        _rule(wide.columns, "="),
    ]
    for gpu in host.gpus:
        lines += [*_card(gpu, dialect, wide, busy.get(gpu.index)), _rule(wide.columns)]
    slices = [(gpu.index, device) for gpu in host.gpus for device in gpu.mig_devices]
    if slices:
        lines += ["", _rule((wide.inside,)), _bar(" MIG devices:".ljust(wide.inside))]
        lines.append(_rule((18, wide.memory, 11, 23)))
        lines += [line for index, device in slices for line in _slice(index, device, wide)]
    lines += ["", _rule((wide.inside,)), _bar(" Processes:".ljust(wide.inside))]
    lines += [*_processes(host, dialect, wide), _rule((wide.inside,))]
    return "\n".join(f"    {line}" if dialect.pasted else line for line in lines) + "\n"


def _versions(dialect: Dialect, wide: Layout) -> str:
    driver, cuda = ("KMD", "CUDA UMD") if dialect.branch >= 610 else ("Driver", "CUDA")
    text = f" NVIDIA-SMI {dialect.driver:<16} {driver} Version: {dialect.driver:<12}"
    return f"{text} {cuda} Version: {dialect.cuda}".ljust(wide.inside)


def _headings(dialect: Dialect, wide: Layout) -> Iterator[str]:
    """Two lines, and the MIG mode's since 450."""
    first, second, third = wide.columns
    left = (" GPU  Name", " Fan  Temp  Perf" if wide is OLD else " Fan  Temp   Perf")
    end = "" if wide is OLD else " "
    yield _bar(
        left[0] + f"Persistence-M{end}".rjust(first - len(left[0])),
        " Bus-Id" + "Disp.A ".rjust(second - 7),
        " Volatile Uncorr. ECC ",
    )
    yield _bar(
        left[1] + f"Pwr:Usage/Cap{end}".rjust(first - len(left[1])),
        "Memory-Usage ".rjust(second),
        " GPU-Util  Compute M. ",
    )
    if dialect.branch >= 450:
        yield _bar(" " * first, " " * second, "MIG M. ".rjust(third))


def _rule(columns: tuple[int, ...], line: str = "-") -> str:
    return "+" + "+".join(line * width for width in columns) + "+"


def _bar(*cells: str) -> str:
    return "|" + "|".join(cells) + "|"


def _card(gpu: Gpu, dialect: Dialect, wide: Layout, busy: int | None) -> Iterator[str]:
    """Two lines; a third for the MIG mode since 450."""
    first, second, third = wide.columns
    name = gpu.name or ERROR
    shown = name if len(name) <= wide.name - 4 else name[: wide.name - 7] + "..."
    yield _bar(
        f" {gpu.index:>3}  {shown:<{wide.name - 2}} {_on(gpu.persistence_mode):<4}".ljust(first),
        f"{nvml_bus_id(gpu.pci_bus_id)} {_on(gpu.display_attached)} ".rjust(second),
        f"{_ecc(gpu)} ".rjust(third),
    )
    draw, limit = _watts(gpu.power_draw_w, gpu), _watts(gpu.power_limit_w, gpu)
    power = f"{draw:>4} / {limit:>5} "
    heat = f"{gpu.temperature_c}C" if gpu.temperature_c is not None else _none(gpu)
    state = gpu.performance_state or _none(gpu)
    left = f" {_none(gpu):<4} {heat:>4}  {state:>4} "
    yield _bar(
        left + power.rjust(first - len(left)),
        f"{_memory(gpu)} ".rjust(second),
        f"{_none(gpu) if busy is None else f'{busy}%':>8} {_mode(gpu):>12} ".rjust(third),
    )
    if dialect.branch >= 450:
        mig = {None: NA, True: "Enabled", False: "Disabled"}[gpu.mig]
        yield _bar(" " * first, " " * second, f"{mig} ".rjust(third))


def _none(gpu: Gpu) -> str:
    """What stands for a value that is not there: ERR! on a card that stopped answering."""
    return ERROR if gpu.error else NA


def _on(value: bool | None) -> str:
    return NA if value is None else "On" if value else "Off"


def _ecc(gpu: Gpu) -> str:
    """Uncorrected errors with ECC on; On in MIG mode."""
    if gpu.ecc and not gpu.mig:
        return str(gpu.ecc_uncorrected or 0)
    return ERROR if gpu.error else _on(gpu.ecc)


def _watts(value: float | None, gpu: Gpu) -> str:
    return f"{int(value)}W" if value is not None else _none(gpu)


def _memory(gpu: Gpu) -> str:
    if gpu.memory_mib is None:
        return "Not Supported         " if gpu.unified_memory else NA
    return f"{gpu.memory_used_mib}MiB / {gpu.memory_mib:>5}MiB"


def _mode(gpu: Gpu) -> str:
    return "E. Process" if gpu.compute_mode == "Exclusive_Process" else gpu.compute_mode or NA


def _slice(gpu: int, device: object, wide: Layout) -> Iterator[str]:
    index, memory = getattr(device, "index", 0), getattr(device, "memory_mib", 0)
    ids = f" {gpu:>2}  {index + 7:>3}   0 {index:>3}  ".ljust(18)
    load = " 14      0 ", "  1   0    0    0    0 "
    yield _bar(ids, f"{5:>4}MiB / {memory:>5}MiB  ".rjust(wide.memory), *load)
    yield _bar(" " * 18, f"{0:>4}MiB / {8191:>5}MiB  ".rjust(wide.memory), " " * 11, " " * 23)
    yield _rule((18, wide.memory, 11, 23))


def _processes(host: Host, dialect: Dialect, wide: Layout) -> Iterator[str]:
    """Instance ids since 450; long names lose their beginning."""
    held = [(gpu.index, process) for gpu in host.gpus for process in gpu.processes]
    yield _bar("=" * wide.inside)
    if not held:
        yield _bar("  No running processes found".ljust(wide.inside))
    instances = "   N/A  N/A " if dialect.branch >= 450 else "  "
    for index, process in held:
        start = f" {index:>4}{instances}{process.pid:>10}      C   {process.name or ''}"
        memory = NA if process.used_memory_mib is None else f"{process.used_memory_mib}MiB"
        yield _bar(start + f"{memory} ".rjust(wide.inside - len(start)))
