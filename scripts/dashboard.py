"""Write templates/monitoring/dashboard.json: a panel for what the exporter tells.

Needs `grafana-foundation-sdk` (Grafana's own types and builders), which nothing else here needs:

    pip install 'grafana-foundation-sdk==1769699379!11.6.0'
    PYTHONPATH=. python scripts/dashboard.py
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from multigpu.host.exporter_table import BY_NAME

TARGET = Path(__file__).parent.parent / "templates" / "monitoring" / "dashboard.json"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
HOSTS, SERVICES = 'instance=~"$instance"', 'instance=~"$instance",service=~"$service"'
CARD, SERVICE = "{{instance}} GPU {{gpu}}", "{{instance}} {{service}}"
COLUMNS, HEIGHT = 24, 7


class Graph(NamedTuple):
    """One panel; `metric` gives the description, `unit` is Grafana's id of a unit."""

    title: str
    metric: str
    expression: str
    legend: str
    unit: str = "short"
    is_stat: bool = False
    most: float | None = None


def gpu(name: str, more: str = "") -> str:
    """A metric of the chosen hosts' cards."""
    return f"multigpu_gpu_{name}{{{HOSTS}{more}}}"


def service(name: str, more: str = "") -> str:
    """A metric of the chosen services."""
    return f"multigpu_service_{name}{{{SERVICES}{more}}}"


SERVING, VOLATILE = ',state="serving"', ',counter="volatile"'
G, S = "multigpu_gpu_", "multigpu_service_"
ROWS: dict[str, tuple[Graph, ...]] = {
    "Fleet": (
        Graph("Cards that answer", G + "up", f"sum({gpu('up')})", "cards", is_stat=True),
        Graph("Cards lost", G + "up", f"sum(1 - {gpu('up')})", "cards", is_stat=True),
        Graph(
            "Services that serve",
            S + "state",
            f"sum({service('state', SERVING)})",
            "services",
            is_stat=True,
        ),
        Graph(
            "Restarts in a day",
            S + "restarts_total",
            f"sum(increase({service('restarts_total')}[1d]))",
            "restarts",
            is_stat=True,
        ),
        Graph("Fenced", S + "fenced", f"sum({service('fenced')})", "services", is_stat=True),
        Graph("Power", G + "power_watts", f"sum({gpu('power_watts')})", "all", "watt", True),
    ),
    "Services": (
        Graph("State", S + "state", f"{service('state')} == 1", SERVICE + " {{state}}"),
        Graph("Tokens", S + "tokens_total", f"rate({service('tokens_total')}[5m])", SERVICE, "cps"),
        Graph("Requests running", S + "requests_running", service("requests_running"), SERVICE),
        Graph("Requests waiting", S + "requests_waiting", service("requests_waiting"), SERVICE),
        Graph(
            "KV cache in use",
            S + "kv_usage_ratio",
            service("kv_usage_ratio"),
            SERVICE,
            "percentunit",
            most=1,
        ),
        Graph(
            "Since the last progress",
            S + "progress_age_seconds",
            service("progress_age_seconds"),
            SERVICE,
            "s",
        ),
        Graph(
            "Restarts by reason",
            S + "restarts_total",
            f"increase({service('restarts_total')}[1h]) > 0",
            SERVICE + " {{reason}}",
        ),
        Graph(
            "Memory against the plan",
            S + "gpu_memory_used_bytes",
            f"{service('gpu_memory_used_bytes')} / {service('gpu_memory_predicted_bytes')}",
            SERVICE + " GPU {{gpu}}",
            "percentunit",
        ),
        Graph("Start to ready", S + "load_seconds", service("load_seconds"), SERVICE, "s"),
    ),
    "GPUs": (
        Graph(
            "Utilization",
            G + "utilization_ratio",
            gpu("utilization_ratio"),
            CARD,
            "percentunit",
            most=1,
        ),
        Graph("Memory in use", G + "memory_used_bytes", gpu("memory_used_bytes"), CARD, "bytes"),
        Graph("Power", G + "power_watts", gpu("power_watts"), CARD, "watt"),
        Graph(
            "Temperature", G + "temperature_celsius", gpu("temperature_celsius"), CARD, "celsius"
        ),
        Graph(
            "Slowed down",
            G + "throttled",
            gpu("throttled", ',reason!~"gpu_idle|sw_power_cap"') + " == 1",
            CARD + " {{reason}}",
        ),
        Graph("Processes", G + "processes", gpu("processes"), CARD),
    ),
    "Links and errors": (
        Graph("PCIe lanes", G + "pcie_link_width_lanes", gpu("pcie_link_width_lanes"), CARD),
        Graph("PCIe generation", G + "pcie_link_generation", gpu("pcie_link_generation"), CARD),
        Graph(
            "Xid",
            G + "xid_total",
            f"increase({gpu('xid_total')}[1h]) > 0",
            CARD + " {{pci_address}} Xid {{code}}",
        ),
        Graph(
            "ECC errors",
            G + "ecc_errors_total",
            f"increase({gpu('ecc_errors_total', VOLATILE)}[1h]) > 0",
            CARD + " {{error}}",
        ),
        Graph(
            "Recovery action",
            G + "recovery_action",
            gpu("recovery_action", ',action!="none"') + " == 1",
            CARD + " {{action}}",
        ),
        Graph("Remapped rows", G + "remapped_rows", gpu("remapped_rows"), CARD + " {{error}}"),
        Graph(
            "Sources of the exporter",
            "multigpu_exporter_source_up",
            f"multigpu_exporter_source_up{{{HOSTS}}}",
            "{{instance}} {{source}}",
        ),
        Graph(
            "Collection",
            "multigpu_exporter_scrape_duration_seconds",
            f"multigpu_exporter_scrape_duration_seconds{{{HOSTS}}}",
            "{{instance}}",
            "s",
        ),
    ),
}


def panel(graph: Graph) -> timeseries.Panel | stat.Panel:
    """One panel with its query."""
    query = prometheus.Dataquery().expr(graph.expression).legend_format(graph.legend).ref_id("A")
    made = stat.Panel() if graph.is_stat else timeseries.Panel()
    made.title(graph.title).description(BY_NAME[graph.metric].help)
    made.datasource(SOURCE).unit(graph.unit).with_target(query)
    made.height(4 if graph.is_stat else HEIGHT).span(4 if graph.is_stat else COLUMNS // 3)
    if graph.most is not None:
        made.min(0).max(graph.most)
    if isinstance(made, timeseries.Panel):
        legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST)
        made.fill_opacity(5).legend(legend.placement(LegendPlacement.BOTTOM).show_legend(True))
    return made


def variable(name: str, of: str) -> dashboard.QueryVariable:
    """A choice among the values of a label, several or all."""
    query = dashboard.QueryVariable(name).label(name).query(f"label_values({of}, {name})")
    return query.datasource(SOURCE).multi(True).include_all(True).refresh(2)


def whole() -> str:
    """The dashboard as JSON."""
    made = dashboard.Dashboard("multigpu").uid("multigpu").tags(["gpu", "llm"]).refresh("30s")
    made.time("now-3h", "now").timezone("browser").readonly()
    made.with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
    made.with_variable(variable("instance", "multigpu_exporter_build_info"))
    made.with_variable(variable("service", "multigpu_service_state_readable"))
    for title, graphs in ROWS.items():
        made.with_row(dashboard.Row(title))
        for graph in graphs:
            made.with_panel(panel(graph))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


if __name__ == "__main__":
    TARGET.write_text(whole(), encoding="utf-8")
