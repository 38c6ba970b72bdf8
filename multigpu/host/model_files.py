"""What planning needs of a model on the host: sizes, small JSON files whole, GGUF headers.

Prints one ASCII JSON line `{"schema", "files": {name: {"size_bytes", "head"}}, "end"}`; `head` is
base64 of zlib. Sent over SSH as `python3 - PATH`, stdlib only, Python 3.9 or newer. The layout of a
GGUF header is that of ggml's docs/gguf.md.
"""

from __future__ import annotations

import base64
import glob
import json
import os
import re
import struct
import sys
import zlib
from typing import Any, BinaryIO, Dict, List

SCHEMA = 1
END = "multigpu-model-end"
WHOLE = ("config.json", "hf_quant_config.json", "model.safetensors.index.json")
WHOLE_LIMIT_BYTES = 32 << 20
SHARD = re.compile(r"^(.+)-\d{5}-of-\d{5}\.gguf$")

# Bytes of a GGUF metadata value by type; 8 is a string, 9 an array.
SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9


def number(stream: BinaryIO, code: str) -> int:
    """One little-endian number."""
    value = struct.unpack("<" + code, stream.read(struct.calcsize(code)))[0]
    return int(value)


def skip_string(stream: BinaryIO) -> None:
    """A length and so many bytes."""
    stream.seek(number(stream, "Q"), os.SEEK_CUR)


def skip_value(stream: BinaryIO, kind: int) -> None:
    """One metadata value. Raises KeyError for a type that does not exist."""
    if kind == STRING:
        skip_string(stream)
    elif kind == ARRAY:
        element, count = number(stream, "I"), number(stream, "Q")
        if element in SCALAR_BYTES:
            stream.seek(SCALAR_BYTES[element] * count, os.SEEK_CUR)
        else:
            for _ in range(count):
                skip_value(stream, element)
    else:
        stream.seek(SCALAR_BYTES[kind], os.SEEK_CUR)


def gguf_header_bytes(stream: BinaryIO) -> int:
    """Length of metadata and tensor list; a page more for the alignment of the data."""
    stream.seek(8)
    tensors, fields = number(stream, "Q"), number(stream, "Q")
    for _ in range(fields):
        skip_string(stream)
        skip_value(stream, number(stream, "I"))
    for _ in range(tensors):
        skip_string(stream)
        stream.seek(8 * number(stream, "I") + 4 + 8, os.SEEK_CUR)
    return stream.tell() + 4096


def head(path: str) -> bytes:
    """The bytes that planning reads of one file; none of weights and of what is damaged."""
    name = os.path.basename(path)
    with open(path, "rb") as stream:
        if name in WHOLE:
            return stream.read(WHOLE_LIMIT_BYTES)
        if not name.endswith(".gguf"):
            return b""
        try:
            length = gguf_header_bytes(stream)
        except (struct.error, KeyError, OSError, OverflowError, ValueError):
            length = 4096
        stream.seek(0)
        return stream.read(length)


def paths(reference: str) -> List[str]:
    """The files of a folder, or a GGUF with its shards."""
    if os.path.isdir(reference):
        return sorted(p for p in glob.glob(glob.escape(reference) + "/*") if os.path.isfile(p))
    match = SHARD.match(os.path.basename(reference))
    if match is None:
        return [reference] if os.path.isfile(reference) else []
    stem = os.path.join(os.path.dirname(reference), match.group(1))
    return sorted(glob.glob(glob.escape(stem) + "-?????-of-?????.gguf"))


def describe(path: str) -> Dict[str, Any]:
    """Size and head of one file."""
    packed = base64.b64encode(zlib.compress(head(path)))
    return {"size_bytes": os.path.getsize(path), "head": packed.decode("ascii")}


def main(argv: List[str]) -> None:
    """Print the document of the path given."""
    files = {os.path.basename(path): describe(path) for path in paths(argv[1])}
    print(json.dumps({"schema": SCHEMA, "files": files, "end": END}), flush=True)


if __name__ == "__main__":
    main(sys.argv)
