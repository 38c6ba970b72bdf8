"""Properties of planning over random hosts, models and wishes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from multigpu.errors import NoPlan, WishError
from multigpu.flags import check
from multigpu.hardware import Gpu, GpuPair, Host, P2p, Path, PcieLink
from multigpu.plan import Candidate, LayerCache, ModelSpec, Plan, Strategy
from multigpu.planner import plan
from multigpu.runtimes import RUNTIMES, runtime
from multigpu.wish import wishes
from tests.machines import (
    H100,
    R9700,
    RTX_2080,
    RTX_3060,
    RTX_3090,
    RTX_4090,
    RTX_5090,
    V100,
    dense,
    gguf,
    hf,
    llama_70b,
)

BY_LAYER = (
    Strategy.PIPELINE_PARALLEL,
    Strategy.TENSOR_PIPELINE_PARALLEL,
    Strategy.LAYER_SPLIT,
)
AWQ = {"quant_method": "awq", "group_size": 128}
EXPERTS = {"num_local_experts": 32, "num_experts_per_tok": 4, "moe_intermediate_size": 768}
STATE = LayerCache("state", elements=1_600_000, element_bytes=4)
FULL = LayerCache("full", 8, 128)


def models() -> list[ModelSpec]:
    """Dense, mixtures, MLA and hybrids; small and large; safetensors and GGUF."""
    return [
        hf(),
        hf(dense(num_hidden_layers=12)),
        llama_70b(quantization_config=AWQ),
        hf(dense(**EXPERTS, quantization_config=AWQ)),
        replace(hf(), layers=(LayerCache("mla", elements=576),) * 32, num_key_value_heads=32),
        replace(hf(), layers=(STATE, STATE, STATE, FULL) * 8),
        gguf(),
        gguf(block_mib=900),
    ]


CARDS = [RTX_3090, RTX_4090, RTX_5090, RTX_3060, H100, V100, R9700, RTX_2080]


@st.composite
def machines(draw: st.DrawFn, cards: st.SearchStrategy[Gpu] | None = None) -> Host:
    """One to eight cards, mixed or alike; free memory, lanes and every pair's link are drawn."""
    kind = st.sampled_from(CARDS) if cards is None else cards
    kinds = draw(st.lists(kind, min_size=1, max_size=3))
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=8))
    lanes = draw(st.lists(st.sampled_from([4, 8, 16]), min_size=8, max_size=8))
    gpus = []
    for index, card in enumerate(chosen):
        used = draw(st.sampled_from([300, 300, 300, 2048, (card.memory_mib or 0) // 2]))
        link = PcieLink(gen_max=4, width_current=lanes[index], width_max=16)
        free = (card.memory_mib or 0) - used
        uuid = f"GPU-{index:08d}"
        gpus.append(replace(card, index=index, uuid=uuid, memory_free_mib=free, pcie=link))
    pairs = tuple(
        GpuPair(
            a,
            b,
            draw(st.sampled_from(Path)),
            draw(st.sampled_from([0, 0, 4])),
            draw(st.sampled_from([P2p.OK, P2p.NOT_SUPPORTED])),
        )
        for a, b in combinations(range(len(gpus)), 2)
    )
    return Host("tower", gpus=tuple(gpus), pairs=pairs, memory_available_mib=131072)


MODELS = st.sampled_from(models())
WISHED: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"objective": st.sampled_from(["latency", "throughput", "context"])},
    optional={
        "context": st.sampled_from([1024, 8192, 32768]),
        "concurrency": st.sampled_from([1, 7, 64, 400]),
        "executable": st.just("/opt/runtime"),
    },
)
PINS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "strategy": st.sampled_from([str(s) for s in Strategy]),
        "tensor_parallel_size": st.sampled_from([1, 2, 3, 4]),
        "pipeline_parallel_size": st.sampled_from([1, 2, 3]),
        "gpus": st.lists(st.integers(0, 7), min_size=1, max_size=4, unique=True),
        "expert_parallel": st.booleans(),
        "gpu_memory_utilization": st.sampled_from([0.5, 0.85]),
    },
)


def attempt(machine: Host, model: ModelSpec, keys: dict[str, Any]) -> Plan | NoPlan | WishError:
    (wish,) = wishes({"chat": {"model": model.name, **keys}})
    try:
        return plan(machine, model, wish)
    except (NoPlan, WishError) as error:
        return error


def considered(made: Plan | NoPlan | WishError) -> list[Candidate]:
    """Everything that was proposed."""
    if isinstance(made, WishError):
        return []
    chosen = [made.chosen] if isinstance(made, Plan) else []
    return [*chosen, *(item.candidate for item in made.rejected)]


@given(machines(), MODELS, WISHED)
def test_no_plan_exceeds_a_card(machine: Host, model: ModelSpec, keys: dict[str, Any]) -> None:
    made = attempt(machine, model, keys)
    if not isinstance(made, Plan):
        return
    chosen = made.chosen
    assert len(chosen.memory) == len(chosen.gpus)
    for index, memory in zip(chosen.gpus, chosen.memory, strict=True):
        gpu = machine.gpu(index)
        assert memory.fits
        assert memory.total_mib <= (gpu.memory_free_mib or 0) <= (gpu.memory_mib or 0)
        assert memory.kv_cache_mib >= 0 and memory.weights_mib > 0


@given(machines(), MODELS, WISHED, st.sampled_from([64, 1024, 9000]), st.data())
def test_more_memory_never_makes_a_feasible_wish_infeasible(
    machine: Host, model: ModelSpec, keys: dict[str, Any], more: int, data: st.DataObject
) -> None:
    made = attempt(machine, model, keys)
    if not isinstance(made, Plan):
        return
    grown = data.draw(st.sets(st.sampled_from([g.index for g in machine.gpus]), min_size=1))
    gpus = tuple(
        replace(
            gpu,
            memory_mib=(gpu.memory_mib or 0) + more,
            memory_free_mib=(gpu.memory_free_mib or 0) + more,
        )
        if gpu.index in grown
        else gpu
        for gpu in machine.gpus
    )
    after = attempt(replace(machine, gpus=gpus), model, keys)
    assert isinstance(after, Plan), str(after)


def permuted(machine: Host, order: list[int]) -> Host:
    """The same machine with card `i` in place `order[i]`; links move with their cards."""
    gpus = sorted(
        (replace(gpu, index=order[gpu.index]) for gpu in machine.gpus), key=lambda g: g.index
    )
    pairs = []
    for pair in machine.pairs:
        a, b = sorted((order[pair.a], order[pair.b]))
        pairs.append(replace(pair, a=a, b=b))
    return replace(machine, gpus=tuple(gpus), pairs=tuple(pairs))


def shape(made: Plan | NoPlan | WishError) -> object:
    """What a plan is but for the numbers of its cards."""
    if not isinstance(made, Plan):
        return type(made)
    c = made.chosen
    sizes = (c.tensor_parallel_size, c.pipeline_parallel_size, c.replicas, c.expert_parallel)
    return c.runtime, c.strategy, sizes, c.layers, c.kv_tokens, sorted(map(repr, c.memory))


@given(machines(), MODELS, WISHED, st.data())
def test_permuting_cards_does_not_change_the_plan(
    machine: Host, model: ModelSpec, keys: dict[str, Any], data: st.DataObject
) -> None:
    """Cards change their slots together with what joins them, whatever that is for each pair."""
    order = data.draw(st.permutations(range(len(machine.gpus))))
    first = attempt(machine, model, keys)
    assert shape(attempt(permuted(machine, list(order)), model, keys)) == shape(first)


@given(machines(st.sampled_from([RTX_3090, H100])), MODELS, WISHED, st.data())
def test_permuting_identical_cards_does_not_change_the_plan(
    machine: Host, model: ModelSpec, keys: dict[str, Any], data: st.DataObject
) -> None:
    """Cards of one kind, as free as each other, over any paths and bridges."""
    kind = machine.gpus[0]
    gpus = tuple(replace(kind, index=i) for i in range(len(machine.gpus)))
    machine = replace(machine, gpus=gpus)
    order = data.draw(st.permutations(range(len(gpus))))
    first = attempt(machine, model, keys)
    assert shape(attempt(permuted(machine, list(order)), model, keys)) == shape(first)


@given(machines(), MODELS, WISHED, PINS)
def test_every_candidate_is_chosen_or_rejected_with_a_reason(
    machine: Host, model: ModelSpec, keys: dict[str, Any], pins: dict[str, Any]
) -> None:
    keys = {**keys, **pins}
    made = attempt(machine, model, keys)
    if isinstance(made, WishError):
        return
    (wish,) = wishes({"chat": {"model": model.name, **keys}})
    proposed = [c for module in RUNTIMES for c in module.candidates(machine, model, wish)]
    assert len(proposed) == len(considered(made)) > 0
    assert all(item.reasons for item in made.rejected)
    assert all(r.rule and r.found for item in made.rejected for r in item.reasons)
    known = [replace(c, predicted=None) for c in considered(made)]
    assert all(replace(c, predicted=None) in known for c in proposed)


@given(machines(), MODELS, WISHED, PINS)
def test_every_command_line_passes_the_flag_tables(
    machine: Host, model: ModelSpec, keys: dict[str, Any], pins: dict[str, Any]
) -> None:
    made = attempt(machine, model, {**keys, **pins})
    if not isinstance(made, Plan):
        return
    name = made.chosen.runtime
    services = runtime(name).render(made, "/opt/run", model.path)
    assert len(services) == made.chosen.replicas
    assert tuple(i for service in services for i in service.gpus) == made.chosen.gpus
    for service in services:
        assert check(name, service.argv) == ()


@given(machines(), MODELS, WISHED)
def test_no_group_mixes_vendors_and_layers_add_up(
    machine: Host, model: ModelSpec, keys: dict[str, Any]
) -> None:
    made = attempt(machine, model, keys)
    for c in considered(made):
        teams = [c.gpus[i :: c.replicas] for i in range(c.replicas)]
        vendors = {machine.gpu(i).vendor for i in c.gpus}
        if c.tensor_parallel_size > 1 or c.pipeline_parallel_size > 1:
            assert len(vendors) == 1
        assert len(set(c.gpus)) == len(c.gpus) == sum(map(len, teams))
        ranks = c.tensor_parallel_size * c.pipeline_parallel_size * c.replicas
        if c.strategy not in (Strategy.LAYER_SPLIT, Strategy.TENSOR_SPLIT):
            assert ranks == len(c.gpus)
    if isinstance(made, Plan) and made.chosen.strategy in BY_LAYER:
        units = model.num_hidden_layers + (made.chosen.strategy is Strategy.LAYER_SPLIT)
        assert made.chosen.layers is not None and sum(made.chosen.layers) == units
    if isinstance(made, Plan):
        assert len({machine.gpu(i).vendor for i in made.chosen.gpus}) == 1


OBEYED: dict[str, Callable[[Candidate], object]] = {
    "strategy": lambda c: str(c.strategy),
    "tensor_parallel_size": lambda c: c.tensor_parallel_size,
    "pipeline_parallel_size": lambda c: c.pipeline_parallel_size,
    "gpus": lambda c: sorted(c.gpus),
    "expert_parallel": lambda c: c.expert_parallel,
    "gpu_memory_utilization": lambda c: c.gpu_memory_utilization,
}


@given(machines(), MODELS, WISHED, PINS)
def test_pins_are_obeyed_or_refused(
    machine: Host, model: ModelSpec, keys: dict[str, Any], pins: dict[str, Any]
) -> None:
    made = attempt(machine, model, {**keys, **pins})
    if not isinstance(made, Plan):
        assert "\n" not in str(made)
        return
    for key, wished in pins.items():
        found = OBEYED[key](made.chosen)
        assert found == (sorted(wished) if key == "gpus" else wished), key
