"""Which files of a hub repository are the model, and which of them are never taken."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from multigpu.errors import ModelError
from multigpu.model_reference import HubReference, shard_names

COMPANIONS = re.compile(r"(^|[-._/])(mmproj|imatrix)", re.I)
"""GGUFs beside a model that are none: projectors of images, statistics of quantization."""
READ_BY_RUNTIMES = (".safetensors", ".json", ".model", ".txt", ".jinja", ".tiktoken")
"""What a runtime reads of a repository in Transformers format."""
PICKLED = re.compile(r"(^|/)(pytorch_model|model|consolidated)[\w.-]*\.(bin|pt|pth|ckpt|pkl)$")


def pick_gguf(wanted: HubReference, names: Iterable[str]) -> tuple[str, ...] | None:
    """The GGUF, all its shards, that a reference picks of a repository's files.

    None when it picks none and the repository is in Transformers format. Raises ModelError when
    what is asked for is not there, or is not one.
    """
    there = sorted(names)
    ggufs = [name for name in there if name.endswith(".gguf") and not COMPANIONS.search(name)]
    sets = tuple(dict.fromkeys(shard_names(name) for name in ggufs))
    if wanted.filename is not None:
        found = [group for group in sets if wanted.filename in group]
        found = found or [(n,) for n in there if n == wanted.filename]
    elif wanted.quantization is not None:
        found = [group for group in sets if _is_of(group[0], wanted.quantization)]
    elif "config.json" in there and any(name.endswith(".safetensors") for name in there):
        return None
    else:
        if not sets:
            return None
        found = list(sets)
    if len(found) != 1:
        raise ModelError(_which(wanted, found, sets))
    return _whole(wanted, found[0], there)


def _whole(wanted: HubReference, group: tuple[str, ...], there: list[str]) -> tuple[str, ...]:
    missing = [name for name in group if name not in there]
    if missing:
        raise ModelError(f"{wanted.repo_id}: shard {missing[0]} is missing on the hub")
    return group


def _is_of(name: str, quantization: str) -> bool:
    """`model-Q4_K_M.gguf` and `Q4_K_M/model-...` are of Q4_K_M, `model-IQ4_K_M.gguf` is not."""
    word = re.escape(quantization)
    return re.search(rf"(^|[-._/]){word}([-._/]|$)", name, re.I) is not None


def _which(
    wanted: HubReference,
    found: Sequence[tuple[str, ...]],
    sets: Sequence[tuple[str, ...]],
) -> str:
    """Which there are, where none or several were meant."""
    if not sets:
        return f"{wanted.repo_id} holds no GGUF: name a repository that does"
    asked = wanted.filename or wanted.quantization
    listed = found or sets
    names = ", ".join(group[0] for group in listed[:12])
    more = f" and {len(listed) - 12} more" if len(listed) > 12 else ""
    if asked is not None and not found:
        return f"{wanted.repo_id} holds no GGUF {asked}: it holds {names}{more}"
    return (
        f"{wanted.repo_id} holds {len(listed)} GGUFs that are meant: name one as "
        f"{wanted.repo_id}/FILE: {names}{more}"
    )


def read_by_runtimes(names: Iterable[str], *, code: bool) -> tuple[str, ...]:
    """The files of a repository in Transformers format that are fetched; *.py only with `code`.

    Those of its top folder and its further chat templates; Mistral's second copy of the weights
    (consolidated*) is left out.
    """
    return tuple(
        name
        for name in sorted(names)
        if (code and name.endswith(".py"))
        or (
            name.endswith(READ_BY_RUNTIMES)
            and ("/" not in name or name.startswith("additional_chat_templates/"))
            and not name.startswith("consolidated")
        )
    )


def check_formats(reference: str, names: Iterable[str]) -> None:
    """Weights in safetensors, or none. Raises ModelError where they are pickles only."""
    there = sorted(names)
    if any(name.endswith(".safetensors") and "/" not in name for name in there):
        return
    pickled = [name for name in there if PICKLED.search(name)]
    if pickled:
        raise ModelError(
            f"{reference}: its weights are {pickled[0]}, a pickle, which can run code when it is "
            "loaded: name a repository with *.safetensors"
        )


# `auto_map` says which file of the repository defines a class. Transformers 5 has its own classes
# for these model types (CONFIG_MAPPING_NAMES of its models/auto/auto_mappings.py), and takes them
# unless trust_remote_code is set (dynamic_module_utils.resolve_trust_remote_code).
KNOWN_TO_ENGINES = {
    *("deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4", "exaone4", "falcon", "glm4"),
    *("glm4_moe", "glm_moe_dsa", "llama", "mimo_v2_flash", "minicpm3", "minimax_m2", "mistral"),
    *("mixtral", "nemotron_h", "olmo2", "phi3", "qwen2", "qwen3", "qwen3_moe", "step3p5"),
}


def check_code(reference: str, config: Mapping[str, object], trust: bool | None) -> None:
    """A model that needs code of its repository is refused unless that is asked for."""
    classes = config.get("auto_map")
    if not isinstance(classes, Mapping) or not classes:
        return
    if config.get("model_type") in KNOWN_TO_ENGINES and not trust:
        return
    repository, _, module = str(next(iter(classes.values()))).rpartition("--")
    if trust and repository:
        raise ModelError(
            f"{reference}: its code lies in another repository ({repository}), and serving is "
            "offline: download both on the controller, name the code's files in auto_map of "
            "config.json, and give that folder"
        )
    if trust:
        return
    file = module.partition(".")[0]
    raise ModelError(
        f"{reference}: its config.json has auto_map, it runs code of its own ({file}.py), and that "
        "is not asked for: read the code and set trust_remote_code = True, or choose another model"
    )
