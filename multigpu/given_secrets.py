"""Secrets that an operator wrote into a wish, by the name they have or by what they look like."""

from __future__ import annotations

import re
from collections.abc import Mapping

NAMED = re.compile(r"(.*[_-])?(TOKEN|SECRET|PASSWORD|PASSWD|API[_-]?KEY|ACCESS[_-]KEY)", re.I)
"""Names of flags and variables whose value is a secret. HF_TOKEN_PATH and TOKENIZERS_* are none."""
EMBEDDED = re.compile(
    r"://[^/\s:@]*:[^/\s@]+@|\bhf_[A-Za-z0-9]{20}|\bsk-[A-Za-z0-9_-]{20}", re.I | re.ASCII
)
"""A URL with user and password, a token of the Hugging Face hub, an OpenAI-like API key."""


def is_secret(name: str, value: object) -> bool:
    """True when the name is that of a secret, or the value holds one whatever its name."""
    named = NAMED.fullmatch(name.lstrip("-")) is not None
    return named or (isinstance(value, str) and EMBEDDED.search(value) is not None)


def shown(value: object) -> object:
    """A wrong value as an error may show it."""
    if isinstance(value, Mapping):
        return {k: "(hidden)" if is_secret(str(k), v) else v for k, v in value.items()}
    return "(hidden)" if is_secret("", value) else value
