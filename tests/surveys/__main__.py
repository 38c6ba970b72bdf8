"""Write the screens anew; look at the difference before it is committed."""

from __future__ import annotations

from tests.surveys import HERE, NAMES, screen

for name in NAMES:
    (HERE / f"{name}.txt").write_text(screen(name), encoding="utf-8")
