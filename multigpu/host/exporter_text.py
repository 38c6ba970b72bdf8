"""Samples as a page in Prometheus' text format (version 0.0.4).

Written by prometheus_client where the host's Python has it, else here: the same families, labels
and values. A counter's family keeps its `_total` in this format.
"""

from __future__ import annotations

import math
from typing import Any, Dict, Iterable, Iterator, List, Tuple

from multigpu.host.exporter_table import BY_NAME, COUNTER, METRICS, Metric, Sample

try:
    import prometheus_client
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
except ImportError:
    prometheus_client = None  # type: ignore[assignment,unused-ignore]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Rows = List[Tuple[Tuple[str, ...], float]]


def page(samples: Iterable[Sample]) -> bytes:
    """The page of these samples; what the table does not name is a KeyError."""
    found = families(samples)
    return own_page(found) if prometheus_client is None else client_page(found)


def families(samples: Iterable[Sample]) -> List[Tuple[Metric, Rows]]:
    """Samples by metric in the table's order; of equal labels the last sample counts."""
    rows: Dict[str, Dict[Tuple[str, ...], float]] = {}
    for sample in samples:
        labels = tuple(sample.labels.get(label, "") for label in BY_NAME[sample.name].labels)
        rows.setdefault(sample.name, {})[labels] = float(sample.value)
    return [(metric, list(rows[metric.name].items())) for metric in METRICS if metric.name in rows]


def own_page(found: List[Tuple[Metric, Rows]]) -> bytes:
    """The page without any library."""
    return "".join(line + "\n" for metric, rows in found for line in _lines(metric, rows)).encode()


def _lines(metric: Metric, rows: Rows) -> Iterator[str]:
    help = metric.help.replace("\\", "\\\\").replace("\n", "\\n")
    yield f"# HELP {metric.name} {help}"
    yield f"# TYPE {metric.name} {metric.kind}"
    for values, number in rows:
        pairs = [f'{name}="{_escaped(values[i])}"' for i, name in enumerate(metric.labels)]
        labels = ",".join(pairs)
        yield f"{metric.name}{'{' + labels + '}' if labels else ''} {_number(number)}"


def _escaped(value: str) -> str:
    value = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return value.encode("utf-8", "replace").decode()


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)


class _Given:
    """A collector of prometheus_client that gives the families that it was given."""

    def __init__(self, found: List[Tuple[Metric, Rows]]) -> None:
        self.found = found

    def collect(self) -> Iterator[Any]:
        for metric, rows in self.found:
            kind = CounterMetricFamily if metric.kind == COUNTER else GaugeMetricFamily
            family = kind(metric.name, metric.help, labels=metric.labels)
            for values, number in rows:
                family.add_metric([v.encode("utf-8", "replace").decode() for v in values], number)
            yield family


def client_page(found: List[Tuple[Metric, Rows]]) -> bytes:
    """The page as prometheus_client writes it."""
    registry = prometheus_client.CollectorRegistry(auto_describe=False)
    registry.register(_Given(found))
    return bytes(prometheus_client.generate_latest(registry))
