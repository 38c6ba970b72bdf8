"""What would make a candidate fit: every change that is offered does."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from multigpu.choice.shrink import Change, changes
from multigpu.plan import Candidate, Strategy, Wish
from multigpu.runtimes.vllm_memory import sized
from tests.machines import RTX_3060, RTX_3090, dense, hf, host, llama_70b

SINGLE = Candidate("vllm", Strategy.SINGLE, (0,))
LLAMA = hf()


def asked(wish: Wish, *cards: Any, model: Any = LLAMA) -> dict[str, Change]:
    """The changes for one card of a host, by key."""
    machine = host(*(cards or (RTX_3090,)))
    one = sized(SINGLE, machine, model, wish)
    return {change.key: change for change in changes(one, machine, model, wish)}


def wish(**keys: Any) -> Wish:
    return Wish("chat", "org/model", **keys)


def test_what_fits_needs_no_change() -> None:
    assert asked(wish()) == {}


def test_a_context_that_is_a_little_too_long_is_cut_or_the_fraction_is_raised() -> None:
    limit = sized(SINGLE, host(RTX_3090), LLAMA, wish()).context_limit or 0
    found = asked(wish(context=limit + 160))
    assert found["max_model_len"].value == limit
    assert found["gpu_memory_utilization"].value == 0.93
    assert next(iter(found)) == "gpu_memory_utilization"


def test_a_context_twice_too_long_needs_a_narrower_cache_or_a_second_card() -> None:
    limit = sized(SINGLE, host(RTX_3090), LLAMA, wish()).context_limit or 0
    found = asked(wish(context=int(1.9 * limit)), RTX_3090, RTX_3090)
    assert found["kv_cache_dtype"].value == "fp8"
    assert found["tensor_parallel_size"].value == 2
    assert "of this host" in found["tensor_parallel_size"].why
    assert "gpu_memory_utilization" not in found


def test_cards_that_the_host_has_not_are_said_to_be_needed() -> None:
    found = asked(wish(), model=llama_70b())
    assert found["tensor_parallel_size"].value == 8
    assert "needed" in found["tensor_parallel_size"].why


def test_weights_beyond_the_card_say_how_many_bits_would_do() -> None:
    model = replace(LLAMA, num_parameters=8_030_261_248)
    bits = asked(wish(), RTX_3060, model=model)["bits_per_weight"].value
    assert isinstance(bits, float) and 5 < bits < 10


def test_a_busy_card_is_not_offered_more_of_itself() -> None:
    busy = replace(RTX_3090, memory_free_mib=19000)
    limit = sized(SINGLE, host(busy), LLAMA, wish()).context_limit or 0
    assert "gpu_memory_utilization" not in asked(wish(context=limit + 1600), busy)


@given(st.integers(1000, 131072), st.integers(10000, 40000))
def test_every_offered_change_fits(context: int, mib: int) -> None:
    card = replace(RTX_3090, memory_mib=mib, memory_free_mib=mib)
    model = hf(dense(vocab_size=32000))
    wished = wish(context=context)
    for key, change in asked(wished, card, model=model).items():
        changed = applied(wished, key, change.value)
        if changed is not None:
            assert all(m.fits for m in sized(SINGLE, host(card), model, changed).memory), change


def applied(wished: Wish, key: str, value: Any) -> Wish | None:
    """The wish with a change; None for changes of cards or weights."""
    flags = {"max_num_seqs": "--max-num-seqs", "max_num_batched_tokens": "--max-num-batched-tokens"}
    if key in flags:
        return replace(wished, flags=MappingProxyType({flags[key]: str(value)}))
    if key == "enforce_eager":
        return replace(wished, flags=MappingProxyType({"--enforce-eager": None}))
    if key == "max_model_len":
        return replace(wished, context=value)
    if key in ("gpu_memory_utilization", "kv_cache_dtype"):
        return replace(wished, **{key: value})
    return None
