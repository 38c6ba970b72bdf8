"""The lab's only way out: a small forwarding proxy inside its network, to package registries alone.

It lets through the hosts that pip and apt are configured for on this machine, and nothing else; the
same thing an operator behind a proxy names as `https_proxy`. It also serves files of a directory to
the hosts, as an index or a mirror of the operator's own would.

    with Uplink(settings) as uplink:
        uplink.trust(work, "matched")      # this machine's certificate authorities
        https_proxy = uplink.url
"""

from __future__ import annotations

import ctypes
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from . import network
from .settings import LabError, Settings

CLONE_NEWNET = 0x40000000  # <sched.h>
PORT = 3128
DEFAULT_INDEX = ("pypi.org", "files.pythonhosted.org")
APT = ("sources.list", "sources.list.d/*.list", "sources.list.d/*.sources")
URL = re.compile(r"https?://\S+")
BLOCK = 1 << 16
GUEST_BUNDLE = "etc/ssl/certs/ca-certificates.crt"


def allowed() -> frozenset[str]:
    """Hosts of the package registries that this machine's own pip and apt are set up for."""
    return frozenset((*DEFAULT_INDEX, *pip_hosts(), *apt_hosts()))


def pip_hosts() -> Iterator[str]:
    command = (sys.executable, "-m", "pip", "config", "list")
    said = subprocess.run(command, capture_output=True, text=True).stdout
    for line in said.splitlines():
        if "index-url" in line.partition("=")[0]:
            yield from hosts_in(line)


def apt_hosts() -> Iterator[str]:
    for pattern in APT:
        for path in Path("/etc/apt").glob(pattern):
            for line in path.read_text(errors="replace").splitlines():
                if not line.lstrip().startswith("#"):
                    yield from hosts_in(line)


def hosts_in(text: str) -> Iterator[str]:
    for url in URL.findall(text):
        if host := urlsplit(url).hostname:
            yield host


def listening(settings: Settings, port: int) -> socket.socket:
    """A socket that listens in the lab's network. Whoever accepts may live in another one.

    Raises LabError when the lab's network is not there.
    """
    found: list[socket.socket | OSError] = []

    def enter_and_listen() -> None:
        try:
            with network.path(settings).open() as namespace:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(namespace.fileno(), CLONE_NEWNET):  # of this thread alone
                    raise OSError(ctypes.get_errno(), "setns")
            found.append(socket.create_server((network.CONTROLLER, port)))
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=enter_and_listen)
    thread.start()
    thread.join()
    if isinstance(found[0], OSError):
        raise LabError(f"nothing can listen in the lab's network: {found[0]}")
    return found[0]


class Server(ThreadingHTTPServer):
    """An HTTP server on a socket that is there already."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(listener.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A guest that was stopped in the middle of a download is no error of ours."""


class Proxy(SimpleHTTPRequestHandler):
    """CONNECT and absolute GET to the allowed hosts; other paths are files of `directory`."""

    hosts: ClassVar[frozenset[str]] = frozenset()
    uplink: ClassVar[Uplink]

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: counters say enough."""

    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        if not self.may(host):
            return
        with socket.create_connection((host, int(port)), timeout=60) as upstream:
            self.send_response(200, "Connection established")
            self.end_headers()
            self.uplink.received[host] += relay(self.connection, upstream)
        self.close_connection = True

    def do_GET(self) -> None:
        if not self.path.startswith("http://"):
            self.own_file()
            return
        parts = urlsplit(self.path)
        host = parts.hostname or ""
        if not self.may(host):
            return
        with socket.create_connection((host, parts.port or 80), timeout=60) as upstream:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            kept = ((n, v) for n, v in self.headers.items() if n.lower() not in HOP_BY_HOP)
            lines = [f"GET {path} HTTP/1.1", *(f"{n}: {v}" for n, v in kept), "Connection: close"]
            upstream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
            self.uplink.received[host] += relay(self.connection, upstream)
        self.close_connection = True

    def own_file(self) -> None:
        """A file or a listing of the directory; a file only half when the uplink says so."""
        path = Path(self.translate_path(self.path))
        if not (self.uplink.cut and path.is_file()):
            super().do_GET()
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.close_connection = True

    def may(self, host: str) -> bool:
        if host in self.hosts:
            self.uplink.passed[host] += 1
            return True
        self.uplink.refused[host] += 1
        self.send_error(403, "only package registries are reached from here")
        return False


HOP_BY_HOP = {"connection", "proxy-connection", "keep-alive", "proxy-authorization"}


def relay(client: socket.socket, upstream: socket.socket) -> int:
    """Pass bytes both ways until either side has nothing more to say; bytes that came down."""
    peers, received = {client: upstream, upstream: client}, 0
    while True:
        readable, _, _ = select.select(list(peers), [], [], 120)
        if not readable:
            return received
        for side in readable:
            data = side.recv(BLOCK)
            if not data:
                return received
            peers[side].sendall(data)
            received += len(data) if side is upstream else 0


class Uplink:
    """The proxy while the context lasts. `passed` and `refused` count connections by host,
    `received` bytes. With `cut`, files of the directory break off half-way."""

    def __init__(self, settings: Settings, directory: Path | None = None, port: int = PORT) -> None:
        self.settings, self.port = settings, port
        self.directory = directory or Path("/nonexistent")
        self.passed: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.cut = False

    @property
    def url(self) -> str:
        """What the hosts take as their proxy."""
        return f"http://{network.CONTROLLER}:{self.port}"

    def __enter__(self) -> Uplink:
        handler = type("LabProxy", (Proxy,), {"hosts": allowed(), "uplink": self})
        directory = str(self.directory)

        def made(*arguments: Any) -> BaseHTTPRequestHandler:
            return handler(*arguments, directory=directory)  # type: ignore[no-any-return]

        self.server = Server(listening(self.settings, self.port), made)  # type: ignore[arg-type]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def trust(self, root: Path) -> None:
        """Give a guest, by its file system seen from here, the authorities this machine trusts."""
        bundle = os.environ.get("SSL_CERT_FILE") or os.environ.get("PIP_CERT")
        if bundle and Path(bundle).is_file():
            shutil.copyfile(bundle, root / GUEST_BUNDLE)
