# ruff: noqa: E501 - lines of the page, not of the program
"""Write docs/metrics.md from the exporter's table: `make docs`."""

from __future__ import annotations

from pathlib import Path

from multigpu.host.exporter import PORT
from multigpu.host.exporter_table import (
    EXPORTER_METRICS,
    GPU_METRICS,
    HOST_METRICS,
    RECOVERY_ACTIONS,
    SERVICE_METRICS,
    THROTTLE_REASONS,
    Metric,
)
from multigpu.host.state import STATES
from multigpu.host.verdicts import REASONS

TARGET = Path(__file__).parent.parent / "docs" / "metrics.md"
BEGIN = f"""# Metrics

Written from `multigpu/host/exporter_table.py` by `scripts/metrics_page.py`.

`pyinfra inventories/mine.py deploys/monitor.py` gives every host `multigpu-exporter.service`, which answers at
`exporter_listen` (127.0.0.1:{PORT} unless set: the ports 9100 to 9999 of Prometheus' list of exporters are all taken) with
`/metrics`, and `multigpu-kernel-log.service`, which counts Xid and amdgpu lines of the kernel. Both read and change nothing;
the exporter is a user of its own without capabilities, and asks no engine anything: what it tells of a service is what the
service's supervisor wrote. A second run changes nothing; `deploys/remove.py` takes both away.

| host data | default | meaning |
|---|---|---|
| `exporter_listen` | `127.0.0.1:{PORT}` | address and port. There is no password and no TLS: an address of a private network, or a proxy |
| `prometheus_rules_directory` | none | on the host where Prometheus runs: `multigpu.yaml` with the alert rules is put there, Prometheus reloaded |
| `grafana_dashboards_directory` | none | on the host where Grafana runs: `multigpu.json` is put there |
| `runbook_url` | none | where `docs/runbook` is to be read; links of alerts begin with it |

```yaml
scrape_configs:
  - job_name: multigpu
    static_configs:
      - targets: ["gpu-host.example:{PORT}"]
```

What is unknown is no sample, never 0. Each source (NVML, sysfs, kernel log, files of services) has 4 s: one that hangs costs
its own samples, and `multigpu_exporter_source_up` says so. NVML is left again after each page, so that a card can be reset
and a driver unloaded. A card that is lost keeps its labels with `multigpu_gpu_up` 0, also one that a plan counts on and that
never answered. Of AMD cards processes, throttle reasons and recovery action are not told.

[Runbook](runbook/README.md): a page for each alert. `templates/monitoring/dashboard.json`: a dashboard for Grafana 11.6 and newer,
held to its schema by Grafana's own types, not looked at in a running Grafana.
"""


def table(title: str, metrics: tuple[Metric, ...]) -> str:
    """One part of the page."""
    rows = [f"| `{m.name}` | {m.kind} | {labels(m)} | {m.help} | {m.source} |" for m in metrics]
    head = f"\n## {title}\n\n| name | type | labels | meaning | from |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows).replace("<", "\\<") + "\n"


def labels(metric: Metric) -> str:
    """Of a metric, as code."""
    return ", ".join(f"`{label}`" for label in metric.labels)


def listed(name: str, words: tuple[str, ...]) -> str:
    """The values of a label."""
    return f"* `{name}`: {', '.join(words)}\n"


def page() -> str:
    """The whole page."""
    values = "\n## Values of labels\n\n" + "".join(
        (
            listed("state", STATES),
            listed("reason of restarts", REASONS),
            listed("reason of throttling", tuple(THROTTLE_REASONS.values())),
            listed("action", tuple(RECOVERY_ACTIONS.values())),
        )
    )
    parts = (
        table("GPUs", GPU_METRICS),
        table("Services", SERVICE_METRICS),
        table("Hosts", HOST_METRICS),
        table("The exporter itself", EXPORTER_METRICS),
    )
    return BEGIN + "".join(parts) + values


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
