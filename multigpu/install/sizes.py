"""Disk space of runtimes, measured with the installing program on Debian 12, x86_64.

vLLM by tests/lab/test_real_install.py; SGLang outside the lab, with other traffic in its download.
"""

from __future__ import annotations

from dataclasses import dataclass

MARGIN = 1.15
"""For bytecode, and for releases that nobody measured."""


@dataclass(frozen=True)
class Size:
    """MiB that are downloaded and that the complete directory holds; None where nobody measured."""

    download_mib: int | None
    installed_mib: int | None

    @property
    def disk_mib(self) -> int | None:
        """Free space to ask for: wheels and what they unpack to lie there at the same time."""
        if self.download_mib is None or self.installed_mib is None:
            return None
        return round((self.download_mib + self.installed_mib) * MARGIN)


SIZES: dict[tuple[str, str], Size] = {
    ("vllm", "0.33.0"): Size(4147, 9603),
    ("sglang", "0.5.23"): Size(4243, 10466),
}
LLAMA_BUILD_MIB = 3000
"""Objects, tools and the unpacked sdist of a build for one CUDA architecture."""


def size(name: str, version: str) -> Size:
    """As measured; of the same runtime's largest measured release where this one was not."""
    if (name, version) in SIZES:
        return SIZES[name, version]
    others = [found for (other, _), found in SIZES.items() if other == name]
    return max(others, key=lambda found: found.disk_mib or 0, default=Size(None, None))
