"""Feed-forward parts: dense, routed experts and the experts that every token passes.

Which blocks route is spelled in a dozen ways; `is_routed` knows them. All experts are resident,
whatever share of them a token is routed to.
"""

from __future__ import annotations

from multigpu.errors import ModelError
from multigpu.model.architecture.families import NOT_GATED
from multigpu.model.architecture.tensors import Share, Tensor, linear, plain
from multigpu.model.config_json import ConfigJson

# Families that name their experts' matrices w1, w2, w3 under this module.
BLOCK_SPARSE = ("mixtral", "minimax", "minimax_text_01", "minimax_m1", "minimax_m2", "phimoe")


def expert_count(c: ConfigJson) -> int | None:
    """Number of routed experts of a block, None for a dense model."""
    listed = c.get("num_experts")
    if isinstance(listed, list) and listed and all(type(item) is int for item in listed):
        # ERNIE VL lists one group of experts per modality; Hunyuan one number per layer.
        return int(listed[0] if c.model_type.startswith("ernie") else max(listed))
    count = c.optional("num_experts")
    return count if count and count > 1 else None


def expert_size(c: ConfigJson, layer: int = 0) -> int:
    """`moe_intermediate_size`; else `intermediate_size`, per expert in Mixtral and gpt-oss."""
    if c.model_type.startswith("ernie"):  # ERNIE VL: experts of text first, then those of images
        layer = 0
    return c.positive("moe_intermediate_size", "intermediate_size", layer=layer)


def is_routed(c: ConfigJson, layer: int) -> bool:
    """True where a block routes to experts."""
    if expert_count(c) is None:
        return False
    named = c.get("mlp_layer_types")
    if isinstance(named, list) and layer < len(named):
        return bool(named[layer] != "dense")
    if layer < c.integer(
        "first_k_dense_replace", "num_dense_layers", "moe_layer_start_index", default=0
    ):
        return False
    if layer in c.whole_numbers("mlp_only_layers"):
        return False
    return _listed(c, layer) if _has_list(c) else _periodic(c, layer)


def _has_list(c: ConfigJson) -> bool:
    keys = ("moe_layers", "moe_layers_enum", "is_moe_layer")
    return c.stated(*keys) is not None or isinstance(c.get("moe_layer_freq"), list)


def _listed(c: ConfigJson, layer: int) -> bool:
    """Lists of indices (Llama 4, Step3) or of flags (MiMo, EXAONE)."""
    text = c.get("moe_layers_enum")
    if isinstance(text, str):
        return str(layer) in text.replace(" ", "").split(",")
    indices = c.get("moe_layers")
    if isinstance(indices, list):
        return layer in indices
    flags = c.get("is_moe_layer", "moe_layer_freq")
    return isinstance(flags, list) and layer < len(flags) and bool(flags[layer])


def _periodic(c: ConfigJson, layer: int) -> bool:
    if c.has("expert_layer_period"):
        period = c.positive("expert_layer_period")
        return layer % period == c.integer("expert_layer_offset", default=0)
    if c.has("moe_layer_freq"):
        return layer % c.positive("moe_layer_freq") == 0
    if layer > c.integer("moe_layer_end_index", default=layer):
        return False
    step = c.positive(
        "decoder_sparse_step",
        "interleave_moe_layer_step",
        "moe_layer_interval",
        "moe_layer_frequency",
        default=1,
    )
    return (layer + 1) % step == 0


def tensors(c: ConfigJson, kind: str, layer: int) -> tuple[Tensor, ...]:
    """Matrices of the feed-forward part of one block. `kind`: auto | moe | mlp | none."""
    if kind == "none":
        return ()
    if kind == "moe" or (kind == "auto" and is_routed(c, layer)):
        return _routed(c, layer)
    if c.model_type == "granitemoehybrid":
        return _mlp(c, "shared_mlp", c.positive("shared_intermediate_size"))
    count = 2 if c.model_type == "longcat_flash" else 1
    return _mlp(c, _module(c), dense_size(c, layer)) * count


def _module(c: ConfigJson) -> str:
    if c.model_type.startswith("nemotron_h"):
        return "mixer"
    return "feed_forward" if c.model_type in ("jamba", "falcon_h1", "bamba", "lfm2") else "mlp"


def dense_size(c: ConfigJson, layer: int = 0) -> int:
    """Width of a dense feed-forward part."""
    hidden = c.positive("hidden_size")
    if c.model_type in ("lfm2", "lfm2_moe"):
        return _lfm2_size(c)
    if c.has("expansion_ratio"):
        return c.positive("expansion_ratio") * hidden
    size = c.positive(
        "intermediate_size_mlp",
        "dense_intermediate_size",
        "prefix_dense_intermediate_size",
        "intermediate_size",
        default=4 * hidden,
        layer=layer,
    )
    if c.model_type == "qwen":  # the first Qwen counts gate and up together
        return size // 2
    shared = c.integer("num_kv_shared_layers", default=0)
    if c.flag("use_double_wide_mlp") and shared:
        return size * (2 if layer >= c.positive("num_hidden_layers") - shared else 1)
    return size


def _lfm2_size(c: ConfigJson) -> int:
    """LFM2 takes two thirds of what the key says, rounded up to a multiple."""
    size = c.positive("block_ff_dim", "intermediate_size")
    if c.model_type == "lfm2_moe" or c.get("block_auto_adjust_ff_dim") is False:
        return size
    multiple = c.positive("block_multiple_of", default=256)
    factor = c.get("block_ffn_dim_multiplier")
    adjusted = int(2 * size / 3)
    if isinstance(factor, (int, float)) and 0 < factor < 100:
        adjusted = int(factor * adjusted)
    return -(-adjusted // multiple) * multiple


def _mlp(c: ConfigJson, name: str, size: int) -> tuple[Tensor, ...]:
    hidden, bias = c.positive("hidden_size"), c.flag("mlp_bias")
    if c.model_type in NOT_GATED:
        bias = bias or c.model_type in ("gpt2", "bloom", "opt", "phi", "gptj", "starcoder2")
        return (
            *linear(f"{name}.up_proj", size, hidden, bias=bias),
            *linear(f"{name}.down_proj", hidden, size, bias=bias),
        )
    return (
        *linear(f"{name}.gate_proj", size, hidden, bias=bias),
        *linear(f"{name}.up_proj", size, hidden, bias=bias),
        *linear(f"{name}.down_proj", hidden, size, bias=bias),
    )


def _routed(c: ConfigJson, layer: int) -> tuple[Tensor, ...]:
    count = expert_count(c)
    if count is None:
        raise ModelError("config.json: a block of experts, but no number of experts")
    hidden, name = c.positive("hidden_size"), _routed_module(c)
    width = c.positive("moe_latent_size", "moe_hidden_size", default=hidden)
    parts = _experts(c, name, count, expert_size(c, layer), width) + _ernie_images(c, name, width)
    rows = count + c.integer("zero_expert_num", default=0)
    # Quantizers leave routers alone; checkpoints keep them in the model's own type.
    parts += (plain(f"{name}.gate", rows, hidden),)
    if width != hidden:
        parts += linear(f"{name}.fc1_latent_proj", width, hidden, share=Share.REPLICATED)
        parts += linear(f"{name}.fc2_latent_proj", hidden, width, share=Share.REPLICATED)
    return parts + _always(c, name, layer)


def _ernie_images(c: ConfigJson, name: str, width: int) -> tuple[Tensor, ...]:
    """ERNIE VL has a second set of experts for images; both are resident."""
    sizes, counts = c.get("moe_intermediate_size"), c.get("num_experts")
    if not c.model_type.startswith("ernie") or not isinstance(sizes, list) or len(sizes) != 2:
        return ()
    count = counts[1] if isinstance(counts, list) and len(counts) == 2 else counts
    if type(count) is not int or count < 1 or type(sizes[1]) is not int or sizes[1] < 1:
        raise ModelError("config.json: moe_num_experts does not fit moe_intermediate_size")
    return _experts(c, f"{name}.vision_moe", count, sizes[1], width)


def _routed_module(c: ConfigJson) -> str:
    """Gemma 4 keeps its experts beside `mlp`, which is the dense part; DeepSeek V4 says ffn."""
    if c.flag("enable_moe_block"):
        return "moe"
    if c.model_type == "deepseek_v4":
        return "ffn"
    if c.model_type in BLOCK_SPARSE or c.model_type.startswith("granitemoe"):
        return "block_sparse_moe"
    if c.model_type == "dbrx":
        return "ffn"
    return _module(c) if c.model_type not in ("lfm2_moe",) else "feed_forward"


def _experts(c: ConfigJson, name: str, count: int, size: int, width: int) -> tuple[Tensor, ...]:
    """gpt-oss has biases; `experts.0` stands for all of them in ignore lists."""
    gate, up, down = (
        ("w1", "w3", "w2")
        if c.model_type in BLOCK_SPARSE
        else (
            "gate_proj",
            "up_proj",
            "down_proj",
        )
    )
    shapes = [(up, size, width), (down, width, size)]
    if c.model_type not in NOT_GATED:
        shapes.insert(0, (gate, size, width))
    found = [Tensor(f"{name}.experts.0.{n}", o, i, count, Share.EXPERT) for n, o, i in shapes]
    if c.model_type == "gpt_oss":
        found += [
            Tensor(f"{name}.experts.0.{n}.bias", o, 1, count, Share.EXPERT, plain=True)
            for n, o, _ in shapes
        ]
    return tuple(found)


def _always(c: ConfigJson, name: str, layer: int) -> tuple[Tensor, ...]:
    """Shared experts, and dense parts beside the routed ones."""
    size = shared_size(c, layer)
    single = c.has("shared_expert_intermediate_size")
    found = (
        _mlp(c, f"{name}.{'shared_expert' if single else 'shared_experts'}", size) if size else ()
    )
    if single and size:
        found += (plain(f"{name}.shared_expert_gate", 1, c.positive("hidden_size")),)
    if c.flag("enable_moe_block"):  # Gemma 4 keeps its dense part beside the experts
        found += _mlp(c, "mlp", dense_size(c, layer))
    if c.model_type == "arctic" and c.get("use_residual") is not False:
        found += _mlp(c, "residual_mlp", c.positive("hidden_size"))
    if c.model_type == "longcat_flash":
        found += _mlp(c, "mlps", dense_size(c, layer)) * 2
    return found


def shared_size(c: ConfigJson, layer: int = 0) -> int:
    """Width of what every token passes beside the routed experts; 0 where there is nothing."""
    for key in ("shared_expert_intermediate_size", "share_expert_dim", "shared_intermediate_size"):
        if c.has(key):
            return c.integer(key)
    if c.model_type.startswith("llama4"):  # one shared expert of the routed size
        return expert_size(c)
    count = c.integer("num_shared_experts", default=0, layer=layer)
    if c.model_type.startswith("hunyuan"):
        # The first code shares experts only when told to; Transformers' own always has one.
        shares = c.flag("use_mixed_mlp_moe") or c.model_type == "hunyuan_v1_moe"
        return (count or 1) * c.positive("intermediate_size") if shares else 0
    own = c.integer("moe_shared_expert_intermediate_size", "shared_expert_size", default=0)
    return count * (own or expert_size(c, layer)) if count else 0
