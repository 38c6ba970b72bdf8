"""Alert rules: promtool checks and runs them, and each has a page of the runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from multigpu.host import exporter_gpus, exporter_services, exporter_text, verdicts
from multigpu.host.exporter_table import BY_NAME
from tests.test_exporter import CARD, STATE, as_written, of_service

ROOT = Path(__file__).parent.parent
RULES = ROOT / "templates/monitoring/alerts.yaml"
CASES = ROOT / "tests/alerts/test.yaml"
RUNBOOK = ROOT / "docs/runbook"
PROMTOOL = shutil.which("promtool")
PARTS = ("What it means", "What was already done", "What to look at", "How to clear it")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="no promtool here (Debian and Ubuntu: apt-get install prometheus)"
)


def loaded(path: Path) -> Any:
    return YAML(typ="safe").load(path)


RULE_LIST = [rule for group in loaded(RULES)["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULE_LIST if "alert" in rule}


def promtool(*words: str, stdin: bytes | None = None) -> tuple[int, str]:
    done = subprocess.run([PROMTOOL or "", *words], input=stdin, capture_output=True, timeout=60)
    return done.returncode, (done.stdout + done.stderr).decode()


@needs_promtool
def test_promtool_finds_nothing_to_say_about_the_rules() -> None:
    status, said = promtool("check", "rules", str(RULES))
    assert status == 0 and f"{len(RULE_LIST)} rules found" in said, said


@needs_promtool
def test_each_alert_fires_when_it_must_and_is_silent_when_it_must_not(tmp_path: Path) -> None:
    (tmp_path / "alerts.yaml").write_text(RULES.read_text())
    (tmp_path / "test.yaml").write_text(CASES.read_text())
    status, said = promtool("test", "rules", str(tmp_path / "test.yaml"))
    assert status == 0, said


@needs_promtool
def test_an_alert_that_is_broken_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "alerts.yaml").write_text(RULES.read_text().replace("gpu_up == 0", "gpu_up == 2"))
    (tmp_path / "test.yaml").write_text(CASES.read_text())
    status, said = promtool("test", "rules", str(tmp_path / "test.yaml"))
    assert status != 0 and "MultigpuGpuLost" in said


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    names = [case["name"] for case in loaded(CASES)["tests"]]
    assert sorted(names) == sorted(f"{a} {how}" for a in ALERTS for how in ("fires", "is silent"))
    for case in loaded(CASES)["tests"]:
        (expected,) = case["alert_rule_test"]
        assert bool(expected["exp_alerts"]) == case["name"].endswith("fires")


@needs_promtool
def test_promtool_finds_nothing_to_say_about_a_page_with_every_kind_of_metric(
    tmp_path: Path,
) -> None:
    samples = exporter_gpus.samples(CARD) + of_service(as_written(STATE, tmp_path))
    samples += exporter_services.host_samples(str(tmp_path))
    for page in (exporter_text.own_page, exporter_text.client_page):
        if page is exporter_text.client_page and exporter_text.prometheus_client is None:
            continue
        found = page(exporter_text.families(samples))
        assert promtool("check", "metrics", stdin=found) == (0, "")


@needs_promtool
def test_promtool_accepts_every_name_and_help_of_the_table() -> None:
    text = "".join(
        f"# HELP {m.name} {m.help}\n# TYPE {m.name} {m.kind}\n{m.name} 1\n"
        for m in BY_NAME.values()
    )
    assert promtool("check", "metrics", stdin=text.encode()) == (0, "")


def test_rules_ask_for_metrics_that_the_exporter_has() -> None:
    for rule in RULE_LIST:
        names = set(re.findall(r"(?<![\w:])multigpu_\w+", rule["expr"]))
        assert names <= set(BY_NAME), rule
        assert names or 'up{job="multigpu"}' in rule["expr"]


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_has_what_a_person_needs_and_a_page(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert {"summary", "description", "runbook_url"} == set(rule["annotations"])
    page = (ROOT / rule["annotations"]["runbook_url"]).read_text()
    assert page.startswith(f"# {name}\n")
    assert tuple(re.findall(r"^## (.*)$", page, re.MULTILINE)) == PARTS
    for part in page.split("\n## ")[1:]:
        assert len(part.split()) > 6, part


def test_no_page_is_left_of_an_alert_that_is_gone() -> None:
    pages = {path.stem for path in RUNBOOK.glob("*.md")}
    assert pages == {*ALERTS, "README", "verdicts"}
    assert all(f"({name}.md)" in (RUNBOOK / "README.md").read_text() for name in ALERTS)


def test_each_verdict_has_a_part_in_the_runbook() -> None:
    page = (RUNBOOK / "verdicts.md").read_text()
    assert tuple(re.findall(r"^## (.*)$", page, re.MULTILINE)) == verdicts.REASONS
    for reason, status in verdicts.EXIT_STATUSES.items():
        part = page.partition(f"\n## {reason}\n")[2].partition("\n## ")[0]
        assert f"Exit status {status}." in part


def test_links_of_the_runbook_lead_somewhere() -> None:
    for path in RUNBOOK.glob("*.md"):
        for target in re.findall(r"\]\(([\w.-]+\.md)\)", path.read_text()):
            assert (RUNBOOK / target).exists(), (path.name, target)
