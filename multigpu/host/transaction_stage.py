"""Refuse text that systemd or HAProxy would refuse, before anything of it is in place.

An unknown key is only a warning to systemd-analyze (rc 0), so any line on stderr refuses. Units are
verified under their final names, in a directory of their own.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from typing import Any, Dict, List

from multigpu.host.transaction_store import Failed, Manifest, Store, read

HAPROXY = "/usr/sbin/haproxy"
LIMIT_S = 60


def check_text(store: Store, document: Manifest) -> None:
    """Raises Failed with the tool's words about the first file that it refuses.

    Only what is not in place already is looked at.
    """
    new = [f for f in document["files"] if read(store.at(f["path"])) != f["content"].encode()]
    with tempfile.TemporaryDirectory() as directory:
        for file in new:
            with open(placed(directory, file), "w", encoding="utf-8") as stream:
                os.fchmod(stream.fileno(), 0o600)
                stream.write(file["content"])
        for file in new:
            if file["path"].endswith(".service"):
                unit(placed(directory, file))
            elif file["path"].endswith(".cfg"):
                endpoint(placed(directory, file))


def placed(directory: str, file: Dict[str, Any]) -> str:
    """Where a file is looked at."""
    return os.path.join(directory, os.path.basename(file["path"]))


def unit(path: str) -> None:
    """`systemd-analyze verify` has nothing to say."""
    argv = ["systemd-analyze", "verify", "--recursive-errors=no", path]
    status, said = run(argv)
    if status or said:
        raise Failed(f"systemd-analyze verify refuses {os.path.basename(path)}: {said}")


def endpoint(path: str) -> None:
    """`haproxy -c` takes it, with the secrets as they will be there."""
    status, said = run([HAPROXY, "-c", "-f", path], SECRETS="/etc/multigpu/credentials")
    if status:
        raise Failed(f"haproxy -c refuses {os.path.basename(path)}: {said}")


def run(argv: List[str], **environment: str) -> "tuple[int, str]":
    """Exit status, and what was said: on stderr alone, unless the tool failed."""
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=LIMIT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{argv[0]} gives no answer: {error}") from None
    said = done.stderr + (done.stdout if done.returncode else b"")
    return done.returncode, said.decode("utf-8", "replace").strip()
