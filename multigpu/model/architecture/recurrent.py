"""Recurrent layers: projections, short convolutions and the state that each sequence keeps.

State shapes and types are those of vLLM 0.33 (`model_executor/layers/mamba/mamba_utils.py`): the
convolution keeps `kernel - 1` columns in the model's type, the recurrence its matrix in the type
that the model or vLLM's default names.
"""

from __future__ import annotations

from math import ceil

from multigpu.model.architecture.tensors import Tensor, linear, plain
from multigpu.model.config_json import ConfigJson
from multigpu.plan import LayerCache

WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}
# vLLM keeps these in float32 unless the configuration says otherwise (models/config.py).
FLOAT32_STATE = ("nemotron_h", "nemotron_h_puzzle")


def state(c: ConfigJson, kind: str) -> LayerCache:
    """What one sequence keeps in a recurrent layer, in elements of the recurrence's type."""
    recurrence, convolution = _STATES[kind](c)
    width = _width(c, kind)
    if not recurrence:
        return LayerCache("state", elements=convolution, element_bytes=_model_width(c))
    elements = recurrence + ceil(convolution * _model_width(c) / width)
    return LayerCache("state", elements=elements, element_bytes=width)


def _model_width(c: ConfigJson) -> int:
    return WIDTHS.get(c.text("dtype", "torch_dtype", default="").removeprefix("torch."), 2)


def _width(c: ConfigJson, kind: str) -> int:
    stated = c.text("mamba_ssm_cache_dtype", "mamba_ssm_dtype", default="")
    if stated in WIDTHS:
        return WIDTHS[stated]
    if c.model_type in FLOAT32_STATE or kind == "kimi_delta":
        return 4
    if kind == "gated_delta" and c.model_type.startswith("qwen3_5"):
        return 4
    return _model_width(c)


def tensors(c: ConfigJson, kind: str) -> tuple[Tensor, ...]:
    """Matrices of a recurrent layer under the names of its checkpoint."""
    return _TENSORS[kind](c)


def _gated_delta_sizes(c: ConfigJson) -> tuple[int, int, int]:
    """(width of all keys, width of all values, value heads)."""
    count = c.positive("linear_num_value_heads")
    values = count * c.positive("linear_value_head_dim")
    keys = c.positive("linear_num_key_heads") * c.positive("linear_key_head_dim")
    return keys, values, count


def _gated_delta_state(c: ConfigJson) -> tuple[int, int]:
    keys, values, _ = _gated_delta_sizes(c)
    kernel = c.positive("linear_conv_kernel_dim", default=4)
    return values * c.positive("linear_key_head_dim"), (2 * keys + values) * (kernel - 1)


def _gated_delta(c: ConfigJson) -> tuple[Tensor, ...]:
    hidden = c.positive("hidden_size")
    keys, values, count = _gated_delta_sizes(c)
    kernel = c.positive("linear_conv_kernel_dim", default=4)
    name = "linear_attn"
    return (
        *linear(f"{name}.in_proj_qkv", 2 * keys + values, hidden),
        *linear(f"{name}.in_proj_z", values, hidden),
        *linear(f"{name}.in_proj_b", count, hidden),
        *linear(f"{name}.in_proj_a", count, hidden),
        *linear(f"{name}.out_proj", hidden, values),
        plain(f"{name}.conv1d", 2 * keys + values, kernel),
        plain(f"{name}.A_log", 2, count),
    )


def _kimi_sizes(c: ConfigJson) -> tuple[int, int, int]:
    """(heads, width of a head, kernel) of Kimi delta attention."""
    own = c.part("linear_attn_config") or c
    count = own.positive("linear_num_heads", "num_heads", "num_attention_heads")
    width = own.positive("linear_head_dim", "head_dim")
    kernel = own.positive("short_conv_kernel_size", "linear_conv_kernel_dim", default=4)
    return count, width, kernel


def _kimi_state(c: ConfigJson) -> tuple[int, int]:
    count, width, kernel = _kimi_sizes(c)
    return count * width * width, 3 * count * width * (kernel - 1)


def _kimi(c: ConfigJson) -> tuple[Tensor, ...]:
    hidden = c.positive("hidden_size")
    count, width, kernel = _kimi_sizes(c)
    inner, name = count * width, "self_attn"
    parts = [t for x in "qkv" for t in linear(f"{name}.{x}_proj", inner, hidden)]
    for gate in "fg":
        if c.model_type == "bailing_hybrid":
            parts += linear(f"{name}.{gate}_proj", inner, hidden)
        else:
            parts += linear(f"{name}.{gate}_a_proj", width, hidden)
            parts += linear(f"{name}.{gate}_b_proj", inner, width)
    return (
        *parts,
        *linear(f"{name}.b_proj", count, hidden),
        *linear(f"{name}.o_proj", hidden, inner),
        plain(f"{name}.conv1d", 3 * inner, kernel),
        plain(f"{name}.A_log", count + inner),
    )


def _lightning_sizes(c: ConfigJson) -> tuple[int, int]:
    count = c.positive("num_attention_heads")
    return count, c.positive("head_dim", default=c.positive("hidden_size") // count)


def _lightning_state(c: ConfigJson) -> tuple[int, int]:
    count, width = _lightning_sizes(c)
    return count * width * width, 0


def _lightning(c: ConfigJson) -> tuple[Tensor, ...]:
    hidden, (count, width) = c.positive("hidden_size"), _lightning_sizes(c)
    inner, name = count * width, "self_attn"
    return (
        *linear(f"{name}.qkv_proj", 3 * inner, hidden),
        *linear(f"{name}.output_gate", inner, hidden),
        *linear(f"{name}.out_proj", hidden, inner),
        plain(f"{name}.norm", inner),
    )


def _mamba_sizes(c: ConfigJson) -> tuple[int, int, int, int]:
    """(inner width, state, kernel, rank of the time step) of Mamba-1."""
    hidden = c.positive("hidden_size")
    inner = c.optional("mamba_intermediate_size") if c.model_type == "jamba" else None
    inner = inner or c.positive("mamba_expand", "expand", default=2) * hidden
    if c.model_type != "jamba":
        inner = c.positive("intermediate_size", default=inner)
    rank = c.get("mamba_dt_rank", "time_step_rank")
    rank = ceil(hidden / 16) if not isinstance(rank, int) or rank < 1 else rank
    size = c.positive("mamba_d_state", "state_size", default=16)
    return inner, size, c.positive("mamba_d_conv", "conv_kernel", default=4), rank


def _mamba_state(c: ConfigJson) -> tuple[int, int]:
    inner, size, kernel, _ = _mamba_sizes(c)
    return inner * size, inner * (kernel - 1)


def _mamba(c: ConfigJson) -> tuple[Tensor, ...]:
    hidden, (inner, size, kernel, rank) = c.positive("hidden_size"), _mamba_sizes(c)
    name = "mamba" if c.model_type == "jamba" else "mixer"
    return (
        *linear(f"{name}.in_proj", 2 * inner, hidden),
        *linear(f"{name}.x_proj", rank + 2 * size, inner),
        *linear(f"{name}.dt_proj", inner, rank, bias=True),
        *linear(f"{name}.out_proj", hidden, inner),
        plain(f"{name}.conv1d", inner, kernel + 1),
        plain(f"{name}.A_log", inner, size + 1),
    )


def _mamba2_sizes(c: ConfigJson) -> tuple[int, int, int, int, int]:
    """(inner width, heads, groups, state, kernel) of Mamba-2."""
    hidden = c.positive("hidden_size")
    stated = c.optional("mamba_d_ssm", "mamba_intermediate_size")
    count = c.optional("mamba_num_heads", "mamba_n_heads", "n_mamba_heads")
    width = c.optional("mamba_head_dim", "mamba_d_head", "mamba_headdim", "hidden_size_per_head")
    if c.model_type == "mamba2":
        count, width = c.positive("num_heads"), c.positive("head_dim")
    inner = stated or (count * width if count and width else None)
    inner = inner or c.positive("mamba_expand", "expand", default=2) * hidden
    width = width or c.positive("mamba_headdim", default=64)
    groups = c.positive("mamba_n_groups", "n_groups", "mamba_ngroups", default=1)
    size = c.positive("ssm_state_size", "mamba_d_state", "state_size")
    kernel = c.positive("conv_kernel", "mamba_d_conv", default=4)
    return inner, count or max(1, inner // width), groups, size, kernel


def _mamba2_state(c: ConfigJson) -> tuple[int, int]:
    inner, _, groups, size, kernel = _mamba2_sizes(c)
    return inner * size, (inner + 2 * groups * size) * (kernel - 1)


def _mamba2(c: ConfigJson) -> tuple[Tensor, ...]:
    hidden, (inner, count, groups, size, kernel) = c.positive("hidden_size"), _mamba2_sizes(c)
    channels = inner + 2 * groups * size
    name = "mamba" if c.has("mamba_d_head", "mamba_n_heads") else "mixer"
    if c.model_type == "plamo2":  # time steps, B and C come from the inner width by a low rank
        rank = max(64, hidden // 16)
        return (
            *linear(f"{name}.in_proj", 2 * inner, hidden),
            *linear(f"{name}.bcdt_proj", rank + 2 * size, inner),
            *linear(f"{name}.dt_proj", count, rank),
            *linear(f"{name}.out_proj", hidden, inner),
        )
    return (
        *linear(f"{name}.in_proj", inner + channels + count, hidden),
        *linear(f"{name}.out_proj", hidden, inner),
        plain(f"{name}.conv1d", channels, kernel + 1),
        plain(f"{name}.A_log", 3, count),
        plain(f"{name}.norm", inner),
    )


def _conv_width(c: ConfigJson) -> tuple[int, int]:
    return c.positive("conv_dim", "hidden_size"), c.positive("conv_L_cache")


def _conv_state(c: ConfigJson) -> tuple[int, int]:
    width, kernel = _conv_width(c)
    return 0, width * (kernel - 1)


def _conv(c: ConfigJson) -> tuple[Tensor, ...]:
    hidden, (width, kernel) = c.positive("hidden_size"), _conv_width(c)
    return (
        *linear("conv.in_proj", 3 * width, hidden),
        *linear("conv.out_proj", hidden, width),
        plain("conv.conv", width, kernel),
    )


_STATES = {
    "gated_delta": _gated_delta_state,
    "kimi_delta": _kimi_state,
    "lightning": _lightning_state,
    "mamba": _mamba_state,
    "mamba2": _mamba2_state,
    "conv": _conv_state,
}
_TENSORS = {
    "gated_delta": _gated_delta,
    "kimi_delta": _kimi,
    "lightning": _lightning,
    "mamba": _mamba,
    "mamba2": _mamba2,
    "conv": _conv,
}
KINDS = frozenset(_STATES)
