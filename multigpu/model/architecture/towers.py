"""Towers of other modalities, from `vision_config` where its layout is known.

A tower is a vision transformer with a patch embedding and a projector into the language model.
What is not known is named, so that the sum is called a lower bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from multigpu.errors import ModelError
from multigpu.model.architecture.tensors import Tensor, linear, plain
from multigpu.model.config_json import ConfigJson


@dataclass(frozen=True)
class Tower:
    """How a family builds its tower. `gated` blocks have three feed-forward matrices.

    `merge`: patches are put together before the projector (spatial_merge_size, pixel shuffle), the
    hidden width of the projector is that of the `merged` patches or of the `text` model.
    """

    gated: bool = False
    hidden: str = "text"
    merges: bool = False
    single: bool = False


TOWERS: Mapping[str, Tower] = {
    "qwen2_vl": Tower(hidden="merged", merges=True),
    "qwen2_5_vl": Tower(gated=True, hidden="merged", merges=True),
    **dict.fromkeys(
        ("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "qwen3_vl_vision", "qwen3_5_vision"),
        Tower(hidden="merged", merges=True),
    ),
    "clip_vision_model": Tower(),
    "siglip_vision_model": Tower(),
    "pixtral": Tower(gated=True),
    "gemma4_vision": Tower(gated=True, single=True),
    **dict.fromkeys(
        ("moonvit", "kimi_vl", "kimi_k25", "kimi_k25_vision"), Tower(hidden="merged", merges=True)
    ),
    **dict.fromkeys(("intern_vit_6b", "internvl_vision"), Tower(merges=True)),
}
MODALITIES = ("audio_config", "speech_config", "sound_config", "audio_tower", "encoder_config")


def tensors(c: ConfigJson) -> tuple[tuple[Tensor, ...], tuple[str, ...]]:
    """(matrices of the vision tower and its projector, phrases for what is not counted)."""
    missing = [
        f"the {key.split('_')[0]} tower of {c.outer.get('model_type')}"
        for key in MODALITIES
        if isinstance(c.outer.get(key), Mapping) and c.outer[key]
    ]
    vision = _vision_part(c)
    if vision is None:
        if _sees(c):
            missing.append("the vision tower: config.json does not describe it")
        return (), tuple(missing)
    tower = TOWERS.get(vision.model_type) or TOWERS.get(str(c.outer.get("model_type")))
    try:
        if tower is not None:
            return _tower(c, vision, tower), tuple(missing)
    except ModelError:
        pass
    missing.append(f"the vision tower {vision.model_type}: its layout is not known")
    return (), tuple(missing)


def _vision_part(c: ConfigJson) -> ConfigJson | None:
    found = c.outer.get("vision_config")
    if found is None and isinstance(c.outer.get("thinker_config"), Mapping):
        found = c.outer["thinker_config"].get("vision_config")
    return ConfigJson(found, nested=True) if isinstance(found, Mapping) and found else None


def _sees(c: ConfigJson) -> bool:
    """True where the file nests a language model in something larger."""
    return c.inner is not c.outer and "text" not in str(c.outer.get("model_type"))


def _tower(c: ConfigJson, v: ConfigJson, tower: Tower) -> tuple[Tensor, ...]:
    width = v.positive("embed_dim", "vt_hidden_size", "hidden_size")
    if v.model_type in ("qwen2_5_vl",) or (c.outer.get("model_type") == "qwen2_5_vl"):
        width = v.positive("hidden_size")
    layers = v.positive("depth", "vt_num_hidden_layers", "num_hidden_layers")
    ratio = v.get("mlp_ratio")
    inner = v.optional("vt_intermediate_size", "intermediate_size")
    inner = inner or int((ratio if isinstance(ratio, (int, float)) and ratio > 0 else 4) * width)
    patch = v.get("patch_size")
    patch = patch if type(patch) is int and patch > 0 else 14
    pixels = 3 * patch * patch * v.positive("temporal_patch_size", default=1)
    return (
        Tensor("attn", 4 * width, width, layers),
        Tensor("mlp", (3 if tower.gated else 2) * inner, width, layers),
        plain("biases", layers, 8 * width + inner),
        plain("patch_embed", pixels, width),
        plain("position", _positions(v, patch), width),
        *_projector(c, v, tower, width),
    )


def _positions(v: ConfigJson, patch: int) -> int:
    if v.has("position_embedding_size"):
        return 2 * v.positive("position_embedding_size")
    if v.has("init_pos_emb_height"):
        return v.positive("init_pos_emb_height") * v.positive("init_pos_emb_width")
    stated = v.optional("num_position_embeddings")
    image = v.get("image_size")
    if stated is None and type(image) is int and image > 0 and v.model_type != "pixtral":
        return (image // patch) ** 2 + 1
    return stated or 1


def _projector(c: ConfigJson, v: ConfigJson, tower: Tower, width: int) -> tuple[Tensor, ...]:
    text = c.positive("hidden_size")
    if tower.single or (v.model_type == "siglip_vision_model" and _outer(c) == "gemma3"):
        return linear("projector", text, width)
    merged = width * _merged_patches(v) if tower.merges else width
    if v.model_type == "pixtral":  # four patches become one before the projector
        merger = linear("patch_merger", width, 4 * width)
        return (*merger, *linear("linear_1", text, width), *linear("linear_2", text, text))
    hidden = merged if tower.hidden == "merged" else text
    deep = v.get("deepstack_visual_indexes")
    copies = 1 + (len(deep) if isinstance(deep, list) else 0)
    return (
        Tensor("merger.fc1", hidden, merged, copies),
        Tensor("merger.fc2", text, hidden, copies),
    )


def _outer(c: ConfigJson) -> str:
    return str(c.outer.get("model_type"))


def _merged_patches(v: ConfigJson) -> int:
    kernel = v.get("merge_kernel_size")
    if isinstance(kernel, list) and len(kernel) == 2 and all(type(k) is int for k in kernel):
        return max(1, int(kernel[0] * kernel[1]))
    return v.positive("spatial_merge_size", default=2) ** 2
