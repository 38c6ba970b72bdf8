"""Facts of a model, wherever it lies: on the hub or the web, on the controller, or on the host.

`org/name` is a Hugging Face id unless that path exists here (`multigpu.model_reference` has all
forms); an absolute path lies on the GPU host; anything else is looked up relative to `base`.
Everything that is wrong with a reference is one ModelError.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from multigpu import hub_files, model_reference
from multigpu.errors import ModelError
from multigpu.model import from_hf_config
from multigpu.model.tensor_headers import HEADER_MAX_BYTES, StoredTensor, read_safetensors
from multigpu.plan import ModelSpec, Source, Wish
from multigpu.store import gguf_files, hub, web
from multigpu.store.gguf_files import HostFile


@dataclass(frozen=True)
class Terms:
    """What is said of a model besides its name: keys of the wish, and the hub's token itself."""

    revision: str | None = None
    sha256: tuple[str, ...] | None = None
    trust_remote_code: bool | None = None
    token: str | None = None

    @classmethod
    def of(cls, wish: Wish, token: str | None = None) -> Terms:
        """Those of a wish."""
        return cls(wish.revision, wish.sha256, wish.trust_remote_code, token)


NOTHING = Terms()


def source(reference: str, *, base: Path) -> Source:
    """Where a reference points to. Raises ModelError when nothing of that name can be."""
    if not reference or "\0" in reference:
        raise ModelError("model is empty: give a hub id, a folder or a .gguf file")
    if reference.startswith("/"):
        return Source.HOST
    address = model_reference.is_address(reference)
    if not address and (base / reference).exists():
        return Source.CONTROLLER
    if model_reference.hub_reference(reference, hub.endpoint()) is not None:
        return Source.HUB
    if address:
        return Source.URL
    raise ModelError(
        f"{reference}: no such file or folder under {base.absolute()}, nor a hub id (org/name); "
        "a path on the GPU host starts with /"
    )


def load(reference: str, *, base: Path, terms: Terms = NOTHING) -> ModelSpec:
    """The model of a hub id, an address, or of a path relative to `base`. Raises ModelError.

    A path on the GPU host is refused: its files come over SSH, see `load_host_model`.
    """
    where = source(reference, base=base)
    check_terms(reference, where, terms)
    if where is Source.HUB:
        return _from_hub(reference, terms)
    if where is Source.URL:
        return web.load(reference, terms.sha256 or ())
    if where is Source.CONTROLLER:
        path = base / reference
        if path.is_dir():
            return from_folder(reference, path, trust=terms.trust_remote_code)
        return gguf_files.from_file(reference, path)
    raise ModelError(f"{reference} lies on the GPU host: it can only be read with a host at hand")


def check_terms(reference: str, where: Source, terms: Terms) -> None:
    """What is said of a model must have a meaning where it lies. Raises ModelError."""
    if terms.revision is not None and where is not Source.HUB:
        raise ModelError(
            f"{reference}: revision names a commit of a hub repository, and this is none: leave it "
            "out"
        )
    if terms.sha256 is not None and where not in (Source.HUB, Source.URL):
        raise ModelError(
            f"{reference}: sha256 says what a download must be, and this is a path: leave it out"
        )


def _from_hub(reference: str, terms: Terms) -> ModelSpec:
    wanted = model_reference.hub_reference(reference, hub.endpoint())
    assert wanted is not None, "source() has seen that it is one"
    if terms.revision and wanted.revision and terms.revision != wanted.revision:
        raise ModelError(f"{reference} and revision {terms.revision} differ: leave one of them out")
    wanted = replace(wanted, revision=terms.revision or wanted.revision)
    found = hub.load(reference, wanted, token=terms.token, trust=terms.trust_remote_code)
    listed = tuple(file.sha256 for file in found.files)
    if terms.sha256 is not None and terms.sha256 != listed:
        raise ModelError(
            f"{reference}: the hub lists sha256 {', '.join(map(str, listed[:4]))}, sha256 of the "
            f"wish is {', '.join(terms.sha256[:4])}: check both; it is for a GGUF"
        )
    return found


def load_host_model(
    reference: str, files: Mapping[str, HostFile], terms: Terms = NOTHING
) -> ModelSpec:
    """The model at an absolute path of the GPU host, from what was fetched of it.

    `files` maps base names to sizes and first bytes: whole for config.json,
    hf_quant_config.json and model.safetensors.index.json, at least the header for a .gguf (every
    shard), nothing for the *.safetensors. Raises ModelError.
    """
    check_terms(reference, Source.HOST, terms)
    if not files:
        raise ModelError(f"{reference}: no such file or folder on the host; bring it there first")
    if reference.endswith(".gguf"):
        return gguf_files.from_heads(reference, files)
    if "config.json" not in files:
        raise ModelError(f"{reference}: no config.json in it on the host")
    sizes = {name: file.size_bytes for name, file in files.items()}
    texts = {name: file.head for name, file in files.items() if name.endswith(".json")}
    heads = [file.head for name, file in files.items() if _loaded(name)]
    tensors = _listed(heads)
    _check(reference, texts, sizes, terms.trust_remote_code)
    return _from_texts(reference, Source.HOST, texts, _weights_bytes(texts, sizes), tensors)


def _check(
    reference: str, texts: Mapping[str, bytes], names: Iterable[str], trust: bool | None
) -> None:
    """No pickles, and no code that was not asked for. Raises ModelError."""
    hub_files.check_formats(reference, names)
    config = _json(texts["config.json"], f"{reference}: config.json")
    hub_files.check_code(reference, config, trust)


def from_folder(reference: str, path: Path, *, trust: bool | None = None) -> ModelSpec:
    """A folder of the controller in Transformers format. Raises ModelError."""
    try:
        sizes = {item.name: item.stat().st_size for item in path.iterdir() if item.is_file()}
        wanted = ("config.json", "hf_quant_config.json", "model.safetensors.index.json")
        texts: dict[str, bytes] = {n: (path / n).read_bytes() for n in wanted if n in sizes}
        tensors = _listed([_header(path / n) for n in sorted(sizes) if _loaded(n)])
    except OSError as error:
        raise ModelError(f"{reference}: {error.strerror}") from None
    if "config.json" not in texts:
        raise ModelError(f"{reference}: no config.json in this folder: {_offer_here(sizes)}")
    _check(reference, texts, sizes, trust)
    weights = _weights_bytes(texts, sizes)
    return _from_texts(reference, Source.CONTROLLER, texts, weights, tensors)


def _header(path: Path) -> bytes:
    """The beginning of a *.safetensors that lists its tensors; nothing of the weights."""
    with path.open("rb") as stream:
        length = stream.read(8)
        return length + stream.read(min(int.from_bytes(length, "little"), HEADER_MAX_BYTES))


def _listed(heads: list[bytes]) -> tuple[StoredTensor, ...]:
    """The tensors of all files; none when a header is not there or damaged: sizes decide then."""
    try:
        return tuple(tensor for head in heads for tensor in read_safetensors(head))
    except ModelError:
        return ()


def _weights_bytes(texts: Mapping[str, bytes], sizes: Mapping[str, int]) -> int | None:
    """The *.safetensors together, else what their index says, else None."""
    total = sum(size for name, size in sizes.items() if _loaded(name))
    if total:
        return total
    index = texts.get("model.safetensors.index.json")
    metadata = _json(index, "model.safetensors.index.json").get("metadata") if index else None
    stated = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    return stated if isinstance(stated, int) else None


def _from_texts(
    reference: str,
    where: Source,
    texts: Mapping[str, bytes],
    weights_bytes: int | None,
    tensors: tuple[StoredTensor, ...] = (),
) -> ModelSpec:
    quant = texts.get("hf_quant_config.json")
    return from_hf_config(
        _json(texts["config.json"], f"{reference}: config.json"),
        name=reference,
        source=where,
        path=reference,
        weights_bytes=weights_bytes,
        quant_config=_json(quant, f"{reference}: hf_quant_config.json") if quant else None,
        tensors=tensors,
    )


def _json(text: bytes, what: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ModelError(f"{what} is not JSON") from None
    if not isinstance(value, Mapping):
        raise ModelError(f"{what} is not a JSON object")
    return value


def _loaded(name: str) -> bool:
    """Weights that vLLM loads: *.safetensors of the top folder, without Mistral's second copy."""
    return name.endswith(".safetensors") and "/" not in name and not name.startswith("consolidated")


def _offer_here(names: Iterable[str]) -> str:
    ggufs = sorted(name for name in names if name.endswith(".gguf"))
    if ggufs:
        return f"it holds GGUF files; name one: {ggufs[0]}"
    return "name a folder in Transformers format, or a .gguf file"
