"""A runtime that PyPI has wheels of: one virtual environment from one hashed lock."""

from __future__ import annotations

from multigpu.hardware import Host
from multigpu.install import locks, sizes
from multigpu.install.cuda import OLDEST_CARD
from multigpu.install.pythons import interpreter
from multigpu.install.recipe import RUNTIMES, WHEELS, Files, Job, Needs, Recipe, Upload
from multigpu.wish_values import Wish


def python_runtime(
    name: str,
    host: Host,
    wish: Wish,
    files: Files,
    *,
    version: str,
    program: str,
    glibc: str = "2.28",
    python: tuple[int, int] = (3, 11),
) -> Recipe:
    """`program` of the release that the wish asks for, else of `version`.

    `python` and `glibc` are the oldest that the locked wheels take (their manylinux tag). Raises
    WishError when the wished version has no lock.
    """
    chosen = locks.chosen_version(name, wish, files, version)
    lock = files.requirements(f"{name}-{chosen}")
    title = f"{name}-{chosen}-{locks.short(lock)}"
    directory, path = f"{RUNTIMES}/{title}", f"{WHEELS}/{title}/requirements.txt"
    cuda = locks.cuda(lock)
    size = sizes.size(name, chosen)
    needs = Needs(
        python=python,
        glibc=glibc,
        cuda=cuda,
        compute_capability=None if cuda is None else OLDEST_CARD.get(cuda[0]),
        download_mib=size.download_mib,
        installed_mib=size.installed_mib,
        venv=True,
    )
    job = Job(directory, interpreter(host, python), (path,), needed_mib=size.disk_mib)
    return Recipe(
        f"{directory}/bin/{program}",
        directory,
        (Upload(path, content=lock.encode()),),
        what=f"{name} {chosen}",
        job=job,
        needs=needs,
        lock=lock,
    )
