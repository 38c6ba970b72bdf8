"""Secrets that systemd gave this process (systemd.exec(5), LoadCredential=), for its child only.

An engine may print what it was given (SGLang 0.5.23 logs its arguments, the API key among them), so
its output goes through `mask`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import threading
from typing import IO, Dict, List, Protocol

HIDDEN = b"(hidden)"
CHUNK_BYTES = 65536
CONFIG_FILE = "secrets.yaml"


def read(name: str) -> str:
    """A credential of this unit, without the end of its line. Raises OSError or ValueError."""
    with open(os.path.join(os.environ.get("CREDENTIALS_DIRECTORY", "/nowhere"), name), "rb") as f:
        return line(f.read())


def line(content: bytes) -> str:
    """The one line that a secret is. Raises ValueError, which does not repeat it."""
    try:
        text = content.decode("ascii").strip()
    except UnicodeDecodeError:
        raise ValueError("a secret is not of ASCII characters") from None
    if not text or len(text.splitlines()) > 1:
        raise ValueError("a secret must be one line")
    return text


def bearer(secret: str) -> Dict[str, str]:
    """The HTTP header that shows an API key."""
    return {"Authorization": f"Bearer {secret}"}


def write_config(values: Dict[str, str]) -> str:
    """A YAML file in $RUNTIME_DIRECTORY that this user alone may read; returns its path.

    Text in JSON's quotes is YAML, too. Raises OSError when it cannot be written.
    """
    path = os.path.join(os.environ.get("RUNTIME_DIRECTORY", "/nowhere").split(":")[0], CONFIG_FILE)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as file:
        file.writelines(f"{key}: {json.dumps(value)}\n" for key, value in values.items())
    return path


class Target(Protocol):
    """Where masked output goes."""

    def write(self, data: bytes, /) -> object:
        """Take some."""

    def flush(self) -> object:
        """Pass it on."""


class Masked:
    """Copies a stream to another one with every secret replaced, until it ends."""

    def __init__(self, source: IO[bytes], target: Target, secrets: List[str]) -> None:
        self.source, self.target = source, target
        # Longer ones first: one secret may be the begin of another.
        self.secrets = sorted({s.encode() for s in secrets}, key=len, reverse=True)
        self.thread = threading.Thread(target=self.copy, daemon=True)
        self.thread.start()

    def copy(self) -> None:
        """Until the end; what cannot be written is dropped, so that nobody waits for us."""
        held = b""
        while True:
            chunk = os.read(self.source.fileno(), CHUNK_BYTES)
            held = mask(held + chunk, self.secrets)
            keep = 0 if not chunk else begun(held, self.secrets)
            with contextlib.suppress(OSError, ValueError):
                self.target.write(held[: len(held) - keep])
                self.target.flush()
            held = held[len(held) - keep :]
            if not chunk:
                return

    def finish(self, timeout_s: float) -> None:
        """Wait for what is still under way: processes that were left behind may hold the stream."""
        self.thread.join(timeout_s)


def mask(data: bytes, secrets: List[bytes]) -> bytes:
    """The data without the secrets."""
    for secret in secrets:
        data = data.replace(secret, HIDDEN)
    return data


def begun(data: bytes, secrets: List[bytes]) -> int:
    """How many bytes at the end of the data may be the begin of a secret that is still to come."""
    longest = min(len(data), max((len(s) for s in secrets), default=1) - 1)
    tails = range(longest, 0, -1)
    return next((n for n in tails if any(s.startswith(data[-n:]) for s in secrets)), 0)


def options(parser: argparse.ArgumentParser) -> None:
    """How credentials of the unit reach the engine; all name the credential, none holds it."""
    parser.add_argument(
        "--secret",
        metavar="[VARIABLE=]CREDENTIAL",
        help="set it in the engine's environment; without a variable only its output is masked",
        action="append",
        default=[],
    )
    parser.add_argument(
        "--secret-config",
        metavar="KEY=CREDENTIAL",
        help=f"write it into {CONFIG_FILE} in the runtime directory",
        action="append",
        default=[],
    )
    parser.add_argument("--bearer", metavar="CREDENTIAL", help="API key for the health URL")


class Secrets:
    """The engine's secrets, read once. Raises OSError or ValueError."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        variables = [word.rpartition("=")[::2] for word in chosen.secret]
        keys = [word.rpartition("=")[::2] for word in chosen.secret_config]
        named = {name: read(name) for _, name in (*variables, *keys)}
        self.values: List[str] = list(named.values())
        self.environment = {variable: named[name] for variable, name in variables if variable}
        if keys:
            write_config({key: named[name] for key, name in keys})
        self.headers = bearer(read(chosen.bearer)) if chosen.bearer else None

    def start(self, argv: List[str], environment: Dict[str, str]) -> subprocess.Popen[bytes]:
        """The engine; what it prints comes to us, to be masked and to be remembered."""
        environment = {**environment, **self.environment}
        pipe, out = subprocess.PIPE, subprocess.STDOUT
        return subprocess.Popen(argv, env=environment, stdout=pipe, stderr=out)

    def masked(self, child: subprocess.Popen[bytes], target: Target) -> Masked:
        """Passes on what the engine prints, without the secrets."""
        assert child.stdout is not None
        return Masked(child.stdout, target, self.values)
