"""The whole lab: prepare what is cached, bring hosts up, take everything away again."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from . import base_image, cgroups, gpus, hosts, machines, needs, network
from .cache import cached, discard, key, locked
from .hosts import LabHost
from .settings import HERE, LabError, LabNotPossible, Settings
from .shell import run, run_visibly
from .wheel import wheel

TINY_MODEL = HERE / "tiny_model.py"


@dataclass(frozen=True)
class Prepared:
    """Files in the cache that a lab is made of."""

    image: Path
    wheel: Path
    model: Path


def prepare(settings: Settings) -> Prepared:
    """Install what is missing here and build what is not in the cache, saying what takes long."""
    needs.possible()
    needs.install()
    prepared = Prepared(base_image.image(settings), wheel(settings), tiny_model(settings))
    gpus.nvml_library(settings)
    gpus.pynvml(settings)
    return prepared


def tiny_model(settings: Settings) -> Path:
    """A directory with `tiny.gguf` and `hf/`."""
    path = settings.cache / f"tiny-model-{key(TINY_MODEL.read_bytes())}"
    return cached(path, lambda partial: run_visibly("model", sys.executable, TINY_MODEL, partial))


def plan_hosts(settings: Settings, wanted: list[str]) -> list[LabHost]:
    """Rows for `MACHINE` or `NAME=MACHINE` words; a machine asked for twice gets -2 behind it."""
    seen: Counter[str] = Counter()
    rows = []
    for number, word in enumerate(wanted, start=1):
        name, _, machine = word.rpartition("=")
        machines.load(machine)
        seen[name or machine] += 1
        count = seen[name or machine]
        title = (name or machine) + (f"-{count}" if count > 1 else "")
        rows.append(hosts.row(settings, number, title, machine))
    return rows


def read_hosts(settings: Settings) -> list[LabHost]:
    """Rows of the lab that is up; empty when none is."""
    if not settings.hosts_file.exists():
        return []
    return [LabHost(**row) for row in json.loads(settings.hosts_file.read_text())]


def up(settings: Settings, wanted: list[str]) -> list[LabHost]:
    """Bring the wanted hosts up; nothing is done when exactly these are up.

    Raises LabError when other hosts are up. Leaves nothing behind when it fails.
    """
    needs.possible()
    rows = plan_hosts(settings, wanted)
    with locked(lock_file(settings)):
        if running := read_hosts(settings):
            if running == rows:
                return rows
            names = " ".join(row.name for row in running)
            raise LabError(f"a lab with other hosts is up ({names}); take it down first")
        remove_everything(settings)
        prepared = prepare(settings)
        try:
            start(settings, prepared, rows)
        except BaseException:
            remove_everything(settings)
            raise
    return rows


def lock_file(settings: Settings) -> Path:
    return settings.cache / f".{settings.prefix}.lock"


def start(settings: Settings, prepared: Prepared, rows: list[LabHost]) -> None:
    settings.state.mkdir(mode=0o755, exist_ok=True)
    work = make_work(settings)
    (work / "image").symlink_to(prepared.image)
    gpus.layer(settings, prepared.wheel, work / "layer")
    write_access(settings, rows)
    link_artefacts(settings, prepared)
    network.create(settings)
    each(rows, lambda row: start_host(settings, work, row))
    text = json.dumps([asdict(row) for row in rows], indent=1)
    partial = settings.hosts_file.with_suffix(".partial")
    partial.write_text(text + "\n")
    os.replace(partial, settings.hosts_file)


def start_host(settings: Settings, work: Path, row: LabHost) -> None:
    network.add_host(settings, row.name, row.ip)
    hosts.create_disk(settings, work, row)
    hosts.boot(settings, work, row.name)
    hosts.wait_ready(settings, work, row.name)


def renew(settings: Settings, row: LabHost) -> None:
    """Give one host a fresh disk and boot it again: everything done to it is gone."""
    work = find_work(settings)
    hosts.stop(settings, work, row.name)
    hosts.remove_disk(work, row.name)
    hosts.create_disk(settings, work, row)
    hosts.boot(settings, work, row.name)
    hosts.wait_ready(settings, work, row.name)


def each(rows: list[LabHost], action: Callable[[LabHost], None]) -> None:
    with ThreadPoolExecutor(max_workers=max(1, len(rows))) as pool:
        list(pool.map(action, rows))


def make_work(settings: Settings) -> Path:
    """The first place where an overlay can be mounted; the last candidate is a tmpfs."""
    *disks, memory = settings.works
    for path in disks:
        path.mkdir(parents=True, exist_ok=True)
        if overlay_works(settings, path):
            return path
        discard(path)
    memory.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", settings.prefix, memory)
    if not overlay_works(settings, memory):
        raise LabNotPossible("no overlay file system can be mounted here")
    return memory


def overlay_works(settings: Settings, path: Path) -> bool:
    """True when a file can be replaced through an overlay whose upper layer lies in `path`."""
    probe = path / "probe"
    for name in ("lower", "upper", "work", "root"):
        (probe / name).mkdir(parents=True, exist_ok=True)
    options = ",".join(f"{kind}dir={probe / kind}" for kind in ("lower", "upper", "work"))
    try:
        run("mount", "-t", "overlay", settings.prefix, "-o", options, probe / "root")
        run("umount", probe / "root")
        return True
    except LabError:
        return False
    finally:
        discard(probe)


def find_work(settings: Settings) -> Path:
    """Where the running lab's disks are. Raises LabError when no lab is up."""
    for path in settings.works:
        if (path / "hosts").is_dir():
            return path
    raise LabError("no lab is up; start one with `python tests/lab/lab.py up`")


def write_access(settings: Settings, rows: list[LabHost]) -> None:
    """Keys, known hosts and an ssh configuration."""
    keygen(settings.key)
    lines, stanzas = [], [ssh_defaults(settings)]
    for row in rows:
        host_key = hosts.host_key_file(settings, row.name)
        keygen(host_key)
        public = " ".join(host_key.with_suffix(".pub").read_text().split()[:2])
        lines.append(f"{row.name},{row.ip} {public}\n")
        stanzas.append(f"Host {row.name}\n  HostName {row.ip}\n")
    settings.known_hosts.write_text("".join(lines))
    settings.ssh_config.write_text("".join(stanzas))


def keygen(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "multigpu lab", "-f", path)


def ssh_defaults(settings: Settings) -> str:
    return (
        f"IdentityFile {settings.key}\nUserKnownHostsFile {settings.known_hosts}\n"
        f"StrictHostKeyChecking yes\nUser ops\nLogLevel ERROR\nConnectTimeout 2\n"
        "IdentitiesOnly yes\nBatchMode yes\n"
    )


def link_artefacts(settings: Settings, prepared: Prepared) -> None:
    """Names below the checkout for the model and the wheel, as inventories/lab.py uses them."""
    models, wheels = settings.state / "models", settings.state / "wheels"
    models.mkdir(exist_ok=True)
    wheels.mkdir(exist_ok=True)
    (models / "tiny.gguf").symlink_to(prepared.model / "tiny.gguf")
    (models / "tiny-hf").symlink_to(prepared.model / "hf")
    (wheels / prepared.wheel.name).symlink_to(prepared.wheel)


def down(settings: Settings) -> None:
    """Stop all hosts and remove everything but the cache; also after an `up` that was cut short."""
    needs.possible()
    with locked(lock_file(settings)):
        remove_everything(settings)
    lock_file(settings).unlink(missing_ok=True)


def remove_everything(settings: Settings) -> None:
    """Works from names alone, so that it needs no state that a failure may have lost."""
    known = cgroups.hosts(settings) | hosts.units(settings)
    for work in settings.works:
        stop_all(settings, work, known | {entry.name for entry in (work / "hosts").glob("*")})
    cgroups.remove_parents(settings)
    for target in mounts(settings):
        run("umount", "--lazy", target)
    network.delete(settings)
    for path in (*settings.works, settings.state):
        discard(path)


def stop_all(settings: Settings, work: Path, names: Iterable[str]) -> None:
    listed = sorted(names)
    with ThreadPoolExecutor(max_workers=max(1, len(listed))) as pool:
        list(pool.map(lambda name: hosts.stop(settings, work, name), listed))


def mounts(settings: Settings) -> list[str]:
    """Mount points of this lab, innermost first; each was mounted under the lab's name."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        source, target = line.split()[:2]
        if source == settings.prefix:
            found.append(target.replace("\\040", " "))
    return sorted(found, reverse=True)


def leftovers(settings: Settings) -> list[str]:
    """What a lab has on this machine, one line each; empty after `down`."""
    found = [f"namespace {name}" for name in network.remaining(settings)]
    found += [f"mount {target}" for target in mounts(settings)]
    found += [f"cgroup of {name}" for name in sorted(cgroups.hosts(settings))]
    found += [f"directory {path}" for path in (*settings.works, settings.state) if path.exists()]
    return found + [f"process {pid}" for pid in processes(settings)]


def processes(settings: Settings) -> list[int]:
    """Processes started for this lab on this side: nspawn and its supervisor."""
    mark = f"{settings.prefix}-".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if b"systemd-nspawn" in words and mark in words:
            found.append(int(entry.name))
    return found
