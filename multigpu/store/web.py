"""A GGUF at an address of any server: its header by range requests, its hash from the wish."""

from __future__ import annotations

from dataclasses import replace

from multigpu.errors import ModelError
from multigpu.fetching import file_name
from multigpu.host.fetch_http import Client
from multigpu.model_reference import check_address, shard_addresses
from multigpu.plan import ModelFile, ModelSpec, Source
from multigpu.store import gguf_files, remote


def load(address: str, sha256: tuple[str, ...]) -> ModelSpec:
    """The model behind an address, all shards of a set. Raises ModelError.

    `sha256` has one hash for each shard, in their order. Without them it is refused: nothing on the
    way would notice other bytes, and what is trusted at first sight is trusted for good.
    """
    check_address(address)
    addresses = shard_addresses(address)
    if len(sha256) != len(addresses):
        raise ModelError(_needs_hashes(address, len(sha256), len(addresses)))
    client = Client(allow_http=address.startswith("http://"))
    heads = {file_name(each): remote.gguf_head(client, each) for each in addresses}
    found = gguf_files.from_heads(
        address, heads, where=Source.URL, first=file_name(address), path=address
    )
    files = tuple(
        ModelFile(name, head.size_bytes, digest)
        for (name, head), digest in zip(heads.items(), sha256, strict=True)
    )
    return replace(found, name=file_name(address), files=files)


def _needs_hashes(address: str, given: int, needed: int) -> str:
    hashes = "sha256 = '...'" if needed == 1 else f"sha256 = [...] with {needed} hashes"
    return (
        f"{address}: {given or 'no'} sha256 given, needed is one for each of {needed} files: set "
        f"{hashes} as the publisher states them (the hub states them itself: name org/name)"
    )
