"""Write docs/rules.md from multigpu/rule_list.py: `python scripts/rules_page.py`, `make docs`."""

from __future__ import annotations

from pathlib import Path

from multigpu.rule_list import page

(Path(__file__).parent.parent / "docs" / "rules.md").write_text(page(), encoding="utf-8")
