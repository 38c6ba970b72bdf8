"""Hosts and models for tests, built from the dataclasses; what matters is a keyword."""

from __future__ import annotations

import json
import pathlib
from dataclasses import replace
from itertools import combinations
from typing import Any

from multigpu.hardware import Gpu, GpuPair, Host, P2p, Path, PcieLink, Vendor
from multigpu.model import from_gguf, from_hf_config
from multigpu.plan import ModelSpec, Source

SHARED = pathlib.Path(__file__).parents[1] / "../shared"
MIB = 1024 * 1024

RTX_3090 = Gpu(0, name="RTX 3090", memory_mib=24576, compute_capability=(8, 6))
RTX_4090 = Gpu(0, name="RTX 4090", memory_mib=24564, compute_capability=(8, 9))
RTX_5090 = Gpu(0, name="RTX 5090", memory_mib=32607, compute_capability=(12, 0))
RTX_3060 = Gpu(0, name="RTX 3060", memory_mib=12288, compute_capability=(8, 6))
RTX_2080 = Gpu(0, name="RTX 2080 Ti", memory_mib=11264, compute_capability=(7, 5))
V100 = Gpu(0, name="V100", memory_mib=16384, compute_capability=(7, 0))
H100 = Gpu(0, name="H100", memory_mib=81559, compute_capability=(9, 0))
R9700 = Gpu(0, name="R9700", memory_mib=32624, vendor=Vendor.AMD, gfx="gfx1201")


def host(
    *cards: Gpu,
    path: Path | None = Path.PHB,
    nvlinks: int = 0,
    p2p: P2p | None = P2p.CHIPSET_NOT_SUPPORTED,
    width: int = 16,
    **facts: Any,
) -> Host:
    """A machine with these cards, all pairs alike; free memory is 300 MiB below the total."""
    gpus = tuple(
        replace(
            card,
            index=i,
            uuid=f"GPU-{i:08d}",
            memory_free_mib=card.memory_free_mib or (card.memory_mib or 300) - 300,
            pcie=PcieLink(gen_max=4, width_current=width, width_max=16),
        )
        for i, card in enumerate(cards)
    )
    pairs = tuple(GpuPair(a, b, path, nvlinks, p2p) for a, b in combinations(range(len(cards)), 2))
    return Host("tower", gpus=gpus, pairs=pairs, **facts)


def dense(**changes: Any) -> dict[str, Any]:
    """config.json of an 8B dense model (the shapes of Llama 3.1 8B)."""
    config = {
        "model_type": "llama",
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
    }
    return {**config, **changes}


def hf(config: dict[str, Any] | None = None, weights_bytes: int | None = None) -> ModelSpec:
    """A model of the hub."""
    return from_hf_config(
        config or dense(),
        name="org/model",
        source=Source.HUB,
        path="org/model",
        weights_bytes=weights_bytes,
        revision="0123abcd",
    )


def llama_70b(**changes: Any) -> ModelSpec:
    """The shapes of Llama 3.1 70B, in bfloat16 unless changed."""
    shapes = {
        "num_hidden_layers": 80,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_attention_heads": 64,
    }
    return hf(dense(**{**shapes, **changes}))


def gguf_fields(blocks: int = 32, **changes: object) -> dict[str, object]:
    """Metadata of a llama GGUF with the shapes of Llama 3.1 8B."""
    fields: dict[str, object] = {
        "general.architecture": "llama",
        "general.file_type": "Q4_K_M",
        "llama.block_count": blocks,
        "llama.embedding_length": 4096,
        "llama.feed_forward_length": 14336,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
        "llama.context_length": 131072,
        "llama.vocab_size": 128256,
    }
    return {**fields, **changes}


def gguf_tensors(blocks: int = 32, block_mib: float = 128.0) -> list[tuple[str, int]]:
    """Tensors of such a file: one attention and one feed-forward tensor per block."""
    half = int(block_mib * MIB / 2)
    tensors = [("token_embd.weight", 300 * MIB), ("output.weight", 400 * MIB)]
    for i in range(blocks):
        tensors += [(f"blk.{i}.attn_q.weight", half), (f"blk.{i}.ffn_up.weight", half)]
    return tensors


def gguf(blocks: int = 32, block_mib: float = 128.0, **changes: object) -> ModelSpec:
    """A GGUF on the controller."""
    return from_gguf(
        gguf_fields(blocks, **changes),
        gguf_tensors(blocks, block_mib),
        name="models/chat.gguf",
        source=Source.CONTROLLER,
        path="models/chat.gguf",
        size_bytes=int(blocks * block_mib * MIB) + 700 * MIB,
    )


def config_of(name: str) -> dict[str, Any]:
    """A config.json of the captured models, read in place."""
    found: dict[str, Any] = json.loads((SHARED / "models" / f"{name}_config.json").read_text())
    return found
