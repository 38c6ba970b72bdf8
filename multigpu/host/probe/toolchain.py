"""What there is to install and build runtimes with, and which runtimes are there."""

from __future__ import annotations

import glob
import os
import platform
import re
import shutil
from typing import Any, Dict, Optional

from multigpu.host.probe.files import under
from multigpu.host.probe.tools import run_tool, tool_environment

VERSION_S = 4.0

# Program -> what makes it print its version; None where it only has to be there.
PROGRAMS = (
    ("uv", "--version"),
    ("nvcc", "--version"),
    ("g++", "-dumpfullversion"),
    ("hipconfig", None),
    ("glslc", None),
)
# Beside the PATH of a login: NVIDIA's and AMD's packages, and where uv's installer puts it.
DIRECTORIES = ("/usr/local/bin", "/usr/local/cuda/bin", "/opt/rocm/bin", "/root/.local/bin")

PATHS = (
    "/opt/rocm/include/hipblas/hipblas.h",
    "/opt/rocm/include/rocblas/rocblas.h",
    "/usr/include/spirv/unified1",
    "/usr/include/vulkan",
)
PYTHONS = ("/usr/bin/python3*", "/usr/local/bin/python3*")
PYTHON_NAME = re.compile(r"^python3(?:\.(\d{1,2}))?$")


def read_toolchain(root: str, limit: float) -> Dict[str, Any]:
    """Interpreters, programs and headers by path."""
    return {
        "machine": platform.machine() or None,
        "pythons": read_pythons(root),
        "programs": {
            name: found
            for name, argument in PROGRAMS
            if (found := read_program(root, name, argument, min(VERSION_S, limit))) is not None
        },
        "paths": [path for path in PATHS if os.path.exists(under(root, path))],
    }


def read_program(
    root: str, name: str, argument: Optional[str], seconds: float
) -> Optional[Dict[str, Any]]:
    """Path of a program and what it prints of its version; None when it is not there."""
    beside = os.pathsep.join(under(root, directory) for directory in DIRECTORIES)
    usual = tool_environment()["PATH"] if root == "/" else under(root, "/usr/bin")
    path = shutil.which(name, path=usual + os.pathsep + beside)
    if path is None:
        return None
    printed = run_tool([path, argument], seconds).get("stdout", []) if argument else []
    return {"path": path, "version": "\n".join(printed).strip() or None}


def read_pythons(root: str) -> Dict[str, Dict[str, Any]]:
    """Interpreters by path: minor version of Python 3, and whether ensurepip lies beside it.

    Debian ships ensurepip in python3-venv; without it `-m venv` fails. Nothing is run.
    """
    found: Dict[str, Dict[str, Any]] = {}
    for path in sorted(p for pattern in PYTHONS for p in glob.glob(under(root, pattern))):
        match = PYTHON_NAME.match(os.path.basename(path))
        real = PYTHON_NAME.match(os.path.basename(os.path.realpath(path)))
        minor = (match and match[1]) or (real and real[1])
        if match is None or minor is None or not os.access(path, os.X_OK):
            continue
        place = path if root == "/" else path[len(root.rstrip("/")) :]
        prefix = os.path.dirname(os.path.dirname(path))
        libraries = (f"{prefix}/{lib}/python3.{minor}/ensurepip" for lib in ("lib", "lib64"))
        found[place] = {"minor": int(minor), "venv": any(map(os.path.isdir, libraries))}
    return found


RUNTIMES = "/opt/multigpu/runtimes"
SERVICES = "/opt/multigpu/services"


def read_runtimes(root: str) -> Dict[str, Any]:
    """Directories of runtimes, complete or not, and the record of which serve."""
    services = sorted(glob.glob(under(root, f"{SERVICES}/*")))
    return {
        "directories": sorted(map(os.path.basename, glob.glob(under(root, f"{RUNTIMES}/*")))),
        "services": {
            os.path.basename(service): {
                name: link_name(f"{service}/{name}") for name in ("current", "previous")
            }
            for service in services
        },
    }


def link_name(path: str) -> Optional[str]:
    """Last part of where a link leads, None when there is no link."""
    try:
        return os.path.basename(os.readlink(path)) or None
    except OSError:
        return None
