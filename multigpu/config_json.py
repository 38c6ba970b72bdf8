"""Typed access to the keys of a Hugging Face config.json; what is missing is said by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multigpu.errors import ModelError


class ConfigJson:
    """The text part of a config.json: `text_config` when the model has one, else the file.

    `integer` and `integers` raise ModelError when the key is there with another type, or when
    every spelling is absent and no default was given.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        nested = config.get("text_config")
        self.outer = config
        self.inner: Mapping[str, Any] = nested if isinstance(nested, Mapping) else config

    def get(self, *keys: str) -> Any:
        """The first spelling that is there and not null, text part first; else None."""
        for source in (self.inner, self.outer):
            for key in keys:
                if source.get(key) is not None:
                    return source[key]
        return None

    def has(self, *keys: str) -> bool:
        """True when one of the spellings is there and not null."""
        return self.get(*keys) is not None

    def integer(self, *keys: str, default: int | None = None) -> int:
        """A whole number of at least 0."""
        value = self.get(*keys)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ModelError(f"config.json: {keys[0]} is {value!r}, a whole number is needed")
        return value

    def positive(self, *keys: str, default: int | None = None) -> int:
        """A whole number of at least 1."""
        value = self.integer(*keys, default=default)
        if value < 1:
            raise ModelError(f"config.json: {keys[0]} is {value}, at least 1 is needed")
        return value

    def optional(self, *keys: str) -> int | None:
        """A whole number, or None when no spelling is there."""
        return self.integer(*keys) if self.has(*keys) else None

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
