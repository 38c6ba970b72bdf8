"""The host's exporter: GPUs and services as Prometheus text over HTTP; reads, and changes nothing.

    multigpu-host.pyz exporter --listen 127.0.0.1:18835

It never asks an engine anything, and a source that hangs costs its own samples, not the page.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import platform
import socket
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from multigpu.host import (
    exporter_amd,
    exporter_gpus,
    exporter_nvml,
    exporter_services,
    exporter_text,
)
from multigpu.host.exporter_nvml import Card
from multigpu.host.exporter_services import Service
from multigpu.host.exporter_source import Source
from multigpu.host.exporter_table import Sample
from multigpu.host.kernel_log import OUTPUT, read_counts

PORT = 18835
"""Outside of 9100 to 9999, which Prometheus' "Default port allocations" fill, and below the
kernel's ephemeral ports."""
DEADLINE_S = 4.0
"""Of each source; all are asked at once, and Prometheus waits 10 s unless told otherwise."""
KEPT_S = 1.0
"""A page serves everybody who asks within this time."""
CONNECTIONS = 16
CLIENT_S = 10.0
INDEX = b"multigpu exporter: /metrics\n"


class Exporter:
    """Collects a page; one at a time, whoever asks."""

    def __init__(self, root: str = "/", deadline_s: float = DEADLINE_S) -> None:
        self.root = root
        self.known = exporter_gpus.Known()
        self.services: Source[List[Service]] = Source(
            "services", lambda: exporter_services.services(root), deadline_s
        )
        self.nvml: Source[List[Card]] = Source("nvml", self._nvml, deadline_s)
        self.amd: Source[List[Card]] = Source(
            "amdgpu", lambda: exporter_amd.cards(root), deadline_s
        )
        log = os.path.join(root, OUTPUT.lstrip("/"))
        self.kernel: Source[Dict[str, Any]] = Source(
            "kernel_log", lambda: read_counts(log), deadline_s
        )
        self._lock = threading.Lock()
        self._page: Tuple[float, bytes] = (-KEPT_S, b"")

    def page(self) -> bytes:
        """The page, at most KEPT_S old."""
        with self._lock:
            if time.monotonic() - self._page[0] >= KEPT_S:
                content = exporter_text.page(self.samples())
                self._page = (time.monotonic(), content)
            return self._page[1]

    def samples(self) -> List[Sample]:
        """Everything, asked now."""
        started = time.monotonic()
        sources: Tuple[Source[Any], ...] = (self.nvml, self.amd, self.kernel, self.services)
        for source in sources:
            source.begin()
        services = self.services.answer() or []
        cards = self._cards(services)
        log = self.kernel.answer()
        found = [sample for card in cards for sample in exporter_gpus.samples(card)]
        found += exporter_gpus.kernel_samples(log, cards) if log is not None else []
        found += [s for service in services for s in exporter_services.samples(service, cards)]
        found += exporter_services.host_samples(self.root)
        found += [sample for source in sources for sample in source.samples()]
        return [*found, *_own(time.monotonic() - started)]

    def _nvml(self) -> List[Card]:
        """A driver that is not loaded is a failure where cards were seen or are planned for."""
        planned = exporter_services.planned_cards(exporter_services.services(self.root))
        seen = any(vendor == "nvidia" for vendor, _ in self.known.cards)
        return exporter_nvml.cards(seen or any(card.vendor == "nvidia" for card in planned))

    def _cards(self, services: List[Service]) -> List[Card]:
        """Cards of the sources that answered, and those that are missing there."""
        answers = {"nvidia": self.nvml.answer(), "amd": self.amd.answer()}
        planned = exporter_services.planned_cards(services)
        found = [card for answer in answers.values() for card in answer or ()]
        silent = {vendor for vendor, answer in answers.items() if answer is None}
        # Of a source that does not answer nobody knows whether its cards are lost.
        return [c for c in self.known.complete(found, planned) if c.vendor not in silent]


def _own(duration_s: float) -> List[Sample]:
    program = os.path.basename(sys.argv[0])  # the archive is named by its content
    what = {"program": program, "python": platform.python_version()}
    return [
        Sample("multigpu_exporter_build_info", what, 1),
        Sample("multigpu_exporter_scrape_duration_seconds", {}, duration_s),
    ]


class Server(http.server.ThreadingHTTPServer):
    """One thread for each of at most CONNECTIONS clients; others are turned away."""

    daemon_threads = True
    request_queue_size = CONNECTIONS

    def __init__(self, address: Tuple[str, int], exporter: Exporter) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.exporter = exporter
        self.places = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Without the reverse look-up of http.server, which may wait for a name server."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, while there is a place."""
        if not self.places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread's work; gives the place back."""
        try:
            super().process_request_thread(request, client_address)  # type: ignore[no-untyped-call,unused-ignore]
        finally:
            self.places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One line, no traceback: clients that go away are no news."""
        print(f"multigpu: client: {sys.exc_info()[1]}", file=sys.stderr, flush=True)


class Handler(http.server.BaseHTTPRequestHandler):
    """GET and HEAD of /metrics and /."""

    server: Server
    timeout = CLIENT_S
    server_version, sys_version = "multigpu", ""

    def do_GET(self) -> None:
        """A page, or 404."""
        self._answer(True)

    def do_HEAD(self) -> None:
        """As GET, without the page."""
        self._answer(False)

    def _answer(self, whole: bool) -> None:
        pages = {"/metrics": self.server.exporter.page, "/": lambda: INDEX}
        make: Optional[Callable[[], bytes]] = pages.get(self.path.partition("?")[0])
        content = b"" if make is None else make()
        self.send_response(404 if make is None else 200)
        self.send_header("Content-Type", exporter_text.CONTENT_TYPE)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if whole:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a scrape every few seconds would fill the journal."""


def listen_address(text: str) -> Tuple[str, int]:
    """`127.0.0.1:18835`, `[::1]:18835`. Raises ValueError."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def main(arguments: Optional[List[str]] = None) -> int:
    """Serve until killed; 75 when it cannot listen there: systemd tries again."""
    parser = argparse.ArgumentParser(prog="multigpu exporter", description=__doc__)
    parser.add_argument("--listen", type=listen_address, default=("127.0.0.1", PORT))
    parser.add_argument("--root", default="/", help="for tests: files are read below it")
    parser.add_argument("--deadline-s", type=float, default=DEADLINE_S)
    parser.add_argument("--once", action="store_true", help="print the page and end")
    options = parser.parse_args(arguments)
    exporter = Exporter(options.root, options.deadline_s)
    if options.once:
        sys.stdout.write(exporter.page().decode())
        return 0
    try:
        server = Server(options.listen, exporter)
    except OSError as error:
        where = json.dumps(options.listen)
        print(f"multigpu: cannot listen at {where}: {error.strerror}", file=sys.stderr, flush=True)
        return 75
    print(f"multigpu: metrics at {server.server_name}:{server.server_port}", flush=True)
    server.serve_forever()
    return 0
