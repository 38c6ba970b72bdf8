"""`read`: what is understood of files, folders, archives, models and standard input."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from multigpu.cli.machines import columns
from multigpu.errors import CaptureError, MultigpuError
from multigpu.hardware import Host
from multigpu.parse import kinds
from multigpu.parse.amd.kfd import read_kfd
from multigpu.parse.folder import read_folder
from multigpu.parse.reading import Kind, Reading
from multigpu.reading_screen import folder_json, folder_screen, screen, to_json
from multigpu.screen.text import wrapped
from multigpu.store import gguf_files
from multigpu.store.inputs import Input, Model, Tree, inputs

GGUF = Kind("gguf", "GGUF file", lambda text: 0.0, lambda text: Reading(None))
KFD = Kind("kfd-topology", "KFD's topology (sysfs)", lambda text: 0.0, lambda text: Reading(None))
"""Formats that are no single text, so none is guessed to be one."""


def run_read(options: argparse.Namespace) -> int:
    """Every input; one that cannot be read or is of no known format never hides the others."""
    forced = kinds.kind(options.kind) if options.kind else None
    if not options.file and sys.stdin.isatty():
        print("paste the output of a tool, then Ctrl-D", file=sys.stderr)
    failed = False
    records = []
    for name in options.file or ["-"]:
        try:
            for text, record in _readings(name, forced, options):
                records.append(record)
                failed |= _nothing(record)
                if not options.json:
                    print(text + "\n")
        except MultigpuError as error:
            print(error, file=sys.stderr)
            failed = True
    if options.json:
        print(json.dumps(records, indent=1))
    return int(failed)


def _readings(
    name: str, forced: Kind | None, options: argparse.Namespace
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Screen and record of one name; a folder of captured machines gives one for each."""
    (found,) = inputs([name])
    for reason in found.left_out if isinstance(found, Tree) else ():
        print(reason, file=sys.stderr)
    if isinstance(found, Model):
        spec: Reading[Any] = Reading(gguf_files.from_file(found.name, found.path))
        yield screen(found.name, GGUF, spec, columns()), to_json(found.name, GGUF, spec)
    elif isinstance(found, Tree) and set(found.parts) == {"kfd"} and not found.texts:
        kfd = read_kfd(cast(dict[str, str], found.parts["kfd"]))
        yield screen(found.name, KFD, kfd, columns()), to_json(found.name, KFD, kfd)
    elif isinstance(found, Tree) and not _captures(found):
        folder = read_folder(found.texts, found.path.resolve().name, found.parts)
        yield folder_screen(name, folder, columns()), folder_json(name, folder)
    else:
        for given in [found] if isinstance(found, Input) else _captures(found):
            kind = forced or _guessed(given)
            reading = _called(kind.read(given.text), Path(given.name).stem)
            text = screen(given.name, kind, reading, columns(), every=options.all_lines)
            if kind is kinds.CAPTURED and reading.value is None:
                why = reading.unread[0].text.removeprefix("captured machine: ")
                text = "\n".join([given.name, *wrapped("  ", why, columns())])
            yield text, to_json(given.name, kind, reading)


def _nothing(record: dict[str, Any]) -> bool:
    """Whether nothing was understood: no line, no document of a machine, no file of a folder."""
    if record["kind"] == "folder":
        return not any(file["kind"] for file in record["files"]) and not record["value"]["gpus"]
    if record["kind"] == kinds.CAPTURED.name:
        return record["value"] is None
    return bool(record.get("lines")) and len(record["unread"]) == record["lines"]


def _called(reading: Reading[Any], name: str) -> Reading[Any]:
    """A captured machine goes by the name of its file."""
    if not isinstance(reading.value, Host):
        return reading
    return replace(reading, value=replace(reading.value, name=name))


def _captures(tree: Tree) -> list[Input]:
    """The captured machines of a folder."""
    return [
        Input(f"{tree.name}/{name}", text)
        for name, text in tree.texts.items()
        if kinds.CAPTURED.recognise(text)
    ]


def _guessed(given: Input) -> Kind:
    kind = kinds.guess(given.text)
    if kind is None:
        if not given.text.strip():
            raise CaptureError(f"{given.name} is empty")
        if "\0" in given.text:
            raise CaptureError(f"{given.name} is no text")
        raise CaptureError(
            f"{given.name} is in no format that is known; name one with --as "
            "(`python -m multigpu read --help` lists them)"
        )
    return kind
