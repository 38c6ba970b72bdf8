"""What `model` of a service names on the hub or on the web: repository, file, address.

org/name                    a repository of the hub, in Transformers format or with one GGUF
org/name:Q4_K_M             its GGUF of that quantization
org/name/folder/file.gguf   its GGUF of that path
https://host/path/file.gguf a GGUF of any server, all shards of a set by naming one
https://HUB/org/name/...    the same as org/name and its revision
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from multigpu.errors import ModelError

HUB = "https://huggingface.co"
HUB_NAMES = ("huggingface.co", "www.huggingface.co", "hf.co")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/\w[\w.-]*", re.ASCII)
QUANTIZATION = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
SIGNED = re.compile(r"(^|.*[-_])(sig|signature|token|key|secret|password|credential)s?", re.I)


@dataclass(frozen=True)
class HubReference:
    """A repository of the hub; `filename` or `quantization` picks one of its GGUFs."""

    repo_id: str
    filename: str | None = None
    quantization: str | None = None
    revision: str | None = None


def is_address(reference: str) -> bool:
    """True for http and https."""
    return reference.lower().startswith(("https://", "http://"))


def hub_reference(reference: str, endpoint: str = HUB) -> HubReference | None:
    """What it names on the hub; None when it names something else. `endpoint`: HF_ENDPOINT."""
    if is_address(reference):
        return _page(reference, endpoint)
    repo_id, colon, quantization = reference.partition(":")
    if colon:
        whole = REPOSITORY.fullmatch(repo_id) and QUANTIZATION.fullmatch(quantization)
        return HubReference(repo_id, quantization=quantization) if whole else None
    parts = reference.split("/")
    repo_id, filename = "/".join(parts[:2]), "/".join(parts[2:])
    if not REPOSITORY.fullmatch(repo_id) or repo_id.endswith(".gguf"):
        return None
    if not filename:
        return HubReference(repo_id)
    return HubReference(repo_id, filename) if _is_gguf_path(filename) else None


def _is_gguf_path(path: str) -> bool:
    return path.endswith(".gguf") and not {"", ".", ".."} & set(path.split("/"))


def _page(address: str, endpoint: str) -> HubReference | None:
    """An address of the hub: /org/name, /org/name/tree/REV, /org/name/resolve/REV/file.gguf."""
    parts = urlsplit(address)
    own = urlsplit(endpoint)
    if (parts.scheme, parts.netloc) != (own.scheme, own.netloc) and (
        parts.scheme != "https" or parts.netloc not in HUB_NAMES
    ):
        return None
    words = [unquote(word) for word in parts.path.strip("/").split("/")]
    repo_id, rest = "/".join(words[:2]), words[2:]
    if not REPOSITORY.fullmatch(repo_id) or repo_id.endswith(".gguf"):
        return None  # a mirror may serve other files, too
    if not rest:
        return HubReference(repo_id)
    kind, revision, filename = rest[0], "/".join(rest[1:2]), "/".join(rest[2:])
    if kind == "tree" and revision and not filename:
        return HubReference(repo_id, revision=revision)
    if kind in ("resolve", "blob", "raw") and revision and _is_gguf_path(filename):
        return HubReference(repo_id, filename, revision=revision)
    raise ModelError(
        f"{address} is a page of the hub that names no model: give org/name, org/name:Q4_K_M or "
        "org/name/file.gguf"
    )


def check_address(address: str) -> None:
    """A GGUF, and nothing secret: plans can be read by everybody. Raises ModelError."""
    parts = urlsplit(address)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if "@" in parts.netloc or any(SIGNED.fullmatch(name) for name, _ in parse_qsl(parts.query)):
        raise ModelError(
            f"{shown}: the address holds a login or a signature, which plans would show to "
            "everybody: download the model on the controller and give its path"
        )
    if not parts.hostname or not parts.path.endswith(".gguf"):
        raise ModelError(
            f"{shown} is no address of a GGUF: give one that ends in .gguf, or a repository of the "
            "hub as org/name"
        )


def shard_names(name: str) -> tuple[str, ...]:
    """All shards of a GGUF, first one first; the name itself when it is not `-00001-of-0000N`."""
    match = SHARD.match(name)
    if match is None:
        return (name,)
    count = int(match["count"])
    return tuple(f"{match['stem']}-{i:05d}-of-{count:05d}.gguf" for i in range(1, count + 1))


def shard_addresses(address: str) -> tuple[str, ...]:
    """The addresses of all shards."""
    base, _, name = address.partition("?")[0].rpartition("/")
    query = address.partition("?")[1] + address.partition("?")[2]
    return tuple(f"{base}/{shard}{query}" for shard in shard_names(name))
