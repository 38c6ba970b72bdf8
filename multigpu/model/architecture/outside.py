"""What stands around the blocks: embeddings, output matrix, towers, layers that only draft."""

from __future__ import annotations

from dataclasses import dataclass

from multigpu.errors import ModelError
from multigpu.model.architecture import towers
from multigpu.model.architecture.block import block
from multigpu.model.architecture.kinds import Kind
from multigpu.model.architecture.tensors import Tensor, linear, plain
from multigpu.model.config_json import ConfigJson

# Positions are learned: one vector for each (OPT keeps two more).
LEARNED_POSITIONS = {"gpt2": 0, "gpt-sw3": 0, "gpt_bigcode": 0, "opt": 2}
DRAFTS_MAX = 16


@dataclass(frozen=True)
class Outside:
    """Tensors outside of the blocks. `missing` are phrases for what is known not to be counted."""

    embedding: tuple[Tensor, ...]
    output: tuple[Tensor, ...]
    vision: tuple[Tensor, ...]
    draft: tuple[Tensor, ...]
    tied: bool
    missing: tuple[str, ...]


def outside(c: ConfigJson) -> Outside:
    """Everything but the blocks. Raises ModelError."""
    vision, missing = towers.tensors(c)
    tied = is_tied(c)
    hidden, vocabulary = c.positive("hidden_size"), c.positive("vocab_size")
    output = () if tied else (plain("norm", hidden), plain("lm_head", vocabulary, hidden))
    return Outside(_embedding(c), output, vision, _draft(c), tied, missing)


def is_tied(c: ConfigJson) -> bool:
    """`tie_word_embeddings` as stated, else as the class sets it; the file's own word comes last.

    Transformers leaves the key out where it is the default of the class.
    """
    value = c.get("tie_word_embeddings")
    return value if isinstance(value, bool) else False


def _embedding(c: ConfigJson) -> tuple[Tensor, ...]:
    hidden, vocabulary = c.positive("hidden_size"), c.positive("vocab_size")
    width = c.positive("word_embed_proj_dim", default=hidden)
    found: tuple[Tensor, ...] = (plain("embed_tokens", vocabulary, width),)
    if width != hidden:  # OPT-350m embeds in a narrower space
        found += (plain("project_in", width, hidden), plain("project_out", width, hidden))
    extra = LEARNED_POSITIONS.get(c.model_type)
    if extra is not None:
        positions = c.positive("max_position_embeddings") + extra
        found += (plain("embed_positions", positions, hidden),)
    return found + _per_layer_embedding(c, hidden)


def _per_layer_embedding(c: ConfigJson, hidden: int) -> tuple[Tensor, ...]:
    """Gemma 3n and the small Gemma 4 embed every token once more for each layer."""
    own = c.integer("hidden_size_per_layer_input", default=0)
    if not own:
        return ()
    width = own * c.positive("num_hidden_layers")
    vocabulary = c.positive("vocab_size_per_layer_input", "vocab_size")
    found = (
        plain("embed_tokens_per_layer", vocabulary, width),
        plain("per_layer_model_projection", width, hidden),
    )
    streams = c.integer("altup_num_inputs", default=0)
    if not streams:
        return found
    return (*found, plain("altup", 2 * max(0, streams - 1) * hidden, hidden))


def _draft(c: ConfigJson) -> tuple[Tensor, ...]:
    """Layers of multi-token prediction: a block of the model's last kind and what joins it."""
    count = c.integer("num_nextn_predict_layers", default=0)
    if not 0 < count <= DRAFTS_MAX:
        return ()
    hidden = c.positive("hidden_size")
    try:
        last = c.positive("num_hidden_layers", default=1) - 1
        mixer = "compressed" if c.has("compress_ratios") else "full"
        parts = block(c, last, Kind(mixer)).tensors
    except ModelError:
        parts = ()
    join = linear("eh_proj", hidden, 2 * hidden)
    return (*parts, *join) * count
