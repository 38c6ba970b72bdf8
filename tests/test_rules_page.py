"""multigpu/rule_list.py, docs/rules.md and the source name the same rules."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from multigpu.rule_list import RULES, SECTIONS, page

ROOT = Path(__file__).parent.parent
SPEAK = ("Reason", "Caution")


def said(source: str) -> Iterator[tuple[str, int]]:
    """Id and line of every `Reason(...)` and `Caution(...)`; the source where it is no literal."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in SPEAK:
            named = [word.value for word in node.keywords if word.arg == "rule"]
            rule = (node.args or named)[0]
            literal = str(rule.value) if isinstance(rule, ast.Constant) else ast.unparse(rule)
            yield literal, node.lineno


@cache
def in_source() -> dict[str, str]:
    """Ids of all rooms, with a place that says each."""
    return {
        rule: f"{file.relative_to(ROOT)}:{line}"
        for file in sorted((ROOT / "multigpu").rglob("*.py"))
        for rule, line in said(file.read_text())
    }


def test_every_rule_of_the_source_is_in_the_list() -> None:
    missing = {rule: place for rule, place in in_source().items() if rule not in RULES}
    lines = [f'        "{rule}": "One sentence.",  # {place}' for rule, place in missing.items()]
    todo = "add to a section of multigpu/rule_list.py, then run `make docs`:\n"
    assert not missing, todo + "\n".join(lines)


def test_every_rule_of_the_list_is_in_the_source() -> None:
    left = sorted(set(RULES) - set(in_source()))
    assert not left, f"no Reason or Caution says {left}: take them out of multigpu/rule_list.py"


def test_the_page_is_what_the_list_says() -> None:
    written = (ROOT / "docs" / "rules.md").read_text()
    assert written == page(), "run `make docs` (python scripts/rules_page.py)"


def test_no_rule_stands_in_two_sections() -> None:
    assert sum(len(section.meanings) for section in SECTIONS) == len(RULES) > 40


def test_every_rule_is_in_kebab_case_and_means_one_sentence_that_fits_a_table() -> None:
    for rule in RULES.values():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rule.id), rule
        assert rule.meaning.endswith(".") and not set(rule.meaning) & set("|\n"), rule


def test_an_id_that_is_put_together_is_noticed() -> None:
    assert list(said("yield_ = Reason(rule, found)")) == [("rule", 1)]
    assert list(said("a = Reason(found=x, rule='memory-fit')")) == [("memory-fit", 1)]
