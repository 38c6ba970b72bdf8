"""Random starts of inference engines, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.rigs.engine_logs import Rank, Start, Style

REFUSALS = (
    None,
    "it's not supported on more than two PCIe-only GPUs",
    "your platform lacks GPU P2P capability or P2P test failed",
)
styles = st.builds(Style, journal=st.booleans(), pasted=st.booleans(), colour=st.booleans())
models = st.from_regex(r"[a-z]{1,8}/[A-Za-z0-9._-]{1,30}", fullmatch=True)


def hundredths(most: int) -> st.SearchStrategy[float]:
    """Numbers that two decimals print exactly, halves of them too."""
    return st.integers(1, most // 2).map(lambda number: number * 2 / 100)


ranks = st.builds(
    Rank,
    weights=hundredths(1_000_000),
    kv_cache=hundredths(1_000_000),
    graph=hundredths(10_000),
    name=st.sampled_from(["NVIDIA GeForce RTX 3090", "NVIDIA A40", "Tesla V100-SXM2-32GB"]),
)


@st.composite
def starts(draw: st.DrawFn) -> Start:
    """One to eight ranks in one or two stages."""
    stages = draw(st.sampled_from([1, 1, 2]))
    count = stages * draw(st.sampled_from([1, 2, 4]))
    return Start(
        model=draw(models),
        architecture=draw(st.sampled_from(["LlamaForCausalLM", "Qwen3MoeForCausalLM"])),
        context=draw(st.integers(1, 10_000_000)),
        ranks=tuple(draw(ranks) for _ in range(count)),
        kv_tokens=draw(st.integers(1, 10**9)),
        concurrency=draw(hundredths(100_000)),
        pipeline_parallel_size=stages,
        seconds=draw(hundredths(100_000)),
        refused=draw(st.sampled_from(REFUSALS)),
        host=tuple(draw(st.lists(hundredths(10_000_000), max_size=4))),
        draft=draw(st.none() | ranks),
        oom=draw(st.none() | hundredths(10_000_000)),
        copies=draw(st.sampled_from([1, 4])),
    )
