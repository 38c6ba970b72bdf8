"""docs/rules.md and the source name the same rules."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


def said(source: str) -> Iterator[str]:
    """Ids of every `Reason(...)` and `Caution(...)`; the source text where it is no literal."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Reason", "Caution"):
            rule = node.args[0]
            yield str(rule.value) if isinstance(rule, ast.Constant) else ast.unparse(rule)


@cache
def in_source() -> set[str]:
    """Ids of all rooms."""
    files = (ROOT / "multigpu").rglob("*.py")
    return {rule for file in files for rule in said(file.read_text())}


def on_page() -> list[str]:
    text = (ROOT / "docs" / "rules.md").read_text()
    return re.findall(r"^\| `([^`]+)` \| \S.*\. \|$", text, re.MULTILINE)


def test_every_rule_of_the_source_is_on_the_page() -> None:
    assert in_source() - set(on_page()) == set()


def test_every_rule_on_the_page_is_in_the_source() -> None:
    assert set(on_page()) - in_source() == set()


def test_the_page_has_each_rule_once_in_order_and_no_other_row() -> None:
    assert len(on_page()) == len(set(on_page())) > 40
    tables = re.split(r"^## .*$", (ROOT / "docs" / "rules.md").read_text(), flags=re.MULTILINE)[1:]
    for table in tables:
        rows = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
        assert rows == sorted(rows) and set(rows) <= set(on_page())


def test_every_id_is_a_literal_in_kebab_case() -> None:
    assert [rule for rule in in_source() if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rule)] == []


def test_an_id_that_is_put_together_is_noticed() -> None:
    assert list(said("yield_ = Reason(rule, found)")) == ["rule"]
