"""Is every planned card fed, and does it hold what was predicted? Thresholds are named here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from multigpu import devices
from multigpu.backend import Backend
from multigpu.observation import CardSeen, ServiceSeen, UnitSeen, users
from multigpu.plan import Check, Memory, Plan, Strategy
from multigpu.units import RenderedUnit

IDLE_PERCENT = 5.0
"""Below this a card did not take part; a working one shows more in any NVML window."""
TENSOR_PARALLEL_PERCENT = 70.0
"""Each rank under tensor parallel, with at least ENOUGH_USERS requests in flight."""
ENOUGH_USERS = 4
SHARE = 0.4
"""How much of its expected share of the time a card must work before it counts as fed."""
MEMORY_LOW, MEMORY_HIGH, MEMORY_SLACK_MIB = 0.7, 1.15, 512.0
"""Used memory must lie between 70 % of weights and KV cache and 115 % of the prediction."""
REDEPLOY = "re-run deploys/serve.py: the unit on the host differs from the plan"


def check_cards(plan: Plan, units: Iterable[RenderedUnit], seen: ServiceSeen) -> Iterator[Check]:
    """Every planned card is there, fed, and holds about what was predicted.

    An engine that answers nothing feeds no card either; that is said once, elsewhere.
    """
    if seen.nvml_error or not seen.gpus:
        amd = Backend.HIP in devices.backends(plan)
        source, tool = ("amdgpu", "amd-smi") if amd else ("NVML", "nvidia-smi")
        found = seen.nvml_error or f"{source} lists no card"
        yield Check("cards seen", False, found, f"{source} answers", f"run {tool} on the host")
        return
    for position, index in enumerate(plan.chosen.gpus):
        card = find_card(seen.gpus, index, plan.gpu_uuids[position])
        if card is None or card.error:
            yield lost(plan, position, card)
        elif seen.load.completed:
            unit = next((unit for unit in units if index in unit.service.gpus), None)
            yield from check_card(plan, position, card, unit, seen)


def find_card(cards: Iterable[CardSeen], index: int, uuid: str | None) -> CardSeen | None:
    """The planned card: by UUID, since an index moves when a card falls off the bus."""
    known = [card for card in cards if uuid is not None and card.uuid == uuid]
    unnamed = [card for card in cards if card.index == index and None in (uuid, card.uuid)]
    return next(iter([*known, *unnamed]), None)


def lost(plan: Plan, position: int, card: CardSeen | None) -> Check:
    """A planned card that NVML does not show."""
    label, uuid = name(plan, position), plan.gpu_uuids[position]
    why = card.error if card is not None else "no such card"
    return Check(
        label,
        False,
        f"{label} is lost: NVML says: {why}",
        f"the planned card {uuid}" if uuid else "a working card",
        "look for Xid in dmesg; a card that fell off the bus needs a reboot or another seat",
    )


def check_card(
    plan: Plan, position: int, card: CardSeen, unit: RenderedUnit | None, seen: ServiceSeen
) -> Iterator[Check]:
    """One planned card under load. What an idle card does not hold needs no word of its own."""
    if card.busy_percent is None:
        yield untold(plan, position)
    elif card.busy_percent < IDLE_PERCENT:
        yield idle(plan, position, card, unit, seen)
        return
    else:
        yield check_busy(plan, position, card, seen.load.seconds)
    if position < len(plan.chosen.memory):
        yield check_memory(plan, position, card, plan.chosen.memory[position])


def untold(plan: Plan, position: int) -> Check:
    """A card whose work is unknown, which is not the same as idle."""
    label = name(plan, position)
    return Check(
        f"{label} fed",
        False,
        f"{label} tells no utilization",
        "a utilization from NVML",
        f"run nvidia-smi -i {plan.chosen.gpus[position]} -q; a vGPU profile may hide it",
    )


def idle(
    plan: Plan, position: int, card: CardSeen, unit: RenderedUnit | None, seen: ServiceSeen
) -> Check:
    """A planned card that did not work, and how the running process differs from the plan."""
    label, busy, seconds = name(plan, position), card.busy_percent or 0.0, seen.load.seconds
    found = f"{label} idle: {busy:.0f} % over {seconds:.0f} s under load"
    found += f", {mib(card.memory_used_mib)} used"
    if position < len(plan.chosen.memory):
        found += f"; planned {plan.chosen.memory[position].total_mib / 1024:.1f} GiB"
    running = next((u for u in seen.units if unit is not None and u.unit == unit.name), None)
    differing = differences(unit, running)
    expected = f"{all_of(plan)} to work"
    if differing:
        expected += f"; the running process carries {'; '.join(differing)}"
    log = f"journalctl -u {unit.name if unit else 'multigpu-*'}"
    engine = f"the command line is as planned: look for the card in the engine's log, {log}"
    return Check(f"{label} fed", False, found, expected, REDEPLOY if differing else engine)


def check_busy(plan: Plan, position: int, card: CardSeen, seconds: float) -> Check:
    """The card worked its share of the time."""
    label, busy = name(plan, position), card.busy_percent or 0.0
    floor, why = expected_busy(plan, position)
    ok = busy >= floor
    found = f"{label} busy {busy:.0f} % over {seconds:.0f} s"
    return Check(
        f"{label} fed",
        ok,
        f"{found}: {why}" if ok else found,
        f"at least {floor:.0f} %: {why}",
        "verify again while nothing else uses the host; then compare with deploys/survey.py",
    )


def expected_busy(plan: Plan, position: int) -> tuple[float, str]:
    """Lowest utilization (percent) at which the card counts as fed, and why."""
    chosen, requests = plan.chosen, users(plan)
    if plan.simulated:
        return IDLE_PERCENT, "simulated cards share the host's CPU cores"
    if chosen.strategy is Strategy.TENSOR_PARALLEL and requests >= ENOUGH_USERS:
        return TENSOR_PARALLEL_PERCENT, "every rank works on every token"
    if chosen.strategy in (Strategy.LAYER_SPLIT, Strategy.PIPELINE_PARALLEL):
        return staged_busy(plan, position)
    return 100 * SHARE, f"{requests} request{'s' if requests > 1 else ''} in flight"


def staged_busy(plan: Plan, position: int) -> tuple[float, str]:
    """Stages work in turn: one of N cards works 1/N of the time at concurrency 1.

    llama.cpp's layer split decodes in turn at any concurrency; vLLM's stages overlap as soon as
    there are as many requests as stages.
    """
    chosen, requests = plan.chosen, users(plan)
    layers = chosen.layers or (1,) * max(1, chosen.pipeline_parallel_size)
    stage = position // chosen.tensor_parallel_size
    share = layers[min(stage, len(layers) - 1)] / sum(layers)
    overlap = requests if chosen.strategy is Strategy.PIPELINE_PARALLEL else 1
    expected = 100 * min(1.0, share * min(overlap, len(layers)))
    how = "in turn" if overlap == 1 else "on several requests at once"
    stages = "stages" if chosen.tensor_parallel_size > 1 else "cards"
    return (
        max(IDLE_PERCENT, expected * SHARE),
        f"{len(layers)} {stages} work {how}, this one about {expected:.0f} % of the time",
    )


def check_memory(plan: Plan, position: int, card: CardSeen, memory: Memory) -> Check:
    """The card holds its weights and KV cache, and not much more than predicted."""
    label, used = name(plan, position), card.memory_used_mib
    low = MEMORY_LOW * (memory.weights_mib + memory.kv_cache_mib)
    high = MEMORY_HIGH * memory.total_mib + MEMORY_SLACK_MIB
    found = f"{label} holds {mib(used)}"
    if used is None or used < low:
        hint = "the engine put less here than planned: compare its log with plans/"
    else:
        held = ", ".join(f"pid {pid} {mib(size)}" for pid, size in card.processes)
        hint = f"see who holds it: {held or 'nvidia-smi lists no process'}"
    return Check(
        f"{label} memory",
        used is not None and low <= used <= high,
        f"{found}, {memory.total_mib:.0f} MiB predicted",
        f"{low:.0f} to {high:.0f} MiB",
        hint,
    )


def differences(unit: RenderedUnit | None, running: UnitSeen | None) -> tuple[str, ...]:
    """`--flag running-value (plan: value)` for each flag that differs."""
    if unit is None or running is None or not running.argv:
        return ()
    want, have = flags(unit.service.argv), flags(running.argv)
    return tuple(
        f"{flag} {have.get(flag, 'not set')} (plan: {want.get(flag, 'not set')})"
        for flag in dict.fromkeys((*want, *have))
        if want.get(flag) != have.get(flag)
    )


def flags(argv: Iterable[str]) -> dict[str, str]:
    """`--name value` pairs of a command line; a flag without a value maps to ""."""
    found: dict[str, str] = {}
    flag = None
    for word in argv:
        if word.startswith("--"):
            flag, _, value = word.partition("=")
            found[flag] = value
        elif flag is not None:
            found[flag] = f"{found[flag]} {word}".strip()
    return found


def name(plan: Plan, position: int) -> str:
    """`GPU 1`, or `simulated GPU 1`."""
    return f"{'simulated ' if plan.simulated else ''}GPU {plan.chosen.gpus[position]}"


def all_of(plan: Plan) -> str:
    """Which cards should work, in the plan's words."""
    count = len(plan.chosen.gpus)
    which = {1: "the card", 2: "both cards"}.get(count, f"all {count} cards")
    return f"{which} of the plan ({plan.chosen.runtime}, {plan.chosen.strategy})"


def mib(value: int | None) -> str:
    """Unknown is said, not shown as 0."""
    return "an unknown number of MiB" if value is None else f"{value} MiB"
