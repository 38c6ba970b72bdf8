"""Typed access to the keys of a Hugging Face config.json, whatever a family calls them.

What is missing is said by name. Keys that a file leaves out because they are the default of their
class are looked up in `multigpu/data/model_defaults.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from multigpu.errors import ModelError
from multigpu.model.model_types import ARCHITECTURES, CLASS_DECIDES, WRAPPED

# Where the language model stands when the file describes more than it.
TEXT_PARTS = ("thinker_config", "text_config", "llm_config", "language_config")
INTEGER_MAX = 10**12

# Our key -> how families spell it, the most telling first. A dot leads into a nested object.
SPELLINGS: dict[str, tuple[str, ...]] = {
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "num_key_value_heads": (
        "num_key_value_heads",
        "num_kv_heads",
        "n_head_kv",
        "multi_query_group_num",
        "num_attention_groups",
        "attn_config.kv_n_heads",
    ),
    "head_dim": ("head_dim", "attention_head_dim", "kv_channels", "hidden_size_per_head"),
    "intermediate_size": (
        "intermediate_size",
        "ffn_hidden_size",
        "ffn_config.ffn_hidden_size",
        "n_inner",
        "ffn_dim",
    ),
    "vocab_size": ("padded_vocab_size", "vocab_size"),
    "max_position_embeddings": (
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "seq_length",
        "model_max_length",
        "max_sequence_length",
    ),
    "num_experts": (
        "num_experts",
        "num_local_experts",
        "n_routed_experts",
        "moe_num_experts",
        "ffn_config.moe_num_experts",
    ),
    "num_experts_per_tok": (
        "num_experts_per_tok",
        "num_experts_per_token",
        "top_k_experts",
        "experts_per_token",
        "moe_topk",
        "moe_top_k",
        "moe_k",
        "num_selected_experts",
        "ffn_config.moe_top_k",
    ),
    "moe_intermediate_size": (
        "moe_intermediate_size",
        "expert_ffn_hidden_size",
        "moe_ffn_hidden_size",
    ),
    "num_shared_experts": (
        "n_shared_experts",
        "num_shared_experts",
        "moe_num_shared_experts",
        "num_shared_expert",
    ),
    "sliding_window": ("sliding_window", "sliding_window_size", "window_size"),
    "num_nextn_predict_layers": (
        "num_nextn_predict_layers",
        "mtp_num_hidden_layers",
        "num_mtp_modules",
        "mtp_num_layers",
    ),
}

ALWAYS_STATED = frozenset(
    spelling
    for key in (
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "vocab_size",
    )
    for spelling in SPELLINGS[key]
)


@cache
def class_defaults() -> Mapping[str, Mapping[str, Any]]:
    """model_type -> what its configuration class sets where config.json says nothing."""
    text = files("multigpu").joinpath("data/model_defaults.json").read_text("utf-8")
    found: Mapping[str, Mapping[str, Any]] = json.loads(text)["defaults"]
    return found


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object that describes the language model: the file itself, or what it nests."""
    for _ in range(3):
        nested = next((config[k] for k in TEXT_PARTS if isinstance(config.get(k), Mapping)), None)
        if not nested:
            return config
        config = nested
    return config


class ConfigJson:
    """The text part of a config.json: the nested object when the model has one, else the file.

    `integer` and `integers` raise ModelError when the key is there with another type, or when
    every spelling is absent and no default was given. `inner` is the text part, `outer` the file.
    """

    def __init__(self, config: Mapping[str, Any], *, nested: bool = False) -> None:
        self.outer = config
        self.inner = config if nested else text_part(config)
        self.model_type = self._model_type()
        self._defaults = self._class_defaults(nested or self.inner is not self.outer)

    def _class_defaults(self, nested: bool) -> Mapping[str, Any]:
        """A file of its own always states its sizes; only a nested part leaves those out too."""
        found = class_defaults().get(self.model_type, {})
        if nested:
            return found
        return {key: value for key, value in found.items() if key not in ALWAYS_STATED}

    def _model_type(self) -> str:
        """The text part's own; else by its class, by what wraps it, or the file's."""
        own = self.inner.get("model_type")
        classes = (self.inner.get("architectures"), self.outer.get("architectures"))
        by_class = next((f for f in map(_family, classes) if f is not None), None)
        known = own in class_defaults() and own not in CLASS_DECIDES if type(own) is str else False
        if isinstance(own, str) and (known or by_class is None):
            return own
        outer = self.outer.get("model_type")
        wrapped = WRAPPED.get(outer, outer) if isinstance(outer, str) else None
        return by_class or wrapped or "unknown"

    def get(self, *keys: str) -> Any:
        """The first spelling that is there and not null: text part, file, class default.

        What the file sets to null is unset, whatever the default.
        """
        found = self.stated(*keys)
        if found is not None or any(key in self.inner for key in _spellings(keys)):
            return found
        return next((v for k in _spellings(keys) if (v := self._defaults.get(k)) is not None), None)

    def stated(self, *keys: str) -> Any:
        """As `get`, without the defaults of the class."""
        for source in (self.inner, self.outer):
            for spelling in _spellings(keys):
                found = _at(source, spelling)
                if found is not None:
                    return found
        return None

    def has(self, *keys: str) -> bool:
        """True when one of the spellings is there and not null."""
        return self.get(*keys) is not None

    def flag(self, *keys: str) -> bool:
        """True when one of the spellings says so."""
        return self.get(*keys) is True

    def integer(self, *keys: str, default: int | None = None, layer: int | None = None) -> int:
        """A whole number of at least 0; of a list, the entry of that layer."""
        value = self.get(*keys)
        if isinstance(value, list) and layer is not None and layer < len(value):
            value = value[layer]
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ModelError(f"config.json: {keys[0]} is {value!r}, a whole number is needed")
        if value > INTEGER_MAX:
            raise ModelError(f"config.json: {keys[0]} is {value}, a number that no model has")
        return value

    def positive(self, *keys: str, default: int | None = None, layer: int | None = None) -> int:
        """A whole number of at least 1."""
        value = self.integer(*keys, default=default, layer=layer)
        if value < 1:
            raise ModelError(f"config.json: {keys[0]} is {value}, at least 1 is needed")
        return value

    def optional(self, *keys: str, layer: int | None = None) -> int | None:
        """A whole number, or None when no spelling is there."""
        return self.integer(*keys, layer=layer) if self.has(*keys) else None

    def text(self, *keys: str, default: str) -> str:
        """A string, or the default when no spelling is there."""
        value = self.get(*keys)
        return value if isinstance(value, str) else default

    def names(self, key: str) -> tuple[str, ...] | None:
        """A list of names, or None when the key is not there."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ModelError(f"config.json: {key} is not a list of names")
        return tuple(value)

    def part(self, *keys: str) -> ConfigJson | None:
        """A nested object (vision_config, attn_config) as a configuration of its own."""
        value = self.stated(*keys)
        return ConfigJson(value, nested=True) if isinstance(value, Mapping) and value else None

    def whole_numbers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers; empty when the key is not there. Raises ModelError."""
        value = self.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(type(item) is int for item in value):
            raise ModelError(f"config.json: {key} is not a list of whole numbers")
        return tuple(value)


def _family(classes: object) -> str | None:
    named = classes[0] if isinstance(classes, list) and classes else None
    return ARCHITECTURES.get(named) if isinstance(named, str) else None


def _spellings(keys: tuple[str, ...]) -> Iterator[str]:
    for key in keys:
        yield from SPELLINGS.get(key, (key,))


def _at(source: Mapping[str, Any], spelling: str) -> Any:
    if "." not in spelling:
        return source.get(spelling)
    outer, inner = spelling.split(".")
    nested = source.get(outer)
    return nested.get(inner) if isinstance(nested, Mapping) else None
