"""A model as a person at this machine names it: a folder, a config.json of any name, a GGUF, a hub
id.

Unlike in an inventory (multigpu/store/models.py) an absolute path lies here and not on a GPU host.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from multigpu import model_reference
from multigpu.errors import ModelError
from multigpu.model import from_hf_config
from multigpu.plan import ModelSpec, Source
from multigpu.store import gguf_files, hub, models

CONFIG = "config.json"
QUANT = "hf_quant_config.json"
LARGEST_BYTES = 16 << 20


def load(reference: str) -> ModelSpec:
    """The model of a path of this machine or of a hub id. Raises ModelError."""
    path = Path(reference).expanduser()
    if "\0" in reference or not path.exists():
        here = reference.startswith(("/", "~", "./", "../")) or reference.endswith(".json")
        if here or (reference.endswith(".gguf") and reference.count("/") < 2):
            raise ModelError(f"{reference}: no such file or folder on this machine")
        return _elsewhere(reference)
    if path.is_file() and path.suffix == ".json" and path.name != CONFIG:
        return _bare_config(path)
    place = path.parent if path.name == CONFIG else path
    found = _folder_or_gguf(place)
    return replace(found, name=(place.resolve() if place.is_dir() else place).name)


def _elsewhere(reference: str) -> ModelSpec:
    """A model of the hub; nothing of it is run here, so its own code is no matter."""
    wanted = None
    if "\0" not in reference:
        wanted = model_reference.hub_reference(reference, hub.endpoint())
    if wanted is None:
        raise ModelError(f"{reference!r}: no file or folder here, nor a hub id (org/name)")
    return hub.load(reference, wanted, trust=True)


def _folder_or_gguf(place: Path) -> ModelSpec:
    """Links keep their own name: in the cache of the hub `*.gguf` links to a file named by hash."""
    if place.is_dir():
        return models.from_folder(str(place), place, trust=True)
    return gguf_files.from_file(str(place), place, hashed=False)


def _bare_config(path: Path) -> ModelSpec:
    """A config.json under another name, as collections keep them; weights follow from shapes.

    `Qwen--Qwen3-32B_config.json` is Qwen/Qwen3-32B, and `Qwen--Qwen3-32B_hf_quant_config.json`
    beside it is its hf_quant_config.json.
    """
    stem = path.name.removesuffix(".json").removesuffix("config").rstrip("._-") or path.parent.name
    beside = [path.with_name(f"{stem}{joint}{QUANT}") for joint in "_.-"]
    quant = next((file for file in beside if file.is_file()), None)
    name = stem.replace("--", "/", 1)
    hub = "--" in stem
    return from_hf_config(
        _json(path),
        name=name,
        source=Source.HUB if hub else Source.CONTROLLER,
        path=name if hub else str(path.parent),
        weights_bytes=None,
        quant_config=_json(quant) if quant else None,
    )


def _json(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as stream:
            value = json.loads(stream.read(LARGEST_BYTES))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{path} is not JSON") from None
    if not isinstance(value, Mapping):
        raise ModelError(f"{path} is not a JSON object")
    return value
