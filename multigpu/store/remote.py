"""Reading the beginning of files on the web, for planning: range requests, never a whole model.

The client is that of the fetch program, so that a token goes to the hub's own host only.
"""

from __future__ import annotations

import io
import struct
from http.client import HTTPException

from multigpu.errors import ModelError
from multigpu.host.fetch_file import begins_at
from multigpu.host.fetch_http import Client, Interrupted, Refused
from multigpu.host.model_files import gguf_header_bytes
from multigpu.model.tensor_headers import HEADER_MAX_BYTES
from multigpu.store.gguf_files import HostFile

FIRST_BYTES = 1 << 20
LARGEST_HEADER_BYTES = 256 << 20
LARGEST_TEXT_BYTES = 32 << 20


def gguf_head(client: Client, address: str) -> HostFile:
    """Size of a GGUF and its header. Raises ModelError."""
    length = FIRST_BYTES
    while True:
        size, head = _begin(client, address, length)
        needed = _header_bytes(head)
        if needed is not None and (needed <= len(head) or len(head) == size):
            return HostFile(size, head)
        if length >= min(size, LARGEST_HEADER_BYTES):
            raise ModelError(f"{address}: no whole GGUF header in its first {len(head)} bytes")
        length = max(4 * length, needed or 0)


def safetensors_head(client: Client, address: str) -> bytes:
    """The beginning of a *.safetensors that lists its tensors. Raises ModelError."""
    _, head = _begin(client, address, FIRST_BYTES)
    needed = 8 + int.from_bytes(head[:8], "little")
    if len(head) < needed <= HEADER_MAX_BYTES:
        _, head = _begin(client, address, needed)
    return head


def _header_bytes(head: bytes) -> int | None:
    """Length of the header; None where what is there does not say."""
    if head[:4] != b"GGUF":
        return 0
    try:
        return gguf_header_bytes(io.BytesIO(head))
    except (struct.error, KeyError, OSError, OverflowError, ValueError):
        return None


def _begin(client: Client, address: str, length: int) -> tuple[int, bytes]:
    """Size of a file and its first bytes, also of a server that knows no ranges."""
    try:
        with client.open(address, {"Range": f"bytes=0-{length - 1}"}) as answer:
            start, size = begins_at(answer)
            if start != 0 or size is None:
                raise ModelError(f"{address}: the server does not say how large the file is")
            return size, answer.read(min(length, size))
    except (Refused, Interrupted, OSError, HTTPException) as error:
        raise ModelError(_line(address, error)) from None


def text(client: Client, address: str) -> bytes:
    """A small file. Raises ModelError."""
    try:
        with client.open(address) as answer:
            content: bytes = answer.read(LARGEST_TEXT_BYTES + 1)
    except (Refused, Interrupted, OSError, HTTPException) as error:
        raise ModelError(_line(address, error)) from None
    if len(content) > LARGEST_TEXT_BYTES:
        raise ModelError(f"{address} has more than {LARGEST_TEXT_BYTES >> 20} MiB, it is no text")
    return content


def _line(address: str, error: Exception) -> str:
    said = str(error) or type(error).__name__
    if isinstance(error, Refused):
        return said
    return (
        f"{address}: {said}: planning reads its header from the controller; check the network and "
        "https_proxy there, or download the model and give its path"
    )
