"""Generations of a host's services on disk, and the journal of the transaction between two.

    /etc/multigpu/generations/state.json       which generation is in place, and what is unfinished
    /etc/multigpu/generations/<n>/             manifest.json, plan.yaml, files/<absolute path>

Root's alone, since environment files may hold a token. Every file is written beside its place and
renamed, with fsync before and after: whatever moment the power goes, it is the old or the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from typing import Any, Dict, Iterable, List, Optional

DIRECTORY = "/etc/multigpu/generations"
NEW = ".multigpu-new"
STAGED, READY, GOOD, FAILED = "staged", "ready", "good", "failed"
"""Of a generation: on disk only; its processes answered; verified; it did not come up."""

Manifest = Dict[str, Any]
State = Dict[str, Any]


class Failed(Exception):
    """One line: what was found, what to do."""


def write(path: str, content: bytes, mode: int = 0o600) -> None:
    """Put a file in its place, whole, root's."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + NEW, "wb") as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(path + NEW, path)
    settle(os.path.dirname(path))


def settle(directory: str) -> None:
    """Names of a directory reach the disk."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: str) -> None:
    """Take a file away; nothing when it is not there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        settle(os.path.dirname(path))


def read(path: str) -> Optional[bytes]:
    """A file's content, None when it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return None


class Store:
    """The generations of one host; `root` is a directory that stands for `/` in tests."""

    def __init__(self, root: str = "") -> None:
        self.root = root.rstrip("/")
        self.directory = self.root + DIRECTORY

    def at(self, path: str) -> str:
        """Where a path of the host lies."""
        return self.root + path

    def state(self) -> State:
        """What holds; of a host without generations, and where the file is damaged, nothing."""
        empty: State = {"current": None, "generations": {}, "unfinished": None, "failed": None}
        try:
            found = json.loads(read(f"{self.directory}/state.json") or b"{}")
        except ValueError:
            return empty
        return {**empty, **found} if isinstance(found, dict) else empty

    def save(self, state: State) -> None:
        """Keep what holds."""
        text = json.dumps({"schema": 1, **state}, indent=1, sort_keys=True) + "\n"
        write(f"{self.directory}/state.json", text.encode())

    def manifest(self, number: Optional[int]) -> Optional[Manifest]:
        """A generation without its files' content; None when it is not whole."""
        if number is None:
            return None
        try:
            found = json.loads(read(f"{self.directory}/{number}/manifest.json") or b"")
        except ValueError:
            return None
        whole = isinstance(found, dict) and all(
            self.kept(number, file) is not None for file in found["files"]
        )
        return found if whole else None

    def kept(self, number: int, file: Dict[str, str]) -> Optional[bytes]:
        """The kept content of one file; None when it is not what was kept."""
        content = read(f"{self.directory}/{number}/files{file['path']}")
        if content is None or hashlib.sha256(content).hexdigest() != file["sha256"]:
            return None
        return content

    def keep(self, document: Manifest) -> int:
        """Keep a generation under the next number, which is returned; whole or not at all.

        `document` is the manifest with `content` in its files.
        """
        number = 1 + max(self.numbers(), default=0)
        place = f"{self.directory}/{number}"
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        os.chmod(self.directory, 0o700)
        shutil.rmtree(place + NEW, ignore_errors=True)
        files = [self.keep_file(place + NEW, file) for file in document["files"]]
        manifest = {**document, "files": files}
        plan = str(manifest.pop("plan", None) or "")
        if plan:
            write(f"{place}{NEW}/plan.yaml", plan.encode())
        text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
        write(f"{place}{NEW}/manifest.json", text.encode())
        os.rename(place + NEW, place)
        settle(self.directory)
        return number

    @staticmethod
    def keep_file(place: str, file: Dict[str, str]) -> Dict[str, str]:
        """Write one file's copy; returns its row of the manifest."""
        content = file["content"].encode()
        write(f"{place}/files{file['path']}", content)
        sha256 = hashlib.sha256(content).hexdigest()
        return {"path": file["path"], "mode": file["mode"], "sha256": sha256}

    def numbers(self) -> List[int]:
        """Generations that are kept, ascending."""
        try:
            names = os.listdir(self.directory)
        except OSError:
            return []
        return sorted(int(name) for name in names if name.isdecimal())

    def discard_but(self, wanted: Iterable[Optional[int]]) -> None:
        """Remove every other generation, from disk and from the state."""
        stay, state = set(wanted), self.state()
        state["generations"] = {
            name: row for name, row in state["generations"].items() if int(name) in stay
        }
        self.save(state)
        for number in self.numbers():
            if number not in stay:
                shutil.rmtree(f"{self.directory}/{number}", ignore_errors=True)

    def differs(self, file: Dict[str, str]) -> bool:
        """True when the file in place is another, or has another mode or owner."""
        path = self.at(file["path"])
        content = read(path)
        if content is None or hashlib.sha256(content).hexdigest() != file["sha256"]:
            return True
        found = os.stat(path)
        owner = (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid())
        return owner or (found.st_mode & 0o7777) != int(file["mode"], 8)

    def put(self, number: int, file: Dict[str, str]) -> None:
        """Put one file of a generation in place."""
        content = self.kept(number, file)
        if content is None:
            raise Failed(f"generation {number} has lost {file['path']}; do: run deploys/serve.py")
        write(self.at(file["path"]), content, int(file["mode"], 8))
