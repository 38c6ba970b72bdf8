"""Why a runtime cannot be installed on a host, said before anything is brought there.

What is unknown is never a reason: a capture of an older release does not say what tools there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from multigpu.hardware import Host, Vendor
from multigpu.install import cuda as releases
from multigpu.install.pythons import usable
from multigpu.install.recipe import PREFIX, Needs, Recipe
from multigpu.plan import Reason


def preflight(machine: Host, recipe: Recipe) -> tuple[Reason, ...]:
    """Every reason at once; none when the recipe installs nothing or everything is there."""
    if recipe.directory is None:
        return ()
    return tuple(reason for check in CHECKS for reason in check(machine, recipe.needs))


def refusal(recipe: Recipe, reasons: tuple[Reason, ...]) -> str:
    """The refusal of one recipe in one line: found, needed, what to do."""
    each = (f"{r.found}, needed: {r.needed}; do: {r.hint} [{r.rule}]" for r in reasons)
    return f"{recipe.what} cannot be installed: {' · '.join(each)}"


def _python(machine: Host, needs: Needs) -> Iterator[Reason]:
    oldest, chain = needs.python, machine.toolchain
    if oldest is None:
        return
    wanted = releases.text(oldest)
    if chain is None or not chain.pythons:
        if machine.python is not None and machine.python[:2] < oldest:
            found = f"Python {releases.text(machine.python[:2])}"
            yield Reason("python-version", found, f"{wanted} or newer", _other_python(wanted))
        return
    new_enough = [python for python in chain.pythons if python.version >= oldest]
    if not new_enough:
        newest = max(python.version for python in chain.pythons)
        found = f"Python {releases.text(newest)}"
        yield Reason("python-version", found, f"{wanted} or newer", _other_python(wanted))
    elif needs.venv and not usable(machine, oldest):
        version = releases.text(new_enough[0].version)
        found = f"Python {version} cannot make virtual environments"
        hint = f"apt-get install python{version}-venv (Debian, Ubuntu), or install uv"
        yield Reason("python-venv", found, "its module venv, or uv", hint)


def _other_python(wanted: str) -> str:
    return f"install python{wanted} or newer with its venv beside the system's own"


def _glibc(machine: Host, needs: Needs) -> Iterator[Reason]:
    found, oldest = _numbers(machine.glibc), _numbers(needs.glibc)
    if found and oldest and found < oldest:
        hint = "use a newer release of the distribution, or llama.cpp, which is built on the host"
        yield Reason("glibc", f"glibc {machine.glibc}", f"{needs.glibc} or newer", hint)


def _numbers(version: str | None) -> tuple[int, ...]:
    parts = (version or "").split(".")
    return tuple(int(p) for p in parts) if all(p.isdecimal() for p in parts) else ()


def _driver(machine: Host, needs: Needs) -> Iterator[Reason]:
    if needs.cuda is None or not any(g.vendor is Vendor.NVIDIA for g in machine.gpus):
        return
    found, oldest = releases.branch(machine.driver), releases.driver_needed(needs.cuda)
    if found is not None and oldest is not None and found < oldest:
        wanted = f"{oldest} or newer for CUDA {needs.cuda[0]}"
        hint = f"install driver {oldest} or newer, or wish a runtime_version of an older CUDA"
        yield Reason("driver-cuda", f"driver {machine.driver}", wanted, hint)


def _cards(machine: Host, needs: Needs) -> Iterator[Reason]:
    oldest = needs.compute_capability
    for gpu in machine.gpus:
        if oldest and gpu.compute_capability and gpu.compute_capability < oldest:
            found = (
                f"GPU {gpu.index} has compute capability {releases.text(gpu.compute_capability)}"
            )
            hint = "leave it out with gpus, or take llama.cpp built with CUDA 12"
            yield Reason("wheel-capability", found, f"{releases.text(oldest)} or newer", hint)


def _programs(machine: Host, needs: Needs) -> Iterator[Reason]:
    chain = machine.toolchain
    if chain is None:
        return
    there = chain.programs | chain.paths
    for what, packages in (*needs.programs, *needs.paths):
        if what not in there:
            hint = f"install {packages}, or give a wheel built elsewhere as wheel"
            yield Reason("build-tools", f"no {what} to build with", what, hint)


def _nvcc(machine: Host, needs: Needs) -> Iterator[Reason]:
    nvcc = None if machine.toolchain is None else machine.toolchain.nvcc
    if nvcc is None or not needs.nvcc_for:
        return
    found, cards = f"nvcc {releases.text(nvcc)}", needs.nvcc_for
    newer = releases.too_old_for(nvcc, cards)
    if newer is not None:
        wanted = f"{releases.text(newer)} or newer for compute capability {_list(cards)}"
        yield Reason("cuda-toolkit", found, wanted, f"install CUDA toolkit {releases.text(newer)}")
    gone = releases.dropped(nvcc, cards)
    if gone is not None:
        wanted = f"an older one: it compiles no more for compute capability {releases.text(gone)}"
        yield Reason("cuda-toolkit", found, wanted, "install CUDA toolkit 12.9")
    oldest, driver = releases.driver_needed(nvcc), releases.branch(machine.driver)
    if oldest is not None and driver is not None and driver < oldest:
        wanted = f"driver {oldest} or newer to run what it compiles (found {machine.driver})"
        yield Reason("cuda-toolkit", found, wanted, "install a newer driver or an older toolkit")


def _list(cards: tuple[tuple[int, int], ...]) -> str:
    return ", ".join(releases.text(card) for card in cards)


def _room(machine: Host, needs: Needs) -> Iterator[Reason]:
    if needs.installed_mib is None or machine.install_free_mib is None:
        return
    needed = needs.installed_mib + (needs.download_mib or 0)
    if machine.install_free_mib < needed:
        found = f"{machine.install_free_mib / 1024:.1f} GiB free at {PREFIX}"
        parts = f"{(needs.download_mib or 0) / 1024:.1f} of them downloaded"
        hint = f"make room, or mount a larger disk at {PREFIX}"
        yield Reason("install-disk", found, f"{needed / 1024:.1f} GiB, {parts}", hint)


CHECKS: tuple[Callable[[Host, Needs], Iterator[Reason]], ...] = (
    _python,
    _glibc,
    _driver,
    _cards,
    _programs,
    _nvcc,
    _room,
)
