"""Why an installation failed, in one line, from what uv, pip or a compiler printed.

The words are those of pip 23 to 26 and uv 0.4 to 0.13, as their own tests and our lab have them.
"""

from __future__ import annotations

import re
from typing import Optional, Sequence, Tuple

# The first that matches anywhere in the output speaks; each with what to do.
SIGNS: Tuple[Tuple[str, str, str], ...] = (
    (
        r"No space left on device|os error 28|Errno 28|Disk quota exceeded",
        "the disk is full",
        "make room at /opt/multigpu and run it again",
    ),
    (
        r"DO NOT MATCH THE HASHES|[Hh]ash mismatch",
        "a downloaded file has another hash than the lock",
        "somebody changed it or it arrived damaged: see where packages come from, run it again",
    ),
    (
        r"IncompleteRead|incomplete-download|unexpected end of file|end of file before message "
        r"length|unexpected EOF|BadZipFile|not a zip file|[Ff]ailed to extract|invalid wheel|"
        r"[Cc]onnection reset|broken: (?:IncompleteRead|InvalidChunk)|body from connection|"
        r"decoding response body|"
        r"response body closed",
        "a download broke off",
        "run it again; if it lasts, see the index or the proxy",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|invalid peer certificate|UnknownIssuer|self[- ]signed",
        "the package index shows a certificate that this host does not trust",
        "install your certificate authority on the host (update-ca-certificates)",
    ),
    (
        r"40[13] (?:Client Error|Forbidden|Unauthorized)|status code: 40[13]|"
        r"\b(?:401|403) Unauthorized|HTTP status client error \(40[13]",
        "the package index refuses this host",
        "put its login into /etc/multigpu/credentials/package-index.netrc (mode 0600, root's)",
    ),
    (
        r"ProxyError|[Tt]unnel connection failed|unsuccessful tunnel|Cannot connect to proxy",
        "the proxy does not let the host through",
        "see https_proxy in the inventory",
    ),
    (
        r"Name or service not known|name resolution|dns error|Failed to establish a new "
        r"connection|NewConnectionError|Connection refused|Network is unreachable|ConnectTimeout|"
        r"ReadTimeout|tcp connect error|error sending request|operation timed out|client error "
        r"\(Connect\)|Max retries exceeded",
        "the package index does not answer",
        "give the host a way to it (package_index, wheel_directory or https_proxy)",
    ),
    (
        r"No matching distribution found|Could not find a version|has no usable wheels|no wheels "
        r"with a matching|was not found in the package registry|not found in the provided package "
        r"locations|No solution found|there (?:is|are) no versions? of|404 (?:Client|Not Found)|"
        r"HTTP status client error \(404",
        "a package of the lock is not to be had for this host",
        "see that the index or folder holds every file of the lock for this Python and processor, "
        "and that it wants no login (that belongs into package-index.netrc, see docs/inventory.md)",
    ),
    (
        r"No module named (?:venv|ensurepip)|ensurepip is not available|python3-venv",
        "python3 cannot make virtual environments",
        "install python3-venv (Debian, Ubuntu) or uv",
    ),
    (
        r"unsupported gpu architecture|Unsupported gpu architecture|compute_\d+.{0,40}not defined",
        "the CUDA toolkit does not know this card",
        "install a newer CUDA toolkit",
    ),
    (
        r"No CMAKE_CUDA_COMPILER|CUDA Toolkit not found|Failed to find nvcc",
        "no CUDA toolkit to build with",
        "install cuda-toolkit, or give a wheel built elsewhere as wheel",
    ),
    (
        r"No CMAKE_CXX_COMPILER|CMAKE_CXX_COMPILER not set",
        "no C++ compiler to build with",
        "install g++",
    ),
    (
        r"Killed signal terminated program|virtual memory exhausted|cannot allocate memory",
        "the memory was not enough for the compiler",
        "add memory or swap, or give a wheel built elsewhere as wheel",
    ),
)
SECRET_URL = re.compile(r"(://)[^/@\s:]+(?::[^/@\s]*)?@")
DETAIL = re.compile(
    r"==|\.whl|https?://|Caused by|error:|ERROR|Expected sha256|Errno|os error", re.IGNORECASE
)
LONGEST = 160


def reason(lines: Sequence[str]) -> str:
    """One line: what failed, the tool's own line that says so, and what to do."""
    for pattern, what, do in SIGNS:
        line = first(pattern, lines)
        if line is not None:
            return f"{what} ({shortened(subject(lines, line))}); do: {do}"
    last = next((line for line in reversed(lines) if DETAIL.search(line)), None)
    words = last or (lines[-1] if lines else "it said nothing")
    return (
        f"the installation failed ({shortened(words)}); do: see `journalctl -u multigpu-install-*`"
    )


def first(pattern: str, lines: Sequence[str]) -> Optional[str]:
    """The first line that the pattern is found in."""
    return next((line for line in lines if re.search(pattern, line)), None)


PACKAGE = re.compile(r"(?<![\w./-])([A-Za-z0-9][\w.-]*==[\w.+!]+|[\w.]+-[\w.+!-]+\.whl)")


def subject(lines: Sequence[str], line: str) -> str:
    """The package that the failing line speaks of; pip names it in a line near by."""
    at = lines.index(line)
    near = [line, *lines[at + 1 : at + 4], *reversed(lines[max(0, at - 6) : at])]
    for candidate in near:
        match = PACKAGE.search(candidate)
        if match:
            return match[1] if candidate is not line else line
    return line


def shortened(line: str) -> str:
    """One line without secrets, at most LONGEST characters."""
    text = " ".join(SECRET_URL.sub(r"\1", line).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
