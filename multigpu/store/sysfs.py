"""A copied sysfs tree, in a folder or a tar archive, as the `pci` section of a capture.

Nothing is unpacked and no link is followed: names inside an archive are only looked at, so that
neither `../` nor a loop of links leads anywhere.
"""

from __future__ import annotations

import lzma
import os
import re
import stat
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from multigpu.errors import CaptureError

ADDRESS = re.compile(r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$", re.ASCII)
# The files of a device that multigpu.parse.pci reads.
FILES = frozenset(
    {
        *("vendor", "device", "class", "subsystem_vendor", "subsystem_device", "numa_node"),
        *("current_link_speed", "current_link_width", "max_link_speed", "max_link_width"),
        *("local_cpulist", "resource", "resource1_resize"),
        *("aer_dev_correctable", "aer_dev_fatal", "aer_dev_nonfatal"),
    }
)
LARGEST_FILE_BYTES = 1 << 16
MOST_ENTRIES = 2_000_000

Section = list[dict[str, str | None]]
T = TypeVar("T")


@dataclass
class Found:
    """One device while the tree is walked: the port above, and what its files say."""

    parent: str | None = None
    driver: str | None = None
    files: dict[str, str] = field(default_factory=dict)


def pci_section(path: Path) -> Section:
    """Every PCI device of the tree, by address, as the probe reports one.

    Raises CaptureError when there is no such tree or the archive cannot be read.
    """
    devices: dict[str, Found] = {}
    try:
        entries = _folder(path) if path.is_dir() else _archive(path)
        for names, content, target in _bounded(entries, path):
            _take(devices, names, content, target)
    except (OSError, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise CaptureError(f"{path.name}: cannot be read as a sysfs tree: {error}") from error
    if not devices:
        raise CaptureError(
            f"{path.name}: no PCI device in it; needed: a copy of /sys/devices or of "
            "/sys/bus/pci/devices; do: take it with tar on the host"
        )
    return [_entry(name, devices[name]) for name in sorted(devices)]


def _bounded(entries: Iterator[T], path: Path) -> Iterator[T]:
    """The entries; raises CaptureError when they are more than any sysfs has."""
    for count, entry in enumerate(entries):
        if count > MOST_ENTRIES:
            raise CaptureError(f"{path.name}: more than {MOST_ENTRIES} entries; no sysfs tree")
        yield entry


def sections(path: Path) -> dict[str, object]:
    """What a folder or archive holds of sysfs, as parts of a capture: `pci`, `kfd`; often nothing.

    Raises CaptureError when an archive cannot be read.
    """
    found: dict[str, object] = {}
    kfd = kfd_section(path)
    if kfd:
        found["kfd"] = kfd
    try:
        found["pci"] = pci_section(path)
    except CaptureError:
        if not kfd and not path.is_dir():
            raise
    return found


def kfd_section(path: Path) -> dict[str, str]:
    """KFD's topology, below `nodes/`: relative path -> text."""
    try:
        texts = list(_kfd_folder(path) if path.is_dir() else _kfd_archive(path))
    except (OSError, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise CaptureError(f"{path.name}: cannot be read as a sysfs tree: {error}") from error
    return {match[1]: text.decode("utf-8", "backslashreplace") for match, text in texts}


KFD_FILE = re.compile(
    r"(?:^|/)nodes/(\d{1,4}/(?:properties|gpu_id|name|(?:io_links|p2p_links|mem_banks)/\d{1,4}/properties))$",
    re.ASCII,
)


def _kfd_folder(path: Path) -> Iterator[tuple[re.Match[str], bytes]]:
    for file in sorted(path.glob("**/nodes/**/*")):
        match = KFD_FILE.search(file.as_posix())
        content = _content(file) if match else None
        if match and content is not None:
            yield match, content


def _kfd_archive(path: Path) -> Iterator[tuple[re.Match[str], bytes]]:
    with tarfile.open(path, "r:*") as archive:
        for member in _bounded(iter(archive), path):
            match = KFD_FILE.search(member.name)
            if match and member.isfile() and member.size <= LARGEST_FILE_BYTES:
                stream = archive.extractfile(member)
                yield match, stream.read() if stream else b""


def _take(
    devices: dict[str, Found], names: tuple[str, ...], content: bytes | None, target: str | None
) -> None:
    """One entry: a file of a device, or its link `driver`. `names` are the parts of its path."""
    *above, name = names
    if not above or not ADDRESS.match(above[-1]):
        return
    device = devices.setdefault(above[-1], Found())
    if len(above) > 1 and ADDRESS.match(above[-2]):
        device.parent = above[-2]
    if name == "driver" and target:
        device.driver = target.rstrip("/").rpartition("/")[2] or None
    elif content is not None:
        device.files[name] = content.decode("utf-8", "backslashreplace").rstrip("\n")


def _entry(name: str, device: Found) -> dict[str, str | None]:
    files = {file: device.files.get(file) for file in sorted(FILES)}
    return {"address": name, "parent": device.parent, "driver": device.driver, **files}


Entry = tuple[tuple[str, ...], bytes | None, str | None]


def _archive(path: Path) -> Iterator[Entry]:
    """Parts of the path, content of a small file that matters, target of a link."""
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            names = tuple(part for part in member.name.split("/") if part not in ("", "."))
            if ".." in names or not names:
                continue
            wanted = member.isfile() and names[-1] in FILES and member.size <= LARGEST_FILE_BYTES
            stream = archive.extractfile(member) if wanted and _of_device(names) else None
            yield names, stream.read() if stream else None, member.linkname or None


def _folder(path: Path) -> Iterator[Entry]:
    """The same of a folder; of a whole sysfs only its devices."""
    tops = [top for top in (path / "sys/devices", path / "devices") if top.is_dir()]
    for base, _, files in os.walk(tops[0] if tops else path, followlinks=False):
        names = Path(base).parts
        if not _of_device((*names, "")):
            continue
        for name in (*files, "driver"):
            file = Path(base, name)
            yield (*names, name), _content(file) if name in FILES else None, _target(file)


def _of_device(names: tuple[str, ...]) -> bool:
    return len(names) > 1 and ADDRESS.match(names[-2]) is not None


def _content(file: Path) -> bytes | None:
    """A regular file as far as it is small; sysfs says 4096 of every file's size."""
    try:
        if not stat.S_ISREG(file.lstat().st_mode):
            return None
        with file.open("rb") as stream:
            return stream.read(LARGEST_FILE_BYTES)
    except OSError:
        return None


def _target(file: Path) -> str | None:
    return os.readlink(file) if file.is_symlink() else None
