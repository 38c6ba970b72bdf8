"""GGUF files: on the controller whole, of the GPU host by their first bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

from multigpu.errors import ModelError
from multigpu.model.gguf_header import Tensor
from multigpu.model.gguf_model import from_gguf
from multigpu.model_reference import shard_names as shard_names
from multigpu.plan import ModelSpec, Source


@dataclass(frozen=True)
class HostFile:
    """A file of the GPU host: its size, and its first bytes where they were asked for."""

    size_bytes: int
    head: bytes = b""


def from_file(reference: str, path: Path, *, hashed: bool = True) -> ModelSpec:
    """A GGUF of the controller with its shards; one file carries its sha256 if `hashed`.

    The hash names the file on a GPU host. It reads all of the file, a minute and more for 40 GiB.
    """
    if path.suffix != ".gguf":
        raise ModelError(f"{reference}: neither a folder with config.json nor a .gguf file")
    shards = [path.with_name(name) for name in shard_names(path.name)]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise ModelError(f"{reference}: shard {missing[0]} is missing")
    fields, tensors = _read_shards(reference, shards)
    single = shards[0] if len(shards) == 1 else None
    return from_gguf(
        fields,
        tensors,
        name=reference,
        source=Source.CONTROLLER,
        path=reference,
        size_bytes=sum(shard.stat().st_size for shard in shards),
        sha256=_sha256(single) if single and hashed else None,
    )


def from_header(reference: str, path: Path) -> ModelSpec:
    """A GGUF of which nothing but the header is read: a copy without its data is enough."""
    fields, tensors = _read_shards(reference, [path])
    return from_gguf(
        fields,
        tensors,
        name=reference,
        source=Source.CONTROLLER,
        path=reference,
        size_bytes=path.stat().st_size,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def from_heads(
    reference: str,
    files: Mapping[str, HostFile],
    *,
    where: Source = Source.HOST,
    first: str | None = None,
    path: str | None = None,
) -> ModelSpec:
    """A GGUF that lies elsewhere, from the first bytes of every shard by name.

    `first` is the name of one shard and `path` the model's path, where `reference` is neither.
    """
    names = shard_names(first or reference.rpartition("/")[2])
    missing = [name for name in names if name not in files]
    if missing:
        raise ModelError(f"{reference}: {missing[0]} is missing on the {where}")
    with tempfile.TemporaryDirectory(prefix="multigpu-") as folder:
        shards = [_sparse(Path(folder) / name, files[name]) for name in names]
        heads = [len(files[name].head) for name in names]
        fields, tensors = _read_shards(reference, shards, heads)
    return from_gguf(
        fields,
        tensors,
        name=reference,
        source=where,
        path=path or reference,
        size_bytes=sum(files[name].size_bytes for name in names),
    )


def _sparse(path: Path, file: HostFile) -> Path:
    """The header in a file of the full size: the reader maps tensors without reading them."""
    with path.open("wb") as out:
        out.write(file.head)
        out.truncate(max(file.size_bytes, len(file.head)))
    return path


def _read_shards(
    reference: str, shards: list[Path], heads: list[int] | None = None
) -> tuple[dict[str, object], list[Tensor]]:
    """Metadata of the first shard and the tensors of all of them."""
    from gguf import GGUFReader

    fields: dict[str, object] = {}
    tensors: list[Tensor] = []
    for number, shard in enumerate(shards):
        read = heads[number] if heads is not None else None
        try:
            reader = GGUFReader(shard)
        except Exception as error:  # the reader has no error class of its own
            raise ModelError(_cut(reference, shard.name, read, type(error).__name__)) from None
        if read is not None and reader.data_offset > read:
            raise ModelError(_cut(reference, shard.name, read, f"ends at {reader.data_offset}"))
        tensors += [
            (str(tensor.name), int(tensor.n_bytes), int(tensor.n_elements))
            for tensor in reader.tensors
        ]
        if number == 0:
            fields = {name: _value(name, field) for name, field in reader.fields.items()}
    return fields, tensors


def _cut(reference: str, shard: str, read: int | None, found: str) -> str:
    if read is None:
        return f"{reference}: {shard} is not a whole GGUF ({found}): download it again"
    return f"{reference}: no whole GGUF header in the first {read} bytes of {shard} ({found})"


def _value(name: str, field: Any) -> object:
    """The metadata value; for the token list its length, which is all that is asked of it."""
    if name.startswith("tokenizer.ggml."):
        return len(field.data) if name == "tokenizer.ggml.tokens" else None
    value = field.contents()
    if name == "general.file_type" and isinstance(value, int):
        return _file_type(value)
    return value


def _file_type(number: int) -> str:
    from gguf import LlamaFileType

    known = {int(item): item.name for item in LlamaFileType}
    return known.get(number, str(number)).removeprefix("MOSTLY_").removeprefix("ALL_")
