"""What this machine must offer: root, Linux namespaces, a few Debian packages."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from .settings import LabError, LabNotPossible
from .shell import environment, run_visibly, say

# What must exist -> the Debian or Ubuntu package that brings it.
FILES = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "zstd": "zstd",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "gcc": "gcc",
    "nsenter": "util-linux",
    "/usr/include/stdio.h": "libc6-dev",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}
# Only when the llama.cpp wheel is not in the cache; without OpenSSL its server speaks no TLS.
COMPILER_FILES = {"g++": "g++", "/usr/include/openssl/ssl.h": "libssl-dev"}


def possible() -> None:
    """Raise LabNotPossible, with the reason, when no installation could help."""
    if platform.system() != "Linux":
        raise LabNotPossible("it needs Linux")
    if os.geteuid() != 0:
        raise LabNotPossible("it needs root")
    if missing(FILES) and not shutil.which("apt-get"):
        raise LabNotPossible(f"no apt-get to install {', '.join(missing(FILES))}")


def install(files: dict[str, str] | None = None) -> None:
    """Install what is missing. Raises LabNotPossible when the packages cannot be had."""
    wanted = files or FILES
    packages = missing(wanted)
    if not packages:
        return
    say(f"missing here: {' '.join(packages)}")
    try:
        apt("package lists", "update")
        apt("packages", "install", "-y", "--no-install-recommends", *packages)
    except LabError as error:
        raise LabNotPossible(f"packages could not be installed: {error}") from None
    if still := missing(wanted):
        raise LabNotPossible(f"still missing after installation: {', '.join(still)}")


def missing(files: dict[str, str]) -> list[str]:
    """Packages whose file or command is absent, sorted."""
    return sorted({package for name, package in files.items() if not present(name)})


def present(name: str) -> bool:
    if name.startswith("/"):
        # Multiarch keeps a header below the architecture's own directory on some releases.
        return Path(name).exists() or any(Path("/usr/include").glob(f"*/{Path(name).name}"))
    return shutil.which(name, path=environment()["PATH"]) is not None


def apt(label: str, *arguments: str) -> None:
    run_visibly(label, "apt-get", "-q", *arguments, env={"DEBIAN_FRONTEND": "noninteractive"})
