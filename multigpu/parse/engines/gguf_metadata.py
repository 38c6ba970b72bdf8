"""The metadata of a GGUF file as llama.cpp prints it while it loads one.

`llm_load_print_meta:` became `print_info:`; a copy from a web page has lost its alignment. Before
it stand the keys of the file itself, `llama_model_loader: - kv`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from multigpu.parse.reading import Lines, Reading
from multigpu.parse.shape import text


@dataclass(frozen=True)
class GgufMetadata:
    """What llama.cpp prints of a GGUF, in its own names.

    `n_head`, `n_head_kv` and `n_ff` are the largest of all layers where these differ. `params` is
    as precise as it was printed (235.094 B), `size_mib` too. `tensor_types` counts tensors by type.
    """

    architecture: str | None = None
    name: str | None = None
    path: str | None = None
    n_ctx_train: int | None = None
    n_embd: int | None = None
    n_layer: int | None = None
    n_head: int | None = None
    n_head_kv: int | None = None
    n_embd_head_k: int | None = None
    n_embd_head_v: int | None = None
    n_embd_k_gqa: int | None = None
    n_embd_v_gqa: int | None = None
    n_ff: int | None = None
    n_expert: int | None = None
    n_expert_used: int | None = None
    n_swa: int | None = None
    n_vocab: int | None = None
    n_lora_kv: int | None = None
    type: str | None = None
    ftype: str | None = None
    params: int | None = None
    size_mib: float | None = None
    bits_per_weight: float | None = None
    tensor_types: tuple[tuple[str, int], ...] = ()


META = re.compile(r"print_(?:meta|info): +([A-Za-z][\w. ]{0,40}?) *= (.{0,400})")
PAIR = re.compile(
    r"llama_model_loader: - kv +\d{1,6}: +(\S{1,200}) +"
    r"(?:str|[uif]\d{1,2}|bool|arr\[\w{1,8},\d{1,12}\]) += (.{0,400})",
    re.ASCII,
)
TYPE = re.compile(r"llama_model_loader: - type +(\w{1,20}): +(\d{1,9}) tensors", re.ASCII)
LOADED = re.compile(r"loaded meta data with \d{1,9} key-value pairs and \d{1,9} tensors from (.*)")
# Our name -> what print_meta calls it.
PRINTED = {
    **{name: name for name in ("n_ctx_train", "n_embd", "n_layer", "n_head", "n_head_kv")},
    **{name: name for name in ("n_embd_head_k", "n_embd_head_v", "n_embd_k_gqa", "n_embd_v_gqa")},
    **{name: name for name in ("n_ff", "n_expert", "n_expert_used", "n_swa", "n_vocab")},
    "n_lora_kv": "n_lora_kv",
}
# Our name -> the key in the file, after the architecture.
STORED = {
    "n_ctx_train": "context_length",
    "n_embd": "embedding_length",
    "n_layer": "block_count",
    "n_head": "attention.head_count",
    "n_head_kv": "attention.head_count_kv",
    "n_embd_head_k": "attention.key_length",
    "n_embd_head_v": "attention.value_length",
    "n_ff": "feed_forward_length",
    "n_expert": "expert_count",
    "n_expert_used": "expert_used_count",
    "n_swa": "attention.sliding_window",
    "n_vocab": "vocab_size",
    "n_lora_kv": "attention.kv_lora_rank",
}
SCALE = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
SIZE = re.compile(
    r"(\d{1,9}(?:\.\d{1,6})?) ([KMGT])iB(?: \((\d{1,3}(?:\.\d{1,6})?) BPW\))?", re.ASCII
)
PARAMS = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ([KMBT])\b", re.ASCII)


def read_gguf_metadata(printed: str) -> Reading[GgufMetadata]:
    """print_meta, print_info and `llama_model_loader: - kv` lines of llama.cpp, old and new."""
    lines = Lines(printed)
    return lines.reading(gguf_metadata(lines) or GgufMetadata())


def gguf_metadata(lines: Lines) -> GgufMetadata | None:
    """The metadata in a log, None when it holds none; the first model of several wins."""
    meta: dict[str, str] = {}
    pairs: dict[str, str] = {}
    types: dict[str, int] = {}
    path = None
    for index, line in lines:
        if "print_" in line and (match := META.search(line)):
            meta.setdefault(match[1], match[2].strip())
        elif "llama_model_loader" not in line:
            continue
        elif match := PAIR.search(line):
            pairs.setdefault(match[1], match[2].strip())
        elif match := TYPE.search(line):
            types.setdefault(match[1], int(match[2]))
        elif match := LOADED.search(line):
            path = path or text(re.sub(r" \(version .*$", "", match[1]).strip())
        else:
            continue
        lines.mark(index)
    if not meta and not pairs and not types:
        return None
    return replace(_metadata(meta, pairs), tensor_types=tuple(types.items()), path=path)


def _metadata(meta: dict[str, str], pairs: dict[str, str]) -> GgufMetadata:
    architecture = text(meta.get("arch") or pairs.get("general.architecture"))
    stored = {ours: _largest(pairs.get(f"{architecture}.{key}")) for ours, key in STORED.items()}
    printed = {ours: _largest(meta.get(theirs)) for ours, theirs in PRINTED.items()}
    whole: dict[str, Any] = {ours: _known(printed[ours], stored.get(ours)) for ours in printed}
    size = SIZE.match(meta.get("model size") or meta.get("file size") or "")
    params = PARAMS.match(meta.get("model params") or "")
    return GgufMetadata(
        architecture=architecture,
        name=text(meta.get("general.name") or pairs.get("general.name")),
        type=_word(meta.get("model type")),
        ftype=_word(meta.get("model ftype") or meta.get("file type")),
        params=round(float(params[1]) * SCALE[params[2]]) if params else None,
        size_mib=float(size[1]) * 1024.0 ** ("KMGT".index(size[2]) - 1) if size else None,
        bits_per_weight=float(size[3]) if size and size[3] else None,
        **whole,
    )


def _known(printed: int | None, stored: int | None) -> int | None:
    return stored if printed is None else printed


def _word(value: str | None) -> str | None:
    """`?B` is how llama.cpp says that it has no name for the size."""
    return None if value in (None, "", "?B") else text(value)


def _largest(value: str | None) -> int | None:
    """`16`, or `[16, 16, 0, ...]` where layers differ."""
    if value is None or not re.match(r"\[?\d", value, re.ASCII):
        return None
    found = re.findall(r"(?<![\w.])\d{1,12}(?![\w.])", value[:400], re.ASCII)
    return max(map(int, found)) if found else None
