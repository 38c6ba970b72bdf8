"""What is planned for where the wish does not say it; a request that is too long is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.errors import WishError
from multigpu.plan import Wish, Workload
from multigpu.planner import plan
from multigpu.workload import workload
from tests.machines import RTX_3090, dense, hf, host

TWO = host(RTX_3090, RTX_3090)


def asked(longest: int = 131072, **keys: Any) -> Workload:
    return workload(hf(dense(max_position_embeddings=longest)), Wish("chat", "m", **keys))


def test_the_default_context_holds_one_request_of_the_wish() -> None:
    assert asked().context == 8192
    assert asked(input_tokens=30_000).context == 30_256
    assert asked(input_tokens=30_000, output_tokens=2_000).context == 32_000
    found = plan(TWO, hf(), Wish("chat", "m", input_tokens=30_000)).chosen.max_model_len
    assert found == 30_256


def test_the_default_context_never_exceeds_the_models_own() -> None:
    near = asked(30_100, input_tokens=30_000)
    assert (near.context, near.input_tokens, near.output_tokens) == (30_100, 30_000, 100)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"input_tokens": 30_000, "context": 8192}, "raise context to 30256"),
        ({"output_tokens": 9_000, "context": 8192}, "9,000 output tokens is longer than the cont"),
        ({"context": 1}, "raise context to 2"),
        ({"input_tokens": 300_000}, "the model's context of 131,072: lower input_tokens"),
    ],
)
def test_a_request_longer_than_the_context_is_refused_in_one_line(
    keys: dict[str, Any], said: str
) -> None:
    with pytest.raises(WishError, match=said) as caught:
        plan(TWO, hf(), Wish("chat", "m", **keys))
    assert "\n" not in str(caught.value) and str(caught.value).startswith("chat: ")


lengths = st.none() | st.integers(1, 200_000)


@given(lengths, lengths, lengths, st.integers(2, 200_000))
def test_a_planned_request_always_fits_its_context(
    context: int | None, given_: int | None, output: int | None, longest: int
) -> None:
    try:
        found = asked(longest, context=context, input_tokens=given_, output_tokens=output)
    except WishError:
        bound = context or longest
        assert (given_ or 1) + (output or 1) > bound
        return
    assert found.request_tokens <= found.context
    assert found.input_tokens == (given_ or found.input_tokens)
    assert found.output_tokens == (output or found.output_tokens)
