"""SGLang: its own memory rule, when it may be planned, and its command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu import flags
from multigpu.errors import NoPlan
from multigpu.plan import Candidate, LayerCache, Objective, Strategy, Wish
from multigpu.planner import plan
from multigpu.runtimes import runtime, sglang, sglang_rules
from multigpu.runtimes import sglang_memory as s
from multigpu.runtimes.rendering import merged
from multigpu.store.recipes import Files
from tests.machines import H100, R9700, RTX_3060, RTX_3090, RTX_4090, dense, hf, host

SINGLE = Candidate("sglang", Strategy.SINGLE, (0,))
PAIR = Candidate("sglang", Strategy.TENSOR_PARALLEL, (0, 1), tensor_parallel_size=2)
LLAMA = hf()


def wish(**keys: Any) -> Wish:
    return Wish("chat", "org/model", **{"runtime": "sglang", **keys})


AGENTS: dict[str, Any] = {
    "runtime": None,
    "concurrency": 8,
    "shared_prefix_tokens": 6000,
    "input_tokens": 7000,
    "context": 8192,
}


def test_without_a_shared_prefix_it_is_planned_where_it_is_wished_only() -> None:
    machine = host(RTX_3090, RTX_3090)
    assert sglang.candidates(machine, LLAMA, wish(runtime=None)) == ()
    rules = [r.rule for r in sglang.objections(SINGLE, machine, LLAMA, wish(runtime=None))]
    assert rules == ["runtime-on-request"]
    assert plan(machine, LLAMA, wish(runtime=None)).chosen.runtime != "sglang"
    assert plan(machine, LLAMA, wish()).chosen.runtime == "sglang"


@pytest.mark.parametrize("objective", [Objective.LATENCY, Objective.THROUGHPUT])
def test_agents_with_a_stable_system_prompt_are_served_by_it(objective: Objective) -> None:
    made = plan(host(RTX_3090, RTX_3090), LLAMA, wish(**AGENTS, objective=objective))
    assert made.chosen.runtime == "sglang"
    (reason,) = [r for r in made.reasons if r.rule == "shared-prefix"]
    assert "6,000 of 7,000" in reason.found and "vLLM keeps prefixes too" in (reason.hint or "")
    assert "vllm" in {item.candidate.runtime for item in made.rejected}
    assert any("in the engine's cache already" in sentence for sentence in made.assumptions)
    for service in sglang.render(made, "/opt/sglang/bin/sglang", "org/model"):
        assert "--schedule-policy lpm" in " ".join(service.argv)
        assert not flags.check("sglang", service.argv)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"concurrency": 1}, "1 request at a time with 6,000 of 7,000 tokens shared gain as much"),
        ({"shared_prefix_tokens": 1000}, "1,000 of 7,000 tokens shared gain as much"),
        ({"objective": Objective.CONTEXT}, "gain as much"),
        ({"flags": MappingProxyType({"--enforce-eager": None})}, "flags of the wish is vLLM's"),
        ({"kv_cache_dtype": "fp8"}, "kv_cache_dtype of the wish is vLLM's"),
    ],
)
def test_where_a_shared_prefix_does_not_decide_the_plan_says_why(
    keys: dict[str, Any], why: str
) -> None:
    made = plan(host(H100, H100), LLAMA, wish(**{**AGENTS, **keys}))
    assert made.chosen.runtime == "vllm"
    reasons = [r for item in made.rejected for r in item.reasons if r.rule == "runtime-on-request"]
    assert len(reasons) == 1 and why in reasons[0].found and reasons[0].needed


def test_a_family_without_layers_of_its_own_is_left_to_vllm() -> None:
    olmo3 = replace(LLAMA, model_type="olmo3")
    made = plan(host(H100), olmo3, wish(**AGENTS))
    assert made.chosen.runtime == "vllm"
    assert plan(host(H100), LLAMA, wish(**AGENTS)).chosen.runtime == "sglang"


def test_unlike_cards_get_no_team_of_it_for_a_shared_prefix_either() -> None:
    made = plan(host(RTX_3090, RTX_3060), LLAMA, wish(**AGENTS))
    assert not (made.chosen.runtime == "sglang" and made.chosen.tensor_parallel_size > 1)


def test_amd_cards_need_a_build_of_ones_own() -> None:
    team = replace(PAIR, gpus=(0,), tensor_parallel_size=1)
    amd = host(R9700)
    assert "cuda-wheel" in [r.rule for r in sglang.objections(team, amd, LLAMA, wish())]
    there = wish(executable="/opt/sglang/bin/sglang")
    assert "cuda-wheel" not in [r.rule for r in sglang.objections(team, amd, LLAMA, there)]


SAYS = "[2026-11-23 10:00:00] server_args={'tp_size': 2, 'pp_size': 1, 'disable_radix_cache': False"
OLDER = "[2026-08-01 10:00:00] server_args=ServerArgs(tp_size=2, pp_size=1, "
OLDER += "disable_radix_cache=True)"
POOL = "[2026-11-23 10:00:09 TP0] max_total_num_tokens=50000, chunked_prefill_size=4096"


def test_its_log_says_ranks_cache_and_whether_prefixes_are_kept() -> None:
    keys = {**AGENTS, "runtime": "sglang", "strategy": Strategy.TENSOR_PARALLEL}
    made = plan(host(RTX_3090, RTX_3090), LLAMA, wish(**keys))
    checks = {c.name: c.ok for c in sglang.signs(made, [SAYS, POOL])}
    assert checks == {"ranks": True, "KV cache": True, "prefixes": True}
    small = POOL.replace("50000", "5000")
    checks = {c.name: c.ok for c in sglang.signs(made, [OLDER, small])}
    assert checks == {"ranks": True, "KV cache": False, "prefixes": False}
    (balance,) = sglang.signs(made, ["RuntimeError: The memory capacity is unbalanced. Some"])
    assert not balance.ok


def test_it_is_installed_from_its_lock_unless_it_is_there() -> None:
    files = Files(Path(__file__).parent.parent / "templates")
    found = sglang.recipe(host(RTX_3090), wish(), files)
    assert found.executable == f"{found.directory}/bin/sglang"
    assert (found.needs.glibc, found.needs.cuda) == ("2.34", (13, 0))
    own = sglang.recipe(host(RTX_3090), wish(executable="/opt/sglang/bin/sglang"), files)
    assert own.executable == "/opt/sglang/bin/sglang" and own.directory is None


@pytest.mark.parametrize(
    ("mib", "tp", "chunk", "graphs"),
    [(15360, 1, 2048, 8), (24576, 2, 4096, 48), (24576, 4, 4096, 160), (40960, 1, 4096, 32)],
)
def test_the_reserve_follows_the_card(mib: int, tp: int, chunk: int, graphs: int) -> None:
    """512 + 1.5 x tokens + ranks x 1024 / 8 + 2 x requests + 8 x prefill graphs."""
    found = s.reserved(mib, tp, tp, wish(), mla=False)
    assert (found.chunked_prefill_size, found.cuda_graph_max_bs) == (chunk, graphs)
    total = 512 + 1.5 * chunk + tp * 128 + 2 * graphs + 8 * s.prefill_graphs(chunk)
    assert found.total_mib == total


def test_large_cards_keep_ten_gib_free() -> None:
    held = s.reserved(81559, 1, 1, wish(), mla=False)
    assert held.total_mib >= 10 * 1024


def test_prefill_graphs_are_those_of_the_log() -> None:
    """The start-up log of a GB10 lists 58 sizes up to 8192 tokens."""
    assert s.prefill_graphs(8192) == 58


def test_the_smallest_card_of_the_host_sets_the_fraction_even_unused() -> None:
    alone = s.fraction(host(H100), SINGLE, LLAMA, wish())
    beside = s.fraction(host(H100, RTX_3060), SINGLE, LLAMA, wish())
    assert beside < alone
    (caution,) = sglang.cautions(SINGLE, host(H100, RTX_3060), LLAMA)
    assert caution.rule == "smallest-card-counts"


def test_a_pinned_fraction_is_obeyed() -> None:
    one = s.sized(SINGLE, host(RTX_3090), LLAMA, wish(gpu_memory_utilization=0.8))
    assert one.gpu_memory_utilization == 0.8


def test_sliding_layers_keep_four_fifths_of_the_tokens() -> None:
    """The log's pools: 185,897 tokens in full layers and 148,717 in sliding ones."""
    shape = s.PerToken(full=12 * 4096, sliding=36 * 4096, states=False)
    tokens = shape.tokens(1000.0)
    assert tokens == int(1000 * 1024**2 / (12 * 4096 + 0.8 * 36 * 4096))


def test_unlike_cards_are_no_team() -> None:
    (reason,) = sglang_rules.balance(PAIR, host(RTX_3090, RTX_3060), wish())
    assert reason.rule == "memory-unbalanced"
    assert not list(sglang_rules.balance(PAIR, host(RTX_3090, RTX_4090), wish()))
    off = wish(env=MappingProxyType({"SGLANG_ENABLE_TP_MEMORY_INBALANCE_CHECK": "0"}))
    assert not list(sglang_rules.balance(PAIR, host(RTX_3090, RTX_3060), off))


def test_a_model_that_does_not_fit_is_refused_with_its_memory() -> None:
    with pytest.raises(NoPlan, match="no plan"):
        plan(host(RTX_3060), LLAMA, wish())


CASES = [
    (host(RTX_3090, RTX_3090), {"strategy": "tensor_parallel", "concurrency": 32}),
    (host(RTX_3090, RTX_3090), {"strategy": "pipeline_parallel", "kv_cache_dtype": "fp8_e5m2"}),
    (host(RTX_3090, RTX_3090), {"strategy": "replicas", "gpu_memory_utilization": 0.85}),
    (host(H100), {}),
]


@pytest.mark.parametrize(("machine", "keys"), CASES)
def test_every_command_line_passes_sglangs_own_parser(machine: Any, keys: dict[str, Any]) -> None:
    keys = {**keys, "strategy": Strategy(keys["strategy"])} if "strategy" in keys else keys
    made = plan(machine, LLAMA, wish(executable="/opt/sglang/bin/sglang", **keys))
    for service in runtime("sglang").render(made, "/opt/sglang/bin/sglang", "org/model"):
        assert service.argv[:2] == ("/opt/sglang/bin/sglang", "serve")
        assert not flags.check("sglang", service.argv)
        assert f"--port {service.port}" in " ".join(service.argv)


def test_a_flag_of_the_wish_replaces_ours() -> None:
    assert merged({"--host": "a"}, {"--host": "b"}) == ["--host", "b"]


@given(st.integers(8000, 60000), st.integers(0, 20000))
def test_what_is_planned_never_exceeds_a_card_and_more_memory_holds_more(
    mib: int, more: int
) -> None:
    """Within one tier: SGLang itself takes larger chunks from 20, 35 and 60 GiB.

    It rounds the static fraction to 3 digits, so a MiB more may lose half a thousandth of the card.
    """
    model = hf(dense(num_hidden_layers=16))
    found = []
    for size in (mib, mib + more):
        card = replace(RTX_3090, memory_mib=size, memory_free_mib=size)
        one = s.sized(SINGLE, host(card), model, wish(context=2048))
        fits = all(row.fits for row in one.memory)
        assert fits == ((one.kv_tokens or 0) >= 2048)
        found.append(one.kv_tokens or 0)
    tiers = [sum(size >= tier[0] * 1024 for tier in s.TIERS) for size in (mib, mib + more)]
    if tiers[0] == tiers[1]:
        one_token_mib = 16 * 2 * 8 * 128 * 2 / 2**20
        assert found[0] <= found[1] + 0.001 * size / one_token_mib


def test_latent_attention_is_not_divided() -> None:
    mla = replace(LLAMA, layers=(LayerCache("mla", elements=576),) * 32)
    one, eight = (s.per_token(mla, (0, 32), tp, 2.0) for tp in (1, 8))
    assert one == eight
