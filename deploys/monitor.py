"""Watch the hosts: an exporter for Prometheus on each, rules and a dashboard where they are wanted.

    pyinfra inventories/homelab.py deploys/monitor.py

Every host gets multigpu-exporter.service and multigpu-kernel-log.service. Host data:

    exporter_listen               address and port of the exporter, 127.0.0.1:18835
    prometheus_rules_directory    a Prometheus runs here and reads rule files in this directory
    grafana_dashboards_directory  a Grafana runs here and reads dashboards in this directory
    runbook_url                   where docs/runbook is to be read, for the links in alerts
"""

from pyinfra import host

from deploys.assembly import program
from deploys.common import (
    QUICK_S,
    TEMPLATES,
    captured,
    directory,
    guarded,
    privilege,
    refuse_unchangeable,
)
from multigpu import monitoring
from multigpu.errors import MultigpuError
from multigpu.store import texts
from operations.layout import layout
from operations.monitoring import given_files, watchers
from operations.units import install_text
from operations.uploads import uploads

RULES, DASHBOARD = "alerts.yaml", "dashboard.json"
PROMETHEUS = ("prometheus.service",)


@guarded
def monitor() -> None:
    """Program, unit files, processes, then files for Prometheus and Grafana."""
    listen = str(host.data.get("exporter_listen", monitoring.LISTEN))
    units = monitoring.render(
        listen, host_program=program().path, templates=texts.templates(TEMPLATES)
    )
    rules, dashboards = _rules(), _dashboards()
    found = captured()
    if found is None:
        return
    machine = found[0]
    refuse_unchangeable(machine)
    quick = {**privilege(), "_timeout": QUICK_S}
    layout(name="Account and directories", machine=machine, **quick)
    uploads(name="Program", machine=machine, wanted=(program(),), **quick)
    install_text(name="Unit files of monitoring", machine=machine, units=units, **quick)
    watchers(name="Exporter and kernel log", machine=machine, units=units, **quick)
    if rules:
        given_files(name="Alert rules", files=rules, reload=PROMETHEUS, **quick)
    if dashboards:
        given_files(name="Dashboard", files=dashboards, **quick)


def _rules() -> dict[str, str]:
    """The rule file by its path, none where no Prometheus reads it. Raises MultigpuError."""
    if host.data.get("prometheus_rules_directory") is None:
        return {}
    text = texts.read(TEMPLATES / "monitoring" / RULES)
    url = host.data.get("runbook_url")
    return {_path("prometheus_rules_directory", "multigpu.yaml"): monitoring.rules(text, url)}


def _dashboards() -> dict[str, str]:
    """The dashboard by its path, none where no Grafana reads it. Raises MultigpuError."""
    if host.data.get("grafana_dashboards_directory") is None:
        return {}
    text = texts.read(TEMPLATES / "monitoring" / DASHBOARD)
    return {_path("grafana_dashboards_directory", "multigpu.json"): text}


def _path(key: str, name: str) -> str:
    where = directory(key, "")
    if not where.is_absolute():
        raise MultigpuError(f"{key} is {str(where)!r}: give a path on the host that begins with /")
    return str(where / name)


if not __package__:
    monitor()
