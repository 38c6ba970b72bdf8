"""Read a start-up log by rules: every line of interest has a word, a pattern and what it tells."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from multigpu.parse.engines.engine_log import EngineDevice, EngineError, EngineLog
from multigpu.parse.reading import Lines
from multigpu.parse.shape import text as clean

REAL = r"\d{1,12}(?:\.\d{1,9})?"
WHOLE = r"\d{1,15}"
MIB_PER = {"KiB": 1 / 1024, "MiB": 1, "MB": 1, "GiB": 1024, "GB": 1024, "TiB": 1024**2}


class Found:
    """Facts while a log is read: of the log, and of each device in order of appearance."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.devices: dict[str, dict[str, Any]] = {}
        self.errors: dict[str, EngineError] = {}
        self.stopping = False

    def first(self, **values: Any) -> None:
        """Keep values that are not known yet; None says nothing."""
        for name, value in values.items():
            if value is not None:
                self.facts.setdefault(name, value)

    def last(self, **values: Any) -> None:
        """Keep the newest values; None says nothing."""
        self.facts.update({k: v for k, v in values.items() if v is not None})

    def least(self, **values: Any) -> None:
        """Keep the smallest of the values said; None says nothing."""
        for name, value in values.items():
            if value is not None:
                self.facts[name] = min(value, self.facts.get(name, value))

    def device(self, label: str, **values: Any) -> dict[str, Any]:
        """The device of that label, with the newest values."""
        known = self.devices.setdefault(label, {})
        known.update({k: v for k, v in values.items() if v is not None})
        return known

    def add(self, label: str, name: str, value: float) -> None:
        """Sum a value that a device prints in several lines."""
        device = self.device(label)
        device[name] = round(device.get(name, 0.0) + value, 6)

    def sort_ranks(self) -> None:
        """Order the devices by data, pipeline and tensor rank."""
        self.devices = dict(sorted(self.devices.items(), key=lambda item: _rank_key(item[0])))

    def error(self, error: EngineError) -> None:
        """Keep an error once; processes that end after a stop was asked for are none."""
        if not self.stopping:
            self.errors.setdefault(error.text, error)

    def log(self, engine: str, **more: Any) -> EngineLog:
        """The value."""
        known = {f.name for f in fields(EngineDevice)}
        devices = tuple(
            EngineDevice(device, **{k: v for k, v in values.items() if k in known})
            for device, values in self.devices.items()
        )
        facts = {**self.facts, **more, "devices": devices, "errors": tuple(self.errors.values())}
        return EngineLog(engine, **facts)


def _rank_key(label: str) -> tuple[int, ...]:
    parts = dict(re.findall(r"(DP|PP|TP|pid )(\d{1,15})", label, re.ASCII))
    return tuple(int(parts.get(name, 0)) for name in ("DP", "PP", "TP", "pid "))


@dataclass(frozen=True)
class Rule:
    """A line of interest: a word it must contain, then a pattern, then what it tells."""

    keyword: str
    pattern: re.Pattern[str]
    take: Callable[[Any, re.Match[str]], None] = field(repr=False)


def rule(keyword: str, pattern: str, take: Callable[[Any, re.Match[str]], None]) -> Rule:
    """A rule whose digits and word characters are ASCII."""
    return Rule(keyword, re.compile(pattern, re.ASCII), take)


def scan(lines: Lines, rules: Iterable[Rule], found: Any) -> None:
    """Give every line to every rule whose keyword it contains; a line that matches is read."""
    rules = tuple(rules)
    for index, line in lines:
        for rule in rules:
            if rule.keyword in line and (match := rule.pattern.search(line)):
                rule.take(found, match)
                lines.mark(index)


def count(printed: str | None) -> int | None:
    """`2,048,704` or `40960`."""
    digits = (printed or "").replace(",", "")
    return int(digits) if re.fullmatch(WHOLE, digits, re.ASCII) else None


def real(printed: str | None) -> float | None:
    """A number without its unit, minus allowed."""
    match = re.fullmatch(rf"-?{REAL}", printed or "", re.ASCII)
    return float(match[0]) if match else None


def gib(printed: str | None) -> float | None:
    """Printed GiB as MiB."""
    value = real(printed)
    return None if value is None else value * 1024


def mib(printed: str | None, unit: str | None) -> float | None:
    """A printed size as MiB."""
    value, per = real(printed), MIB_PER.get(unit or "")
    return None if value is None or per is None else value * per


def said(printed: str | None, limit: int = 400) -> str | None:
    """Text of a log without lone surrogates and NULs, None for `None` and for nothing."""
    cut = (clean(printed) or "").replace("\0", "").strip()[:limit]
    return cut if cut and cut != "None" else None


def argument(name: str, line: str) -> str | None:
    """The value of `name=value` in a printed dataclass or Namespace, quotes off, None for None."""
    pattern = rf"(?<![\w'.]){name}=(?:'([^']{{0,400}})'|\"([^\"]{{0,400}})\"|([^,\s()]{{1,200}}))"
    match = re.search(pattern, line)
    return said(match[1] or match[2] or match[3]) if match else None


def arguments(found: Found, line: str, names: dict[str, str]) -> None:
    """Facts from a printed argument list; `names` maps ours to theirs."""
    for ours, theirs in names.items():
        value: Any = argument(theirs, line)
        kind = KINDS_OF_FACT.get(ours)
        if kind is not None:
            value = kind(value)
        elif value is not None:
            value = value.removeprefix("torch.")
        found.first(**{ours: value})


KINDS_OF_FACT: dict[str, Callable[[str | None], Any]] = {
    **dict.fromkeys(("max_model_len", "max_num_seqs", "tensor_parallel_size"), count),
    **dict.fromkeys(("pipeline_parallel_size", "data_parallel_size", "world_size"), count),
    "gpu_memory_utilization": real,
}
