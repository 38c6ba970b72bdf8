"""Who else is on the cards: processes that hold VRAM, and a desktop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from multigpu.cautions.caution import TENANT_MIB, Caution, are, indices, names
from multigpu.hardware import Gpu, GpuProcess, Host

# Display servers and compositors, as nvidia-smi names their processes.
DESKTOP = {
    *("Xorg", "X", "Xwayland", "gnome-shell", "kwin_x11", "kwin_wayland", "plasmashell", "sway"),
    *("Hyprland", "cinnamon", "xfwm4", "mutter", "cosmic-comp", "weston", "gnome-session-binary"),
}


def program(process: GpuProcess) -> str:
    """The program's file name: `Xorg` of `/usr/lib/xorg/Xorg`."""
    words = (process.name or "").split("/")[-1].split(" ")
    return words[0] or f"pid {process.pid}"


def _tenants(host: Host) -> Iterator[Caution]:
    """VRAM that others hold; processes of our own units are no tenants."""
    for gpu in host.usable:
        others = [p for p in gpu.processes if not (p.unit or "").startswith("multigpu-")]
        held = sum(process.used_memory_mib or 0 for process in others)
        if others and held >= TENANT_MIB:
            yield Caution(
                "vram-in-use",
                f"GPU {gpu.index}: other processes hold {held} MiB: {_listed(others)}",
                "this much less for weights and KV cache",
                _evict(others),
                needed="a card that nothing else uses",
                gpus=(gpu.index,),
            )
        elif not gpu.processes and _unnamed(gpu) >= TENANT_MIB:
            yield Caution(
                "vram-in-use",
                f"GPU {gpu.index}: {_unnamed(gpu)} MiB are in use by processes that the driver "
                "does not name",
                "this much less for weights and KV cache",
                "run the survey as root; a container's processes show on its host only",
                needed="a card that nothing else uses",
                gpus=(gpu.index,),
            )


def _listed(processes: Sequence[GpuProcess]) -> str:
    """The largest three, by program, with their unit."""
    ranked = sorted(processes, key=lambda p: -(p.used_memory_mib or 0))
    words = [_with_unit(p) for p in ranked[:3]]
    more = f" and {len(ranked) - 3} more" if len(ranked) > 3 else ""
    return ", ".join(words) + more


def _with_unit(process: GpuProcess) -> str:
    unit = f" ({process.unit})" if process.unit else ""
    return f"{program(process)}{unit} {process.used_memory_mib or '?'}"


def _evict(processes: Sequence[GpuProcess]) -> str:
    units = [p.unit for p in processes if (p.unit or "").endswith(".service")]
    if units:
        known = " ".join(dict.fromkeys(unit for unit in units if unit))
        return f"`systemctl disable --now {known}` if they may go, else the plan uses what is free"
    return "stop them if they may go, else the plan uses what is free"


def _unnamed(gpu: Gpu) -> int:
    """MiB in use that no listed process explains."""
    return vram_in_use_mib(gpu) or 0


def vram_in_use_mib(gpu: Gpu) -> int | None:
    """Without what the driver keeps for itself, where that is told apart; None when not seen."""
    if gpu.memory_mib is None or gpu.memory_free_mib is None or gpu.memory_reserved_mib is None:
        return gpu.memory_used_mib
    return gpu.memory_mib - gpu.memory_free_mib - gpu.memory_reserved_mib


def _desktop(host: Host) -> Iterator[Caution]:
    """A screen on a card that computes; a display that shows nothing is normal."""
    shown = [gpu for gpu in host.usable if gpu.display_attached and _desktop_programs(gpu)]
    if shown:
        cards = indices(shown)
        programs = dict.fromkeys(name for gpu in shown for name in _desktop_programs(gpu))
        yield Caution(
            "display-attached",
            f"{names(cards)} {are(cards, 'draws', 'draw')} a desktop ({', '.join(programs)})",
            "the VRAM it holds changes with every window, and long kernels make the screen stall",
            "move the monitor to the integrated graphics or the card that serves nothing, or boot "
            "without a desktop: `systemctl set-default multi-user.target`",
            needed="a desktop on no card that serves",
            gpus=cards,
        )


def _desktop_programs(gpu: Gpu) -> list[str]:
    return [name for name in map(program, gpu.processes) if name in DESKTOP]


RULES = (_tenants, _desktop)
