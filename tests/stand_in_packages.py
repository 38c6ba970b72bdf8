"""Tiny wheels that stand in for runtimes, and an index of them that can lie, break off or refuse.

Each package is one module and one program of its name that prints its version.
"""

from __future__ import annotations

import hashlib
import threading
import zipfile
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

MODULE = """\
import sys
{body}

def main():
    if len(sys.argv) > 1:
        serve(sys.argv[1:])
    print("{name} {version}")

def serve(arguments):
    pass
"""
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
TAGS = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def make_wheel(
    directory: Path, name: str, version: str, *, filler: int = 0, module: str | None = None
) -> Path:
    """A wheel of one module; `filler` bytes that do not compress lie beside it.

    `module` is the module's whole text instead of the default one; it must have `main`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    values = {"name": name, "version": version, "body": ""}
    members = {
        f"{name}.py": (module or MODULE.format(**values)).encode(),
        f"{info}/METADATA": METADATA.format(**values).encode(),
        f"{info}/WHEEL": TAGS.encode(),
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n".encode(),
    }
    if filler:
        members[f"{name}_filler.bin"] = bytes(filler)
    record = "".join(f"{member},,\n" for member in (*members, f"{info}/RECORD"))
    path = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for member, content in {**members, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(zipfile.ZipInfo(member, (1980, 1, 1, 0, 0, 0)), content)
    return path


def lock(*wheels: Path) -> str:
    """A hashed lock of the wheels as they are now."""
    return "".join(line(wheel) for wheel in wheels)


def line(wheel: Path) -> str:
    name, version = wheel.name.split("-")[:2]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"{name}=={version} \\\n    --hash=sha256:{digest}\n"


class Index:
    """A simple repository (PEP 503) on the loopback while the context lasts.

    `truncated`: files break off half-way; `refuses`: every answer is 401, `login` (user:password)
    lets in. `asked` are the paths.
    """

    login: str | None = None

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.truncated = self.refuses = False
        self.asked: list[str] = []

    def add(self, name: str, version: str, *, filler: int = 0) -> Path:
        """Make a wheel and offer it."""
        return make_wheel(self.directory, name, version, filler=filler)

    @property
    def url(self) -> str:
        """What an operator would write as `package_index`."""
        return f"http://127.0.0.1:{self.server.server_address[1]}/simple"

    def __enter__(self) -> Index:
        handler = type("Handler", (Handler,), {"index": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    """`/simple/NAME/` lists a package's files, `/files/NAME` gives one."""

    index: Index

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self.index.asked.append(self.path)
        if self.index.refuses and not self.known():
            self.answer(401, b"login", "text/plain")
        elif self.path.startswith("/files/"):
            self.file(self.index.directory / self.path.removeprefix("/files/"))
        else:
            name = self.path.strip("/").rpartition("/")[2]
            found = sorted(self.index.directory.glob(f"{name}-*.whl"))
            links = "".join(f'<a href="/files/{path.name}">{path.name}</a>\n' for path in found)
            body = f"<!DOCTYPE html><html><body>{links}</body></html>".encode()
            self.answer(200 if found else 404, body, "text/html")

    def known(self) -> bool:
        word = b64encode((self.index.login or "").encode()).decode()
        return self.index.login is not None and self.headers["Authorization"] == f"Basic {word}"

    def do_HEAD(self) -> None:
        self.answer(405, b"", "text/plain")

    def file(self, path: Path) -> None:
        content = path.read_bytes()
        if self.index.truncated:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.answer(200, content, "application/octet-stream")

    def answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
