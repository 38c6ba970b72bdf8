"""What the lines of a log of llama.cpp tell, load by load and context by context."""

from __future__ import annotations

import json
import re
from typing import Any

from multigpu.parse.engines.engine_log import EngineError
from multigpu.parse.engines.engine_scan import Found, count, real, said
from multigpu.parse.pci import address
from multigpu.parse.shape import integer, items, mapping, text

BREAKDOWN = ("model", "context", "compute")


class LlamaFound(Found):
    """Facts of a log of llama.cpp; `load` is the file that is being loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.llama: dict[str, Any] = {}
        self.cards: dict[str, dict[str, Any]] = {}
        self.file: str | None = None
        self.draft = False
        self.contexts = 0
        self.backend = "CUDA"

    def begin(self, file: str | None) -> None:
        """A load begins: a trial of the same file is forgotten, another file is a draft."""
        self.draft = self.file is not None and file is not None and file != self.file
        if self.draft:
            return
        self.file = self.file or file
        self.contexts = 0
        self.devices.clear()
        self.llama = {k: v for k, v in self.llama.items() if k in ("tensor_split", "fit_failed")}
        for name in ("kv_tokens", "kv_cache_dtype", "max_model_len", "max_num_seqs"):
            self.facts.pop(name, None)

    def buffer(self, label: str, name: str, value: float) -> None:
        """Sum what one load prints several times; a reserve that is tried again replaces."""
        if self.draft:
            name = {"weights_mib": "draft_weights_mib", "kv_cache_mib": "draft_kv_cache_mib"}.get(
                name, ""
            )
        if name and (self.contexts < 2 or name == "draft_kv_cache_mib"):
            if name == "compute_mib":
                self.device(label, compute_mib=value)
            else:
                self.add(label, name, value)


def buffer(name: str) -> Any:
    """A buffer of one device."""

    def take(found: LlamaFound, match: re.Match[str]) -> None:
        value = real(match[2])
        if value is not None:
            found.buffer(match[1], name, value)

    return take


def load(found: LlamaFound, match: re.Match[str]) -> None:
    """A file begins to load."""
    found.begin(said(re.sub(r" \(version .*$", "", match[1])))


def offloaded(found: LlamaFound, match: re.Match[str]) -> None:
    """Layers on cards, of all."""
    if not found.draft:
        found.llama.update(layers_offloaded=count(match[1]), layers_total=count(match[2]))


def context(found: LlamaFound, match: re.Match[str]) -> None:
    """One number of a context."""
    name, value = match[1], count(match[2])
    if found.draft or value is None:
        return
    if name == "n_ctx":
        # A second context of the same load is the one of a built-in draft head.
        found.contexts += 1
        if found.contexts == 1:
            found.last(max_model_len=value)
    else:
        found.llama.setdefault(name, value)
        found.first(**({"max_num_seqs": value} if name == "n_seq_max" else {}))


def flash(found: LlamaFound, match: re.Match[str]) -> None:
    """Whether flash attention is on, as asked or as resolved."""
    word = match[1] or match[2] or match[3]
    found.llama["flash_attn"] = {"1": "enabled", "0": "disabled"}.get(word, word)


def kv_self(found: LlamaFound, match: re.Match[str]) -> None:
    """Size and type of the whole KV cache; of a sliding window and the rest, both."""
    if found.draft or found.contexts > 1:
        return
    total, cells, key, value = match.groups()
    found.llama["kv_self_mib"] = (found.llama.get("kv_self_mib") or 0.0) + (real(total) or 0.0)
    found.first(kv_tokens=count(cells))
    found.first(kv_cache_dtype=key if value in (None, key) else f"{key}/{value}")


def copies(found: LlamaFound, match: re.Match[str]) -> None:
    """Pipeline parallelism, and how often the compute buffers are there."""
    found.llama["pipeline_parallel"] = True
    found.llama["n_copies"] = count(match[1]) or found.llama.get("n_copies")


def sched_copies(found: LlamaFound, match: re.Match[str]) -> None:
    """What was reserved in the end."""
    copies = count(match[1]) or 1
    found.llama.update(n_copies=copies, pipeline_parallel=copies > 1)


def backend(found: LlamaFound, match: re.Match[str]) -> None:
    """Whose devices the next lines number."""
    found.backend = match[1]


def cuda_card(found: LlamaFound, match: re.Match[str]) -> None:
    """A card of CUDA or ROCm; before 2025 ROCm's gfx number stood there as a compute capability."""
    index, name, major, minor, gfx, vram = match.groups()
    label = "ROCm" if gfx else found.backend
    found.cards[f"{label}{index}"] = {
        "name": said(name),
        "compute_capability": (int(major), int(minor)) if major and label == "CUDA" else None,
        "gfx": gfx,
        "total_mib": real(vram),
    }


def vulkan_card(found: LlamaFound, match: re.Match[str]) -> None:
    """A device of Vulkan; with `uma: 1` it is integrated graphics."""
    unified = {"1": True, "0": False}.get(match[3] or "")
    found.cards[f"Vulkan{match[1]}"] = {"name": said(match[2]), "unified_memory": unified}


def projected(found: LlamaFound, match: re.Match[str]) -> None:
    """A row of `-fit`: memory of a device before the load; "free" there is what would be left."""
    found.cards.setdefault(match[1], {}).update(name=said(match[2]), total_mib=real(match[3]))


def no_buffer(found: LlamaFound, match: re.Match[str]) -> None:
    """A buffer of a device, in bytes, that could not be had; said again after the allocation."""
    size, index = count(match[2]), count(match[1])
    asked = None if size is None else size / 1024**2
    if not any(_same_refusal(error, asked, index) for error in found.errors.values()):
        found.error(EngineError("oom", said(match[0]) or "", asked, index))


def _same_refusal(error: EngineError, asked: float | None, index: int | None) -> bool:
    """The line of the allocation itself rounds to two decimals of a MiB."""
    known = error.requested_mib
    return (
        error.device_index in (index, None)
        and None not in (known, asked)
        and (abs((known or 0.0) - (asked or 0.0)) < 0.01)
    )


def using(found: LlamaFound, match: re.Match[str]) -> None:
    """A card that the model is loaded on, with its free memory."""
    label, name, bus, free = match.groups()
    card = found.cards.setdefault(label, {})
    card.update({"name": card.get("name") or said(name), "free_mib": real(free)})
    card["pci_bus_id"] = address(bus) if bus else None


def layer(found: LlamaFound, match: re.Match[str]) -> None:
    """One layer on a device."""
    if not found.draft:
        device = found.device(match[1])
        device["layers"] = device.get("layers", 0) + 1


def build(found: LlamaFound, match: re.Match[str]) -> None:
    """The build number and commit."""
    number, commit = match[1] or match[3], match[2] or match[4]
    found.first(version=f"{number} ({commit})" if commit else number)


def split(found: LlamaFound, match: re.Match[str]) -> None:
    """`-ts` of a command line."""
    shares = tuple(real(share) for share in re.split(r"[,/]", match[1]))
    if all(share is not None for share in shares):
        found.llama["tensor_split"] = shares


def fit_failed(found: LlamaFound, match: re.Match[str]) -> None:
    """Why -fit left everything as it was."""
    found.llama["fit_failed"] = said(match[1], 200)


def breakdown(found: LlamaFound, match: re.Match[str]) -> None:
    """`--log-jsonl` prints where the memory of every device goes, in MiB."""
    try:
        whole = json.loads(match.string[match.string.find("{") :])
        rows = mapping(mapping(whole).get("data"))
    except (ValueError, RecursionError):
        return
    for row in map(mapping, items(rows.get("rows"))):
        name = text(row.get("name"))
        sizes = [integer(row.get(key)) for key in ("total", "free", *BREAKDOWN)]
        if name and rows.get("unit") == "MiB":
            keys = ("total_mib", "free_mib", "weights_mib", "kv_cache_mib", "compute_mib")
            known = found.cards.setdefault(name.split(" (")[0], {})
            pairs = zip(keys, sizes, strict=True)
            known.update({k: float(v) for k, v in pairs if v is not None and abs(v) < 10**12})


def no_memory(found: LlamaFound, match: re.Match[str]) -> None:
    """An allocation that CUDA or ROCm refused."""
    asked, index = real(match[1]), count(match[2])
    found.error(EngineError("oom", said(match[0]) or "", asked, index))


def vulkan_memory(found: LlamaFound, match: re.Match[str]) -> None:
    """An allocation that Vulkan refused, in bytes."""
    size = count(match[1])
    asked = size / 1024**2 if size is not None else None
    found.error(EngineError("oom", said(match[0]) or "", asked))


def gave_up(found: LlamaFound, match: re.Match[str]) -> None:
    """The model is not going to be served."""
    found.error(EngineError("load", said(match[1], 200) or ""))
    found.first(ready=False)


def abort(found: LlamaFound, match: re.Match[str]) -> None:
    """The process ends itself."""
    found.error(EngineError("abort", said(match[1], 200) or ""))


def ready(found: LlamaFound, match: re.Match[str]) -> None:
    """The server listens, or the model answers."""
    found.first(ready=True)
