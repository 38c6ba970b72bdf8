"""Everything in a guest that makes its simulated cards.

`layer` is the same for all hosts and lies between the guest image and each host's own files;
`equip` writes what is particular to one machine: its table, PCI tree and card services.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from . import machines, pci
from .cache import cached, key
from .settings import CHECKOUT, HERE, Settings
from .shell import run
from .wheel import extract_device

NVIDIA_ML_PY = "nvidia-ml-py==13.615.71"
SOURCE = HERE / "nvml" / "simulated_nvml.c"
LIBRARY = "libnvidia-ml.so.1"
GUEST = HERE / "guest"
HOME = Path("usr/lib/simulated-gpu")
UNITS = Path("etc/systemd/system")
# Files of guest/ -> where they go; programs are executable.
PROGRAMS = {
    "nvidia-smi": Path("usr/bin/nvidia-smi"),
    "note-idle": HOME / "bin/note-idle",
    "attach-pci": HOME / "bin/attach-pci",
    "vllm": HOME / "bin/vllm",
    "faulty-vllm": HOME / "faulty/vllm",
    "faulty-sglang": HOME / "faulty/sglang",
}
# The simulated engine behind the faulty ones.
ENGINE = CHECKOUT / "tests" / "engine"
# What nvidia-smi is made of, below one directory: the generator that the tests' machines come from.
PYTHON = HOME / "python"
MODULES = (
    *(f"multigpu/{name}.py" for name in ("__init__", "hardware", "links", "managed", "memo")),
    "multigpu/toolchain.py",
    *("tests/rigs/__init__.py", "tests/rigs/dialect.py", "tests/rigs/sysfs.py"),
    *(f"tests/rigs/nvidia_{name}.py" for name in ("facts", "health", "nodes", "smi", "table")),
    "tests/rigs/topology.py",
)
GATHERING = "simulated_host.py"
SERVICES = ("simulated-gpu@.service", "simulated-pci.service")
# What stands for the kernel's log: a guest has no /dev/kmsg. Whatever is written there, was said.
KERNEL_LOG = "/run/simulated-gpu/kmsg"
# The simulated vLLM notes itself there, which the hardened units would not let it.
DROP_IN = Path("multigpu-.service.d/simulated-gpu.conf")
NOTES_ALLOWED = (
    f"[Service]\nReadWritePaths=-/run/simulated-gpu\nEnvironment=MULTIGPU_KERNEL_LOG={KERNEL_LOG}\n"
)


def library_path() -> Path:
    """Where the guest's loader looks for the NVML library."""
    return Path("usr/lib") / f"{platform.machine()}-linux-gnu" / LIBRARY


def nvml_library(settings: Settings) -> Path:
    """The simulated NVML library, compiled when the cache has none of this source."""
    path = settings.cache / f"{LIBRARY}-{key(SOURCE.read_bytes(), *platform.libc_ver())}"
    return cached(path, compile_library)


def compile_library(partial: Path) -> None:
    run("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden",
        f"-Wl,-soname,{LIBRARY}", "-o", partial, SOURCE)  # fmt: skip


def pynvml(settings: Settings) -> Path:
    """The real `pynvml.py`: the one installed here, else the one of the pinned release."""
    installed = importlib.util.find_spec("pynvml")
    if installed and installed.origin:
        return Path(installed.origin)
    return cached(settings.cache / f"pynvml-{key(NVIDIA_ML_PY)}.py", download_pynvml)


def download_pynvml(partial: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, NVIDIA_ML_PY)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive:
            partial.write_bytes(archive.read("pynvml.py"))


def layer(settings: Settings, wheel_file: Path, target: Path) -> None:
    """Write the files that all hosts share; made anew for every lab, so it is never out of date."""
    extract_device(wheel_file, target / HOME)
    place(nvml_library(settings), target / library_path())
    programs(settings, target)
    for name in SERVICES:
        place(GUEST / name, target / UNITS / name)
    drop_in = target / UNITS / DROP_IN
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(NOTES_ALLOWED)


def programs(settings: Settings, target: Path) -> None:
    """Write the stand-ins and the Python modules that nvidia-smi needs."""
    place(pynvml(settings), target / "usr/lib/python3/dist-packages/pynvml.py")
    for name, where in PROGRAMS.items():
        place(GUEST / name, target / where, 0o755)
    for name in MODULES:
        place(CHECKOUT / name, target / PYTHON / name)
    place(GUEST / GATHERING, target / PYTHON / GATHERING)
    for module in ENGINE.glob("*.py"):
        place(module, target / HOME / "engine" / module.name)


def place(source: Path, target: Path, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def equip(machine: machines.Machine, target: Path) -> None:
    """Write the files of one machine; its services start with the host."""
    place(machine.table, target / "etc/simulated-gpu/table.ini")
    pci.write(machine, target / HOME / "pci")
    directories = ["d /run/simulated-gpu 0755 root root -", f"p {KERNEL_LOG} 0666 root root -"]
    for card in machine.cards:
        (target / f"etc/simulated-gpu/{card.index}.env").write_text(f"PORT={card.port}\n")
        enable(target, "multi-user", SERVICES[0], SERVICES[0].replace("@", f"@{card.index}"))
        # Sticky and open to all: a server of any user notes its own process there.
        directories.append(f"d /run/simulated-gpu/{card.index} 1777 root root -")
    enable(target, "sysinit", SERVICES[1], SERVICES[1])
    rules = target / "etc/tmpfiles.d/simulated-gpu.conf"
    rules.parent.mkdir(parents=True, exist_ok=True)
    rules.write_text("\n".join(directories) + "\n")


def enable(target: Path, goal: str, unit: str, name: str) -> None:
    link = target / UNITS / f"{goal}.target.wants" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(f"/{UNITS / unit}")
