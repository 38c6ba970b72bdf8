"""What was understood of a text, and the lines that were not: as a screen and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from multigpu.as_json import as_json
from multigpu.hardware import Host
from multigpu.outline import outline
from multigpu.parse.folder import Folder, Item
from multigpu.parse.reading import Kind, Reading, Unread
from multigpu.screen.text import wrapped
from multigpu.survey import survey

SHOWN = 12
"""Lines not understood that a screen shows; logs have hundreds that carry nothing for us."""

NO_MACHINE = "no output of a machine's tools here; give one file to see what is in it"


def screen(
    name: str, kind: Kind, reading: Reading[Any], columns: int = 80, *, every: bool = False
) -> str:
    """One text: its format, what was understood, and the first lines that were not (or `every`)."""
    value = reading.value
    body = survey(value, columns) if isinstance(value, Host) else outline(value, columns, "    ")
    return "\n".join(
        [
            name,
            f"  {kind.name}" + (f", {count(reading)}" if reading.lines else ""),
            body.rstrip("\n") or "  nothing in it that is known",
            *unread_lines(reading.unread, columns, every=every),
        ]
    )


def count(reading: Reading[Any]) -> str:
    """`12 of 13 lines understood`."""
    understood = reading.lines - len(reading.unread)
    if understood >= reading.lines:
        return f"all {reading.lines} lines understood" if reading.lines != 1 else "understood"
    return f"{max(understood, 0)} of {reading.lines} lines understood"


def unread_lines(unread: tuple[Unread, ...], columns: int, *, every: bool) -> Iterator[str]:
    """The lines themselves, cut at the right; how many more there are."""
    if not unread:
        return
    yield "not understood:"
    shown = unread if every else unread[:SHOWN]
    width = len(str(shown[-1].line))
    for entry in shown:
        text = f"  {entry.line:>{width}}  " + printable(entry.text)
        yield text if len(text) <= columns or every else text[: columns - 1] + "…"
    if len(unread) > len(shown):
        yield f"  and {len(unread) - len(shown)} more: --all-lines shows them"


def printable(text: str) -> str:
    """A line that cannot move the terminal's cursor."""
    return "".join(c if c.isprintable() else "�" for c in text.expandtabs(4))


def folder_screen(name: str, folder: Folder, columns: int = 80) -> str:
    """The machine, and what each file of the folder was read as."""
    return "\n".join(
        [
            survey(folder.machine, columns).rstrip("\n") if folder.tells else NO_MACHINE,
            "",
            f"read from {name}:",
            *(line for item in folder.items for line in item_lines(item, columns)),
        ]
    )


def item_lines(item: Item, columns: int) -> list[str]:
    """File and format on one line, or the format below a name that is too long for that."""
    name = f"  {printable(item.file)}:"
    line = f"{name} {item_text(item)}"
    return [line] if len(line) <= columns else [name, *wrapped("    ", item_text(item), columns)]


def item_text(item: Item) -> str:
    """How one file was read."""
    if item.kind is None:
        return "no known format, left out"
    if item.left_out:
        return f"{item.kind.title}: left out, {item.left_out}"
    return f"{item.kind.title}" + (f", {count(item.reading)}" if item.reading else "")


def to_json(name: str, kind: Kind, reading: Reading[Any]) -> dict[str, Any]:
    """The same for programs. Unknown is null; enumerations are their words."""
    return {
        "file": name,
        "kind": kind.name,
        "lines": reading.lines,
        "value": as_json(reading.value),
        "unread": [as_json(entry) for entry in reading.unread],
    }


def folder_json(name: str, folder: Folder) -> dict[str, Any]:
    """A folder for programs."""
    items = [
        {
            "file": item.file,
            "kind": item.kind.name if item.kind else None,
            "left_out": item.left_out,
            "unread": [as_json(entry) for entry in item.reading.unread] if item.reading else [],
        }
        for item in folder.items
    ]
    return {"file": name, "kind": "folder", "value": as_json(folder.machine), "files": items}
