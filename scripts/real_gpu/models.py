"""Folders that vLLM starts without a download: a published configuration and a tokenizer of words.

The weights are made up by vLLM (`--load-format dummy`); memory and speed do not depend on them.
Only the text part of a model is kept: processors of pictures would need files we do not have.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGURATIONS = REPOSITORY / "benchmarks" / "models"


def found(extra: Sequence[str], wanted: Sequence[str]) -> list[tuple[str, Path]]:
    """(name, config.json) of the repository's models and of folders of others.

    `wanted` are parts of names, in whose order they come; all of them when it is empty.
    """
    places = [CONFIGURATIONS, *map(Path, extra)]
    known = {p.parent.name: p for place in places for p in sorted(place.glob("*/config.json"))}
    if not wanted:
        return list(known.items())
    return [(n, p) for part in wanted for n, p in known.items() if part.lower() in n.lower()]


def made(config: Path, folder: Path) -> Path:
    """`folder` with the text configuration and a tokenizer of as many words as the model knows."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = text_only(json.loads(config.read_text(encoding="utf-8")))
    (folder / "config.json").write_text(json.dumps(shown, indent=1))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(int(shown["vocab_size"]))))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0", "eos_token": "w1"}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))
    return folder


# The class of the language model alone, by the model_type of a text part.
TEXT_CLASSES = {
    "gemma3_text": "Gemma3ForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


def text_only(config: dict[str, Any]) -> dict[str, Any]:
    """The text part as a model of its own, where vLLM has a class for it."""
    text = config.get("text_config")
    if not isinstance(text, dict) or text.get("model_type") not in TEXT_CLASSES:
        return {**config, "vocab_size": config.get("vocab_size") or (text or {})["vocab_size"]}
    kept = {k: config[k] for k in ("dtype", "torch_dtype", "quantization_config") if k in config}
    name = TEXT_CLASSES[text["model_type"]]
    return {**kept, "tie_word_embeddings": False, **text, "architectures": [name]}


def tokenizer(words: int) -> dict[str, Any]:
    """A tokenizer.json whose word n is `wn`; every other word is w0."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {f"w{n}": n for n in range(words)},
            "unk_token": "w0",
        },
    }
