"""What a model says of itself: config.json, and the metadata that llama.cpp prints of a GGUF.

Binary .gguf files are read by `multigpu.store.gguf_files`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multigpu.errors import ModelError
from multigpu.model import from_hf_config
from multigpu.parse.engines.gguf_metadata import read_gguf_metadata
from multigpu.parse.reading import Kind, Lines, Reading, signature
from multigpu.parse.shape import integer, items, mapping, text
from multigpu.plan import ModelSpec, Source

LAYERS_MAX = 4096
PATTERN_NAMES = {"M": "mamba", "*": "full_attention", "-": "mlp", "E": "moe"}


@dataclass(frozen=True)
class ModelConfig:
    """Just what a config.json says; keys that are absent are None, whatever their default.

    `head_dim` is hidden_size / num_attention_heads where the key is absent (`head_dim_derived`).
    With `kv_lora_rank` (MLA) num_key_value_heads says nothing about the cache. `layer_types` counts
    the layers of each type. `nested` is True when the text model stands under text_config. `spec`
    is the model as the planner sees it, or None with the reason in `refused`.
    """

    architecture: str | None = None
    model_type: str | None = None
    num_hidden_layers: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    head_dim_derived: bool = False
    vocab_size: int | None = None
    max_position_embeddings: int | None = None
    tie_word_embeddings: bool | None = None
    num_experts: int | None = None
    num_experts_per_tok: int | None = None
    moe_intermediate_size: int | None = None
    sliding_window: int | None = None
    kv_lora_rank: int | None = None
    qk_rope_head_dim: int | None = None
    layer_types: tuple[tuple[str, int], ...] = ()
    dtype: str | None = None
    quant_method: str | None = None
    nested: bool = False
    spec: ModelSpec | None = None
    refused: str | None = None

    def layers_of(self, kind: str) -> int:
        """How many layers have that type; 0 when the file lists none."""
        return dict(self.layer_types).get(kind, 0)


def read_hf_config(document: str) -> Reading[ModelConfig]:
    """A config.json; of one that was cut, what came before the cut."""
    lines = Lines(document)
    config, start, end = _object(document)
    if config:
        for index in range(document.count("\n", 0, start), document.count("\n", 0, end) + 1):
            lines.mark(index)
    return lines.reading(_model_config(config) if config else ModelConfig())


# A fragment begins with a key on a line of its own.
KEY = re.compile(r'^[ \t]*"\w{1,80}"[ \t]*:', re.MULTILINE)


def _object(document: str) -> tuple[dict[str, object], int, int]:
    """The first JSON object, where it begins and ends; a cut one is closed at a comma."""
    start, key = document.find("{"), KEY.search(document)
    if key is not None and (start < 0 or key.start() < start):
        found, _, end = _object("{" + document[key.start() :])
        return found, key.start(), max(end - 1, 0) + key.start()
    if start < 0:
        return {}, 0, 0
    try:
        value, end = json.JSONDecoder().raw_decode(document, start)
        return mapping(value), start, end
    except json.JSONDecodeError as error:
        return _cut(document, start, error.pos)
    except (ValueError, RecursionError):
        return _cut(document, start, len(document))


def _cut(document: str, start: int, broken: int) -> tuple[dict[str, object], int, int]:
    """Up to a comma outside of strings, brackets closed; the last comma that gives an object."""
    for end, closing in reversed(_commas(document, start, broken)[-20:]):
        try:
            value = json.loads(document[start:end] + closing)
        except (ValueError, RecursionError):
            continue
        return mapping(value), start, end
    return {}, 0, 0


# A string without its end counts to the end, so that no part of it is looked at twice.
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[{}\[\],]', re.DOTALL)


def _commas(document: str, start: int, end: int) -> list[tuple[int, str]]:
    """Offset of every comma before the end, with the brackets that are open there."""
    open_brackets: list[str] = []
    commas: list[tuple[int, str]] = []
    for match in TOKEN.finditer(document, start, min(end + 1, start + 1_000_000)):
        token = match[0]
        if token in "{[":
            open_brackets.append("}" if token == "{" else "]")
        elif token in "}]" and open_brackets:
            open_brackets.pop()
        elif token == "," and len(open_brackets) < 100:
            commas.append((match.start(), "".join(reversed(open_brackets))))
    return commas


def _model_config(config: dict[str, object]) -> ModelConfig:
    nested = mapping(config.get("text_config"))
    inner = {**config, **{k: v for k, v in nested.items() if v is not None}}
    quantization = mapping(config.get("quantization_config") or nested.get("quantization_config"))
    heads, hidden = _whole(inner, "num_attention_heads", "n_head"), _whole(inner, *HIDDEN)
    stated = _whole(inner, "head_dim")
    derived = hidden // heads if hidden and heads else None
    tied = inner.get("tie_word_embeddings")
    spec, refused = _spec(config)
    return ModelConfig(
        architecture=_architecture(config),
        model_type=text(config.get("model_type")),
        num_attention_heads=heads,
        hidden_size=hidden,
        head_dim=stated or derived,
        head_dim_derived=not stated and derived is not None,
        tie_word_embeddings=tied if isinstance(tied, bool) else None,
        layer_types=_layer_types(inner),
        dtype=(text(inner.get("dtype")) or text(inner.get("torch_dtype"))),
        quant_method=text(quantization.get("quant_method")),
        nested=bool(nested),
        spec=spec,
        refused=refused,
        **{name: _whole(inner, *keys) for name, keys in WHOLES.items()},
    )


HIDDEN = ("hidden_size", "n_embd")
# Our name -> the spellings in config.json (Transformers; DeepSeek and GLM say n_routed_experts).
WHOLES = {
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "num_key_value_heads": ("num_key_value_heads",),
    "intermediate_size": ("intermediate_size", "n_inner"),
    "vocab_size": ("vocab_size",),
    "max_position_embeddings": ("max_position_embeddings", "n_positions"),
    "num_experts": ("num_experts", "num_local_experts", "n_routed_experts"),
    "num_experts_per_tok": ("num_experts_per_tok", "top_k_experts", "experts_per_token"),
    "moe_intermediate_size": ("moe_intermediate_size",),
    "sliding_window": ("sliding_window",),
    "kv_lora_rank": ("kv_lora_rank",),
    "qk_rope_head_dim": ("qk_rope_head_dim",),
}


def _whole(config: Mapping[str, object], *keys: str) -> Any:
    """The first spelling that is a whole number from 0 to a billion."""
    values = (integer(config.get(key)) for key in keys)
    return next((v for v in values if v is not None and 0 <= v <= 10**9), None)


def _architecture(config: Mapping[str, object]) -> str | None:
    return next((name for name in map(text, items(config.get("architectures"))) if name), None)


def _layer_types(config: Mapping[str, object]) -> tuple[tuple[str, int], ...]:
    """Counts by type: `layer_types`, Nemotron-H's `M*-` pattern, MiMo's list of 0 and 1."""
    pattern = text(config.get("hybrid_override_pattern"))
    binary = [integer(item) for item in items(config.get("hybrid_layer_pattern"))]
    names: list[str] = [name for name in map(text, items(config.get("layer_types"))) if name]
    if not names and pattern:
        names = [PATTERN_NAMES.get(letter, letter) for letter in pattern[:LAYERS_MAX]]
    if not names:
        names = ["sliding_attention" if value else "full_attention" for value in binary]
    return tuple(Counter(names[:LAYERS_MAX]).items())


def _spec(config: dict[str, object]) -> tuple[ModelSpec | None, str | None]:
    """The planner's view, or why there is none."""
    name = text(config.get("_name_or_path")) or _architecture(config) or "model"
    inner = {**config, **mapping(config.get("text_config"))}
    numbers = [n for value in inner.values() if (n := integer(value)) is not None]
    if max(map(abs, numbers), default=0) > 10**12 or (_layers(inner) or 0) > LAYERS_MAX:
        return None, f"{name}: config.json has a number that no model has"
    try:
        return (
            from_hf_config(config, name=name, source=Source.HUB, path=name, weights_bytes=None),
            None,
        )
    except ModelError as error:
        return None, str(error)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        return None, f"{name}: config.json is malformed: {error}"


def _layers(config: Mapping[str, object]) -> int | None:
    counts = [integer(config.get(key)) for key in WHOLES["num_hidden_layers"]]
    return max((count for count in counts if count is not None), default=None)


SIZE = r'"(?:num_hidden_layers|hidden_size|n_embd|vocab_size|num_attention_heads)"\s*:'
WHOLE_FILE = signature(r"\A\s*\{", r'"(?:architectures|model_type)"\s*:', SIZE)
FRAGMENT = signature(
    r'^\s*"(?:num_(?:hidden_layers|attention_heads|key_value_heads)|hidden_size|vocab_size)"\s*:\s*\d',
    sure=0.8,
)


def recognise_hf_config(document: str) -> float:
    """A whole file, or a fragment with one of its sizes."""
    return max(WHOLE_FILE(document), FRAGMENT(document))


KINDS = (
    Kind(
        "hf-config",
        "Hugging Face config.json of a model",
        recognise_hf_config,
        read_hf_config,
    ),
    Kind(
        "gguf-metadata",
        "metadata of a GGUF file as llama.cpp prints it",
        # Below llama-cpp-log, whose texts hold such a block too.
        signature(r"(?:print_meta|print_info): +\w[\w. ]* *= |llama_model_loader: - ", sure=0.8),
        read_gguf_metadata,
    ),
)
