"""One file from a URL: resumed, verified, and under its final name only when it is whole.

What is there lies as `NAME.partial` until its hash is right; then it is written to disk, made
read-only and renamed. `NAME.partial.etag` keeps the server's strong ETag, so that a file that
changed on the server is not continued with other bytes (If-Range, RFC 9110 13.1.5).
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import re
import threading
from typing import Any, Callable, Dict, Optional

from multigpu.host.fetch_disk import opened, place, read, remove, write
from multigpu.host.fetch_http import Client, Interrupted, Refused, shown, unreached

CHUNK_BYTES = 1 << 20
TRIES, TRIES_UNREACHED = 8, 4
"""Tries in a row that bring nothing; a byte more, and counting begins anew."""
LONGEST_BACKOFF_S = 60.0
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19}|\*)")

Gained = Callable[[int], None]


class Stopped(Exception):
    """Somebody asked the program to end; what is there stays for the next run."""


class Wanted:
    """A file of the manifest: path below the directory, URL, size and one of two hashes.

    `sha256` is of the content, `blob_id` the SHA-1 that git gives a file (`blob SIZE NUL content`),
    which is what the hub tells of files that are not in LFS.
    """

    def __init__(self, entry: Dict[str, Any], directory: str) -> None:
        self.name = str(entry["path"])
        self.url = str(entry["url"])
        self.size_bytes = int(entry["size_bytes"])
        self.sha256: Optional[str] = entry.get("sha256")
        self.blob_id: Optional[str] = entry.get("blob_id")
        self.path = os.path.join(directory, *self.name.split("/"))
        self.partial = self.path + ".partial"
        self.etag_path = self.partial + ".etag"

    def hasher(self) -> Any:
        """A fresh hash of the kind that is known of this file."""
        if self.sha256 is not None:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size_bytes)

    def matches(self, hashed: Any) -> bool:
        """True when the hash is the planned one."""
        return bool(hashed.hexdigest() == (self.sha256 or self.blob_id))

    def wrong(self, hashed: Any) -> str:
        """The line about other content than planned."""
        kind = "sha256" if self.sha256 is not None else "git blob id"
        return (
            f"{self.name}: {kind} is {hashed.hexdigest()}, planned is "
            f"{self.sha256 or self.blob_id}: {shown(self.url)} does not hold the planned file; do: "
            "check sha256 and revision, then run deploys/plan.py"
        )


class Transfer:
    """Brings one file. `gained` is told each change of the bytes that are there (also negative)."""

    def __init__(
        self, wanted: Wanted, client: Client, gained: Gained, stop: threading.Event
    ) -> None:
        self.wanted, self.client, self.gained, self.stop = wanted, client, gained, stop
        self.hashed, self.offset = wanted.hasher(), 0
        self.resumed = False
        self.receiving = False

    def run(self) -> None:
        """Returns when the file is whole under its final name. Raises Refused or Stopped."""
        if self._there():
            return
        os.makedirs(os.path.dirname(self.wanted.path), mode=0o755, exist_ok=True)
        try:
            with opened(self.wanted.partial) as file:
                self._reuse(file)
                self._fill(file)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o444)
        except OSError as error:
            if error.errno in FULL:
                raise Refused(
                    f"no space left for {self.wanted.name} ({os.strerror(error.errno)}) after "
                    f"{self.offset >> 20} of {self.wanted.size_bytes >> 20} MiB; do: make room, "
                    "then run the deploy again: it goes on from there"
                ) from None
            raise
        place(self.wanted.partial, self.wanted.path)
        remove(self.wanted.etag_path)

    def _there(self) -> bool:
        """True when the final name holds the planned content; anything else under it goes away."""
        if not os.path.lexists(self.wanted.path):
            return False
        if not os.path.islink(self.wanted.path) and os.path.isfile(self.wanted.path):
            with open(self.wanted.path, "rb") as file:
                self._reuse(file)
            if self.offset == self.wanted.size_bytes and self.wanted.matches(self.hashed):
                return True
            self._forget()
        os.unlink(self.wanted.path)
        return False

    def _reuse(self, file: Any) -> None:
        """Hash what an earlier run brought; more than the planned size is none of it."""
        if os.fstat(file.fileno()).st_size > self.wanted.size_bytes:
            return
        for chunk in iter(lambda: file.read(CHUNK_BYTES), b""):
            self._take(chunk)
        self.resumed = self.offset > 0

    def _take(self, chunk: bytes) -> None:
        if self.stop.is_set():
            raise Stopped()
        self.hashed.update(chunk)
        self.offset += len(chunk)
        self.gained(len(chunk))

    def _forget(self) -> None:
        self.gained(-self.offset)
        self.hashed, self.offset = self.wanted.hasher(), 0

    def _restart(self, file: Any) -> None:
        """Begin anew, with nothing of what was there."""
        self._forget()
        self.resumed = False
        file.seek(0)
        file.truncate()

    def _fill(self, file: Any) -> None:
        """Bring the missing bytes and verify all; once anew when what was resumed was wrong."""
        if os.fstat(file.fileno()).st_size != self.offset:
            self._restart(file)
        self.receiving = True
        while True:
            self._bring(file)
            if self.wanted.matches(self.hashed):
                return
            wrong, resumed = self.wanted.wrong(self.hashed), self.resumed
            self._restart(file)
            remove(self.wanted.etag_path)
            if not resumed:
                remove(self.wanted.partial)
                raise Refused(wrong)

    def _bring(self, file: Any) -> None:
        failures = 0
        while self.offset < self.wanted.size_bytes:
            before = self.offset
            try:
                self._request(file)
                continue
            except Interrupted as error:
                failures = failures + 1 if self.offset <= before else 1
                if failures >= (TRIES if error.reached else TRIES_UNREACHED):
                    raise Refused(f"{error}, {failures} times in a row; {_reach()}") from None
                wait_s = error.wait_s
            if self.stop.wait(backoff_s(failures) if wait_s is None else wait_s):
                raise Stopped()

    def _request(self, file: Any) -> None:
        """One request, as far as it goes. Raises Interrupted when that is not to the end."""
        headers: Dict[str, str] = {}
        if self.offset:
            headers["Range"] = f"bytes={self.offset}-"
            etag = read(self.wanted.etag_path)
            headers.update({"If-Range": etag} if etag else {})
        try:
            answer = self.client.open(self.wanted.url, headers)
        except Interrupted as error:
            if str(error) == "416":  # what is there does not go with what the server has
                self._restart(file)
                remove(self.wanted.etag_path)
            raise
        with answer:
            self._begin(file, answer)
            self._copy(file, answer)
        if self.offset < self.wanted.size_bytes:
            raise Interrupted(f"{shown(self.wanted.url)} ended after {self.offset} bytes")

    def _begin(self, file: Any, answer: Any) -> None:
        """Go on where the server begins: at our offset, or at the beginning."""
        start, total = begins_at(answer)
        if total is not None and total != self.wanted.size_bytes:
            raise Refused(
                f"{shown(self.wanted.url)} has {total} bytes, planned were "
                f"{self.wanted.size_bytes}: it changed, or something on the way answers in its "
                "place; do: look at it, then run deploys/plan.py"
            )
        if start != self.offset:
            self._restart(file)
            if start:
                raise Interrupted(f"{shown(self.wanted.url)} sent another part than was asked for")
        etag = answer.headers.get("ETag") or ""
        if etag.startswith('"') and len(etag) < 500:
            write(self.wanted.etag_path, etag)
        else:
            remove(self.wanted.etag_path)

    def _copy(self, file: Any, answer: Any) -> None:
        while self.offset < self.wanted.size_bytes:
            wanted = min(CHUNK_BYTES, self.wanted.size_bytes - self.offset)
            try:
                chunk = answer.read1(wanted)  # read() waits for all of it
            except http.client.IncompleteRead as error:
                chunk = error.partial
            except (OSError, http.client.HTTPException) as error:
                raise unreached(self.wanted.url, error) from None
            if not chunk:
                return
            file.write(chunk)
            self._take(chunk)


def begins_at(answer: Any) -> Any:
    """(offset of the first byte, size of the whole file or None) of a 200 or a 206.

    Raises Refused for an encoded body, Interrupted for a 206 that does not say what part it is.
    """
    if (answer.headers.get("Content-Encoding") or "identity").lower() != "identity":
        raise Refused(f"{shown(answer.geturl())} answers with an encoded body, needed is identity")
    if answer.status != 206:
        length = answer.headers.get("Content-Length") or ""
        return 0, int(length) if re.fullmatch(r"\d{1,19}", length) else None
    match = CONTENT_RANGE.fullmatch((answer.headers.get("Content-Range") or "").strip())
    if match is None:
        return -1, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def backoff_s(failures: int) -> float:
    """1, 2, 4, ... seconds."""
    return min(2.0 ** (failures - 1), LONGEST_BACKOFF_S)


def _reach() -> str:
    return (
        "do: see whether the host has a way out (https_proxy), or download the model on the "
        "controller and give its path as model"
    )
