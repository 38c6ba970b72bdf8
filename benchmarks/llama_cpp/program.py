"""A real llama.cpp from a wheel: processes that stand for devices, and its own memory breakdown."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


def wheel() -> Path | None:
    """The wheel that scripts/build_llama_wheel.py leaves in the cache; None when there is none."""
    root = Path(os.environ.get("MULTIGPU_CACHE") or "~/.cache/multigpu").expanduser()
    return next(iter(sorted(root.glob("llama-wheel-*/llama_cpp_python-*.whl"))), None)


def unpacked(wheel_path: Path, folder: Path) -> Path:
    """The folder with `bin/` and `lib/` of the wheel."""
    with zipfile.ZipFile(wheel_path) as archive:
        names = [n for n in archive.namelist() if n.startswith(("bin/", "lib/"))]
        archive.extractall(folder, names)
    for program in (folder / "bin").iterdir():
        program.chmod(0o755)
    return folder


@dataclass(frozen=True)
class Case:
    """What llama-server is started with; `split` are units per device."""

    split: tuple[int, ...]
    context: int = 8192
    ubatch: int = 512
    slots: int = 1
    unified: bool = False
    flash_attn: bool = True
    cache_type: str = "f16"
    cpu_moe: int = 0
    gpu_layers: int | None = None

    @property
    def flags(self) -> list[str]:
        """As words of a command line."""
        return [
            *("--ctx-size", str(self.context), "--ubatch-size", str(self.ubatch)),
            *("--parallel", str(self.slots), "--tensor-split", ",".join(map(str, self.split))),
            *("--cache-type-k", self.cache_type, "--cache-type-v", self.cache_type),
            *("--flash-attn", "on" if self.flash_attn else "off"),
            "--kv-unified" if self.unified else "--no-kv-unified",
            *("--gpu-layers", "all" if self.gpu_layers is None else str(self.gpu_layers)),
            *(("--n-cpu-moe", str(self.cpu_moe)) if self.cpu_moe else ()),
        ]


# A device may die with a client that is ended in the middle of its work.
ATTEMPTS = 3

Terms = tuple[int, int, int]
"""Model, context and compute of one device, whole MiB rounded down, as llama-server prints them."""


class LlamaCpp:
    """The programs of one unpacked wheel, and ggml-rpc-server processes that stand for GPUs."""

    def __init__(self, folder: Path, count: int, stack: contextlib.ExitStack) -> None:
        self.folder, self.count, self.stack = folder, count, stack
        self.ports: list[int] = []
        self.start()

    def start(self) -> None:
        """New devices in place of the old ones, of which one may have died with its client."""
        self.stack.close()
        self.ports = [free_port() for _ in range(self.count)]
        for port in self.ports:
            command = [str(self.folder / "bin/ggml-rpc-server"), "-H", "127.0.0.1"]
            self.stack.enter_context(_started([*command, "-p", str(port)], self.library))
        for port in self.ports:
            _wait(port)

    @property
    def library(self) -> Path:
        """The folder of the shared libraries."""
        return self.folder / "lib"

    def breakdown(self, model: Path, case: Case) -> list[Terms]:
        """What the trial load of `--fit on` prints; the server is ended before it really loads.

        Raises RuntimeError with the last lines when it prints none.
        """
        lines: list[str] = []
        for attempt in range(ATTEMPTS):
            if attempt:
                self.start()
            with _started(self._command(model, case), self.library, subprocess.PIPE) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    lines.append(line)
                    if "fit_memory_breakdown" in line:
                        return terms(line)
        raise RuntimeError(f"{model.name}: {''.join(lines[-4:])}")

    def _command(self, model: Path, case: Case) -> list[str]:
        places = ",".join(f"127.0.0.1:{port}" for port in self.ports[: len(case.split)])
        return [
            *(str(self.folder / "bin/llama-server"), "--rpc", places, "--model", str(model)),
            *("--split-mode", "layer", "--fit", "on", "--log-jsonl"),
            *("--verbosity", "4", "--port", str(free_port()), *case.flags),
        ]


def terms(line: str) -> list[Terms]:
    """Model, context and compute of every device, of one line of --log-jsonl."""
    rows = json.loads(line[line.find("{") :])["data"]["rows"]
    devices = [row for row in rows if row["kind"] == "device"]
    return [(row["model"], row["context"], row["compute"]) for row in devices]


@contextlib.contextmanager
def _started(
    command: list[str], library: Path, stdout: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment(library),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def environment(library: Path) -> dict[str, str]:
    """The caller's, where `library` comes before the folders that hold CUDA's libraries."""
    folders = [str(library), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    found = {"LD_LIBRARY_PATH": os.pathsep.join(folders), "GGML_NO_BACKTRACE": "1"}
    return {**os.environ, **found}


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def devices(folder: Path, count: int) -> Iterator[LlamaCpp]:
    """So many processes that llama-server takes for GPUs."""
    with contextlib.ExitStack() as stack:
        yield LlamaCpp(folder, count, stack)


def _wait(port: int, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port} after {seconds:.0f} s")
