"""Bring the files of a model: `multigpu-host.pyz fetch --spec FILE`.

The spec is JSON: {"schema", "directory", "stamp", "hub": origin that may see the token or null,
"allow_http", "files": [{"path", "url", "size_bytes", "sha256" or "blob_id"}]}. A token is read from
the credential `hf_token` (systemd's LoadCredential=). Nothing has its final name before its hash is
right, and the stamp is written last; killed at any moment, the next run goes on.

Exit status: 0 complete, 1 refused (one line, also in status.json), 2 wrong usage, 75 interrupted.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import fcntl
import json
import os
import signal
import sys
import threading
import time
from typing import Any, Dict, List, Optional

from multigpu.host.fetch_disk import write
from multigpu.host.fetch_file import Stopped, Transfer, Wanted
from multigpu.host.fetch_http import Client, Refused
from multigpu.host.fetch_report import Report, size

SCHEMA = 1
AT_A_TIME = 4
RESERVE_BYTES = 256 << 20
"""Left free on the disk, which others write to as well."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".h5", ".msgpack")
"""Formats that can run code when they are loaded, and those nobody here loads; never fetched."""
INTERRUPTED = 75
CREDENTIAL = "hf_token"


def main(argv: List[str]) -> int:
    """Fetch what the spec says. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="fetch", allow_abbrev=False)
    parser.add_argument("--spec", required=True)
    with open(parser.parse_args(argv).spec, encoding="utf-8") as file:
        spec = json.load(file)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    os.umask(0o022)
    try:
        return run(spec, token(os.environ.get("CREDENTIALS_DIRECTORY")), stop)
    except Stopped:
        print("interrupted; what is there stays for the next run", flush=True)
        return INTERRUPTED


def token(directory: Optional[str]) -> Optional[str]:
    """The hub's token from systemd's credentials; None when the unit has none."""
    path = os.path.join(directory or "", CREDENTIAL)
    if not directory or not os.path.exists(path):
        return None
    with open(path, encoding="ascii", errors="strict") as file:
        return file.read().strip() or None


def run(spec: Dict[str, Any], secret: Optional[str], stop: threading.Event) -> int:
    """The whole fetch in the directory of the spec. Raises Stopped."""
    directory = str(spec["directory"])
    files = [Wanted(entry, directory) for entry in spec["files"]]
    report = Report(directory, sum(file.size_bytes for file in files))
    try:
        check(spec, files)
        lock = locked(directory)
        try:
            return _fetch(spec, files, report, secret, stop)
        finally:
            os.close(lock)
    except (Refused, OSError) as error:
        reason = " ".join(str(error).split())
        report.failed(reason)
        print(f"multigpu: {reason}", file=sys.stderr, flush=True)
        return 1


def _fetch(
    spec: Dict[str, Any],
    files: List[Wanted],
    report: Report,
    secret: Optional[str],
    stop: threading.Event,
) -> int:
    started, stamp = time.monotonic(), os.path.join(str(spec["directory"]), str(spec["stamp"]))
    if os.path.exists(stamp):
        os.unlink(stamp)  # somebody saw that a file is not as stamped
    room(str(spec["directory"]), files)
    client = Client(spec.get("hub"), secret, bool(spec.get("allow_http")))
    transfer_all(files, client, report, stop)
    hashes = {f.name: {"size_bytes": f.size_bytes, **_hash(f)} for f in files}
    write(stamp, json.dumps({"schema": SCHEMA, "files": hashes}, sort_keys=True) + "\n")
    report.complete()
    total, took = size(report.total), time.monotonic() - started
    print(f"complete: {len(files)} files, {total}, verified in {took:.0f} s", flush=True)
    return 0


def _hash(file: Wanted) -> Dict[str, Any]:
    return {"sha256": file.sha256} if file.sha256 is not None else {"blob_id": file.blob_id}


def transfer_all(
    files: List[Wanted], client: Client, report: Report, stop: threading.Event
) -> None:
    """Several files at a time; the first that is refused ends the others. Raises its Refused."""
    failed: List[BaseException] = []

    def one(file: Wanted) -> None:
        transfer = Transfer(
            file, client, lambda n: report.gained(n, file.name, transfer.receiving), stop
        )
        try:
            transfer.run()
        except Stopped:
            pass
        except BaseException as error:
            failed.append(error)
            stop.set()

    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(one, files))
    if failed:
        raise failed[0]
    if stop.is_set():
        raise Stopped()


def check(spec: Dict[str, Any], files: List[Wanted]) -> None:
    """Nothing outside the directory, nothing unverified, no pickles. Raises Refused."""
    for file in files:
        parts = file.name.split("/")
        if not file.name or any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise Refused(f"{file.name!r} is no path below the model's directory")
        if file.name.lower().endswith(PICKLES):
            raise Refused(f"{file.name} may run code when it is loaded: it is never fetched")
        if not file.sha256 and not file.blob_id:
            raise Refused(f"{file.name} has no hash in the spec: it could not be verified")
    if len({file.path for file in files}) != len(files):
        raise Refused("the spec names a file twice")
    if not os.path.isdir(str(spec["directory"])):
        raise Refused(f"{spec['directory']} is not there; do: run deploys/serve.py again")


def locked(directory: str) -> int:
    """One fetch into a directory at a time. Raises Refused when another one runs."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise Refused(f"another fetch into {directory} runs; do: wait for it") from None
    return descriptor


def room(directory: str, files: List[Wanted]) -> None:
    """Refuse before anything is fetched when it would not fit. Raises Refused."""
    needed = sum(max(0, file.size_bytes - there(file)) for file in files)
    found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    if needed and needed + RESERVE_BYTES > free:
        raise Refused(
            f"no space: {size(needed)} are to come, {size(free)} are free in {directory} and "
            f"{size(RESERVE_BYTES)} of them stay so; do: make room, or give model as a path on "
            "another disk"
        )


def there(file: Wanted) -> int:
    """Bytes of a file that lie on the disk already, whole or in part."""
    for path in (file.path, file.partial):
        try:
            return os.lstat(path).st_size
        except OSError:
            continue
    return 0
