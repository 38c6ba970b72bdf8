"""Services as their supervisors' state files, plans and control groups tell them; none is asked.

A state file that is missing, torn or of another shape is a value (`state_readable` 0), as is a
field that it lacks.
"""

from __future__ import annotations

import glob
import json
import os
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set

from multigpu.host.exporter_gpus import labels
from multigpu.host.exporter_nvml import Card
from multigpu.host.exporter_table import Sample
from multigpu.host.state import STATES
from multigpu.host.verdicts import NOT_RETRIED, REASONS, START_LIMIT_HIT

STATE_FILES = "var/lib/multigpu/*/state/*.json"
PLAN_FILES = "etc/multigpu/*.plan.json"
HOME = "var/lib/multigpu"
CGROUPS = ("sys/fs/cgroup/system.slice", "sys/fs/cgroup/systemd/system.slice")
"""Of cgroup v2, and of v1 with systemd's own hierarchy."""
LARGEST_BYTES = 1 << 20
RESTARTING = tuple(r for r in REASONS if r not in (*NOT_RETRIED, START_LIMIT_HIT))
"""Their counters exist from the start, so that the first restart is an increase."""


class Service(NamedTuple):
    """One unit: what is planned and what its supervisor wrote, None where it is not readable."""

    name: str
    wish: str
    plan: Optional[Dict[str, Any]]
    state: Optional[Dict[str, Any]]
    state_age_s: Optional[float]
    pids: Optional[Set[int]]
    is_fenced: bool


def services(root: str = "/") -> List[Service]:
    """All services that have a plan or a state file, by name."""
    plans = {_name(path, ".plan.json"): _object(path) for path in _found(root, PLAN_FILES)}
    states = {_name(path, ".json"): path for path in _found(root, STATE_FILES)}
    return [_service(root, n, plans.get(n), states.get(n)) for n in sorted({*plans, *states})]


def _service(root: str, name: str, plan: Optional[Dict[str, Any]], path: Optional[str]) -> Service:
    state = None if path is None else _object(path)
    home = "" if path is None else os.path.dirname(os.path.dirname(path))
    wish = _text((plan or {}).get("wish")) or os.path.basename(home) or name
    fence = os.path.join(root, HOME, wish, "fenced")
    pids = _pids(root, f"multigpu-{name}.service")
    return Service(name, wish, plan, state, _age_s(path), pids, os.path.exists(fence))


def _found(root: str, pattern: str) -> List[str]:
    return sorted(glob.glob(os.path.join(root, pattern)))


def _name(path: str, suffix: str) -> str:
    return os.path.basename(path)[: -len(suffix)]


def _object(path: str) -> Optional[Dict[str, Any]]:
    """A JSON object, None for anything else."""
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(LARGEST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _age_s(path: Optional[str]) -> Optional[float]:
    try:
        return None if path is None else max(0.0, time.time() - os.stat(path).st_mtime)
    except OSError:
        return None


def _pids(root: str, unit: str) -> Optional[Set[int]]:
    """Processes of a unit and below it; none when it is down, None without a readable hierarchy."""
    slices = [os.path.join(root, place) for place in CGROUPS]
    there = [place for place in slices if os.path.isdir(place)]
    if not there:
        return None
    found: Set[int] = set()
    for top in (os.path.join(place, unit) for place in there):
        for directory, _, _ in os.walk(top):
            found |= _numbers(os.path.join(directory, "cgroup.procs"))
    return found


def _numbers(path: str) -> Set[int]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return {int(word) for word in file.read().split() if word.isdigit()}
    except OSError:
        return set()


def planned_cards(found: Iterable[Service]) -> List[Card]:
    """The cards that plans count on, known by name only."""
    return [
        Card(
            index=_int(gpu.get("index")),
            uuid=_text(gpu.get("uuid")),
            pci_address=_bus(gpu),
            vendor=_text(gpu.get("vendor")) or "nvidia",
        )
        for service in found
        for gpu in _gpus(service)
        if _text(gpu.get("uuid")) or _bus(gpu)
    ]


def _gpus(service: Service) -> List[Dict[str, Any]]:
    given = (service.plan or {}).get("gpus")
    return [gpu for gpu in given if isinstance(gpu, dict)] if isinstance(given, list) else []


def _bus(gpu: Dict[str, Any]) -> Optional[str]:
    return _text(gpu.get("pci_address"))


def samples(service: Service, cards: Iterable[Card]) -> List[Sample]:
    """Everything that is known of one service."""
    who = {"service": service.name, "wish": service.wish}
    found = [
        Sample("multigpu_service_state_readable", who, float(service.state is not None)),
        Sample("multigpu_service_fenced", who, float(service.is_fenced)),
    ]
    if service.state_age_s is not None:
        found.append(Sample("multigpu_service_state_age_seconds", who, service.state_age_s))
    if service.pids is not None:
        found.append(Sample("multigpu_service_processes", who, len(service.pids)))
    if service.state is not None:
        found += _of_state(service.state, who)
    if service.plan is not None:
        found.append(Sample("multigpu_service_plan_info", {**who, **_plan(service.plan)}, 1))
    return [*found, *_memory(service, list(cards), who)]


def _plan(plan: Dict[str, Any]) -> Dict[str, str]:
    words = ("runtime", "revision", "model", "strategy")
    simulated = "true" if plan.get("simulated") is True else "false"
    return {**{w: _text(plan.get(w)) or "" for w in words}, "simulated": simulated}


NUMBERS: Dict[str, Callable[[Dict[str, Any]], Any]] = {
    "state_since_timestamp_seconds": lambda state: state.get("since"),
    "tokens_total": lambda state: state.get("tokens_total"),
    "requests_running": lambda state: state.get("running"),
    "requests_waiting": lambda state: state.get("waiting"),
    "kv_usage_ratio": lambda state: state.get("kv_usage"),
    "load_seconds": lambda state: state.get("load_s"),
    "failed_starts": lambda state: _part(state, "backoff").get("n"),
    "backoff_until_timestamp_seconds": lambda state: _part(state, "backoff").get("until"),
}


def _of_state(state: Dict[str, Any], who: Dict[str, str]) -> Iterator[Sample]:
    info = {word: _text(state.get(word)) or "" for word in ("runtime", "revision")}
    yield Sample("multigpu_service_info", {**who, **info}, 1)
    now = _text(state.get("state")) or ""
    for name in dict.fromkeys((*STATES, *([now] if now else []))):
        yield Sample("multigpu_service_state", {**who, "state": name}, float(name == now))
    for name, read in NUMBERS.items():
        value = _number(read(state))
        if value is not None:
            yield Sample(f"multigpu_service_{name}", who, value)
    moved_at = _number(state.get("progress_at"))
    if moved_at is not None:
        age_s = max(0.0, time.time() - moved_at)
        yield Sample("multigpu_service_progress_age_seconds", who, age_s)
    yield from _verdicts(state, who)


def _verdicts(state: Dict[str, Any], who: Dict[str, str]) -> Iterator[Sample]:
    for reason, count in {**dict.fromkeys(RESTARTING, 0), **_part(state, "restarts")}.items():
        value = _number(count)
        if value is not None:
            yield Sample("multigpu_service_restarts_total", {**who, "reason": reason}, value)
    last = _part(state, "last_verdict")
    why, at = _text(last.get("reason")), _number(last.get("at"))
    if why is not None and at is not None:
        verdict = {**who, "reason": why}
        yield Sample("multigpu_service_last_verdict_timestamp_seconds", verdict, at)


def _memory(service: Service, cards: List[Card], who: Dict[str, str]) -> Iterator[Sample]:
    """Predicted of its planned cards, used of every card on which its processes are."""
    by_name = {name: card for card in cards for name in (card.uuid, card.pci_address) if name}
    for gpu in _gpus(service):
        card = by_name.get(_text(gpu.get("uuid")) or "") or by_name.get(_bus(gpu) or "")
        value = _number(gpu.get("predicted_memory_bytes"))
        if card is not None and value is not None:
            more = {**who, **labels(card)}
            yield Sample("multigpu_service_gpu_memory_predicted_bytes", more, value)
    for card in cards:
        held = [memory for pid, memory in card.processes or () if pid in (service.pids or ())]
        if held and None not in held:
            more = {**who, **labels(card)}
            total = sum(memory or 0 for memory in held)
            yield Sample("multigpu_service_gpu_memory_used_bytes", more, total)


def _part(state: Dict[str, Any], name: str) -> Dict[str, Any]:
    found = state.get(name)
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> Optional[str]:
    return value if isinstance(value, str) and value else None


def _int(value: Any) -> Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> Optional[float]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    try:
        return float(value) if is_number else None
    except OverflowError:
        return None


def host_samples(root: str = "/") -> List[Sample]:
    """What holds for the host."""
    is_fenced = os.path.exists(os.path.join(root, HOME, "fenced"))
    return [Sample("multigpu_host_fenced", {}, float(is_fenced))]
