"""The dashboard: valid for Grafana's own types, and every query asks for metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from multigpu.host.exporter_table import BY_NAME
from scripts import metrics_page

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "templates/monitoring/dashboard.json").read_text()
DASHBOARD: dict[str, Any] = json.loads(TEXT)
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]


def test_it_has_the_rows_that_a_person_looks_for() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Fleet", "Services", "GPUs", "Links and errors"]
    assert DASHBOARD["schemaVersion"] >= 39 and DASHBOARD["uid"] == "multigpu"


def test_every_panel_has_a_place_of_its_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells


def test_queries_ask_for_metrics_that_the_exporter_has() -> None:
    assert len(QUERIES) > 25
    for query in QUERIES:
        names = set(re.findall(r"multigpu_\w+", query))
        assert names and names <= set(BY_NAME), query


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here")
def test_promtool_can_read_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"q:{n}", "expr": query} for n, query in enumerate(QUERIES)]
    path = tmp_path / "queries.yaml"
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_valid_for_grafanas_own_types_and_is_what_the_script_writes() -> None:
    pytest.importorskip("grafana_foundation_sdk")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    from scripts import dashboard

    register_default_plugins()
    read = Dashboard.from_json(DASHBOARD)
    assert json.loads(JSONEncoder(sort_keys=True).encode(read)) == DASHBOARD
    assert dashboard.whole() == TEXT, "run scripts/dashboard.py"


def test_the_page_of_metrics_is_what_the_table_says() -> None:
    assert (ROOT / "docs/metrics.md").read_text() == metrics_page.page(), "make docs"
