"""Readers of hashed locks (`uv pip compile --generate-hashes`)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from multigpu.errors import MultigpuError, WishError
from multigpu.install.recipe import Files
from multigpu.wish_values import Wish

# `nvidia-cuda-runtime==13.0.96` since CUDA 13, `nvidia-cuda-runtime-cu12==12.8.90` before.
CUDA_RUNTIME = re.compile(r"nvidia-cuda-runtime(?:-cu\d+)?==(\d+)\.(\d+)\S*(?P<marker>[^\\\n]*)")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def chosen_version(name: str, wish: Wish, files: Files, default: str) -> str:
    """The wished version or the default one. Raises WishError when the wished one has no lock."""
    version = wish.runtime_version or default
    known = files.versions(name)
    if version in known:
        return version
    raise WishError(
        f"{wish.name}: runtime_version {version!r} of {name} has no lock; there are "
        f"{', '.join(known) or 'none'}: use one of them, or add it to scripts/make_locks.sh"
    )


def short(*texts: str) -> str:
    """Twelve hexadecimal digits of SHA-256 over the texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def requirements(text: str) -> list[str]:
    """A lock split into its requirements, each with its hash lines."""
    blocks: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.startswith((" ", "\t")) and blocks:
            blocks[-1] += line
        elif line.strip() and not line.startswith("#"):
            blocks.append(line)
    return blocks


def hashes(text: str) -> frozenset[str]:
    """Every SHA-256 that a lock allows."""
    return frozenset(HASH.findall(text))


def cuda(text: str) -> tuple[int, int] | None:
    """The CUDA release that the locked wheels bring on Linux; None when they bring none."""
    for match in CUDA_RUNTIME.finditer(text):
        if "== 'darwin'" not in match["marker"] and "== 's390x'" not in match["marker"]:
            return int(match[1]), int(match[2])
        if "!= 's390x'" in match["marker"] or "!= 'darwin'" in match["marker"]:
            return int(match[1]), int(match[2])
    return None


def parted(text: str, package: str, tools: Iterable[str] = ()) -> tuple[str, str, str]:
    """A lock in three: the package's own lines, those of the tools, and all others.

    Raises MultigpuError unless the lock names the package once.
    """
    blocks = requirements(text)
    names = [re.split(r"[=\s]", block, maxsplit=1)[0] for block in blocks]
    own = [block for block, name in zip(blocks, names, strict=True) if name == package]
    if len(own) != 1:
        raise MultigpuError(f"the lock names {package} {len(own)} times, needed is once")
    wanted = frozenset(tools)
    building = [b for b, name in zip(blocks, names, strict=True) if name in wanted]
    rest = [b for b, n in zip(blocks, names, strict=True) if n != package and n not in wanted]
    return own[0], "".join(building), "".join(rest)
