"""Ignore lists of quantizers: which modules a pattern names.

A list may hold whole names, prefixes, parts of names, shell patterns (ModelOpt) or regular
expressions after `re:` (compressed-tensors). Checkpoints call the blocks `model.layers.N`,
`model.language_model.layers.N`, `backbone.layers.N`, `transformer.h.N`; what stands before is
therefore not compared, except by regular expressions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate

from multigpu.errors import ModelError

LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d{1,5})(?=$|[.*])")
# A quantified group that holds a quantifier takes exponential time on some names.
NESTED = re.compile(r"\([^()]*[*+][^()]*\)[*+{]")
# Blocks of something else than the language model: towers, layers that only draft.
ELSEWHERE = re.compile(r"(?:^|\.)(?:mtp|nextn|visual|vision\w*|audio\w*|encoder)(?:\.|$)")
PATTERN_MAX = 400
PREFIXES = ("model.", "model.language_model.", "language_model.model.", "backbone.", "")


class Names:
    """A compiled list of patterns. Raises ModelError for a pattern that cannot be used."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._layers: dict[int, list[re.Pattern[str]]] = {}
        self._exact: set[str] = set()
        self._parts: list[str] = []
        self._shell: list[re.Pattern[str]] = []
        self._regex: list[re.Pattern[str]] = []
        for pattern in patterns:
            self._add(pattern)

    def __bool__(self) -> bool:
        return bool(self._layers or self._exact or self._parts or self._shell or self._regex)

    def _add(self, pattern: str) -> None:
        if pattern.startswith("re:"):
            self._regex.append(_compiled(pattern[3:]))
            return
        layer = LAYER.search(pattern)
        wild = "*" in pattern or "?" in pattern
        if layer is None:
            if wild:
                self._shell.append(_compiled(translate(pattern)))
            else:
                self._parts.append(f".{pattern.strip('.')}.")
            return
        if ELSEWHERE.search(pattern[: layer.start()]):
            return
        rest = "layers." + pattern[layer.start(1) :]
        if wild:
            self._layers.setdefault(int(layer[1]), []).append(_compiled(translate(rest)))
        else:
            self._exact.add(rest)

    def match(self, layer: int | None, module: str) -> bool:
        """True when the module of a block (None: outside of the blocks) is named."""
        name = module if layer is None else f"layers.{layer}.{module}"
        if self._exact and any(part in self._exact for part in _ancestors(name)):
            return True
        if layer is not None and any(p.match(name) for p in self._layers.get(layer, ())):
            return True
        dotted = f".{name}."
        if any(part in dotted for part in self._parts):
            return True
        if any(p.match(prefix + name) for p in self._regex for prefix in PREFIXES):
            return True
        return any(
            p.match(prefix + part)
            for p in self._shell
            for part in _ancestors(name)
            for prefix in PREFIXES
        )


def _ancestors(name: str) -> Iterable[str]:
    """The name and every module that holds it."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _compiled(regex: str) -> re.Pattern[str]:
    if len(regex) > PATTERN_MAX or NESTED.search(regex):
        raise ModelError(f"quantization_config: the pattern {regex[:60]!r} is not supported")
    try:
        return re.compile(regex)
    except (re.error, OverflowError, RecursionError):
        raise ModelError(f"quantization_config: {regex[:60]!r} is no regular expression") from None
