"""Facts of a model, wherever it lies: a hub id, a folder or GGUF on the controller, or the host.

`org/name` is a Hugging Face id unless that path exists here; an absolute path lies on the GPU
host; anything else is looked up relative to `base`. Everything that is wrong with a reference is
one ModelError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from multigpu.errors import ModelError
from multigpu.model import from_hf_config
from multigpu.model.tensor_headers import HEADER_MAX_BYTES, StoredTensor, read_safetensors
from multigpu.plan import ModelSpec, Source
from multigpu.store import gguf_files
from multigpu.store.gguf_files import HostFile

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")


def source(reference: str, *, base: Path) -> Source:
    """Where a reference points to. Raises ModelError when nothing of that name can be."""
    if not reference or "\0" in reference:
        raise ModelError("model is empty: give a hub id, a folder or a .gguf file")
    if reference.startswith("/"):
        return Source.HOST
    if (base / reference).exists():
        return Source.CONTROLLER
    if HUB_ID.match(reference) and not reference.endswith(".gguf"):
        return Source.HUB
    raise ModelError(
        f"{reference}: no such file or folder under {base.absolute()}, nor a hub id (org/name); "
        "a path on the GPU host starts with /"
    )


def load(reference: str, *, base: Path) -> ModelSpec:
    """The model of a hub id or of a path relative to `base`. Raises ModelError.

    A path on the GPU host is refused: its files come over SSH, see `load_host_model`.
    """
    where = source(reference, base=base)
    if where is Source.HUB:
        return _from_hub(reference)
    if where is Source.CONTROLLER:
        path = base / reference
        return (
            from_folder(reference, path) if path.is_dir() else gguf_files.from_file(reference, path)
        )
    raise ModelError(f"{reference} lies on the GPU host: it can only be read with a host at hand")


def load_host_model(reference: str, files: Mapping[str, HostFile]) -> ModelSpec:
    """The model at an absolute path of the GPU host, from what was fetched of it.

    `files` maps base names to sizes and first bytes: whole for config.json,
    hf_quant_config.json and model.safetensors.index.json, at least the header for a .gguf (every
    shard), nothing for the *.safetensors. Raises ModelError.
    """
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
    return _from_texts(reference, Source.HOST, texts, _weights_bytes(texts, sizes), tensors=tensors)


def from_folder(reference: str, path: Path) -> ModelSpec:
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
    weights = _weights_bytes(texts, sizes)
    return _from_texts(reference, Source.CONTROLLER, texts, weights, tensors=tensors)


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
    revision: str | None = None,
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
        revision=revision,
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


def _from_hub(reference: str) -> ModelSpec:
    """config.json and file sizes of one commit; the plan pins that commit."""
    import huggingface_hub

    try:
        info = huggingface_hub.HfApi().model_info(reference, files_metadata=True)
        sizes = {item.rfilename: item.size or 0 for item in info.siblings or ()}
        texts: dict[str, bytes] = {}
        for name in ("config.json", "hf_quant_config.json"):
            if name in sizes:
                file = huggingface_hub.hf_hub_download(reference, name, revision=info.sha)
                texts[name] = Path(file).read_bytes()
    except Exception as error:  # the HTTP library underneath, and its errors, change by version
        raise ModelError(f"{reference}: {_why(error)}") from None
    if "config.json" not in texts:
        raise ModelError(f"{reference}: the hub repository has no config.json: {_offer(sizes)}")
    weights = sum(n for name, n in sizes.items() if _loaded(name)) or None
    tensors = _hub_tensors(reference, info.sha) if weights else ()
    return _from_texts(reference, Source.HUB, texts, weights, info.sha, tensors)


def _hub_tensors(reference: str, revision: str | None) -> tuple[StoredTensor, ...]:
    """What the headers list, by range requests; none where the hub does not give them."""
    import huggingface_hub

    try:
        found = huggingface_hub.get_safetensors_metadata(reference, revision=revision)
        return tuple(
            StoredTensor(name, tensor.data_offsets[1] - tensor.data_offsets[0])
            for file in found.files_metadata.values()
            for name, tensor in file.tensors.items()
        )
    except Exception:  # whatever the HTTP library raises: the sizes of the files are known already
        return ()


def _loaded(name: str) -> bool:
    """Weights that vLLM loads: *.safetensors of the top folder, without Mistral's second copy."""
    return name.endswith(".safetensors") and "/" not in name and not name.startswith("consolidated")


def _offer(names: Iterable[str]) -> str:
    if any(name.endswith(".gguf") for name in names):
        return "it holds GGUF files; download one and name that file"
    return "name a repository in Transformers format"


def _offer_here(names: Iterable[str]) -> str:
    ggufs = sorted(name for name in names if name.endswith(".gguf"))
    if ggufs:
        return f"it holds GGUF files; name one: {ggufs[0]}"
    return "name a folder in Transformers format, or a .gguf file"


def _why(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "the hub refuses access: accept the licence and set HF_TOKEN on the controller"
    if status == 404:
        return "no such model on the hub: check the name, or set HF_TOKEN if it is private"
    if status is not None:
        return f"the hub answered {status}: try again, or download the model and name its folder"
    return (
        f"the hub cannot be reached from the controller ({type(error).__name__}): check the "
        "network, or download the model and name its folder"
    )
