"""Write the pages anew; look at the difference before it is committed."""

from __future__ import annotations

from tests.pages import CASES, HERE, page

for name in CASES:
    (HERE / f"{name}.txt").write_text(page(name), encoding="utf-8")
