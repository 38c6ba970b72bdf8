"""`plan`: how a model should use the cards of captured machines, or of a host that nobody has."""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multigpu.cli.machines import columns, machine
from multigpu.errors import MultigpuError, NoPlan, WishError
from multigpu.explain import explain, explain_refusal
from multigpu.gpus import what_if
from multigpu.hardware import Host
from multigpu.page.candidates_screen import candidates_screen
from multigpu.page.plan_json import error_json, every_way, plan_json, refusal_json
from multigpu.plan import ModelSpec, Plan, Rejected, Wish
from multigpu.planner import plan
from multigpu.speed import measured_file
from multigpu.speed.measured import Measurement
from multigpu.store import local_models, texts
from multigpu.wish import wishes
from multigpu.workload import workload

SERVICE = "service"
EXAMPLES = """\
How a model should use the cards of a machine, and why: a page to forward.

    plan --gpus "2x RTX 3090" --pcie x8,x4 --model Qwen/Qwen3-32B-AWQ
    plan --gpus "RTX 4090 + RTX 3090" --model models/chat.gguf --candidates
    plan --host captures/tower.json --model Qwen/Qwen3-32B-AWQ \\
        --wish objective=throughput --wish concurrency=16 --json

Exit status: 0 every host has a plan, 1 one has none or something cannot be
read (the reason on stderr), 2 wrong usage."""
TEXTS = {
    *("runtime", "strategy", "objective", "kv_cache_dtype", "bind", "served_model_name"),
    *("executable", "wheel"),
}
"""Keys whose value is text even where it looks like a number."""
LISTS = {"gpus", "layers", "devices"}


@dataclass(frozen=True)
class Answer:
    """One host's screen and document; `refused` is the line of a refusal."""

    screen: str
    document: dict[str, Any]
    refused: str | None = None


def plan_options(parser: argparse.ArgumentParser) -> None:
    """The options of `plan`."""
    parser.description = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    _machine_options(parser)
    add = parser.add_argument
    add("--model", required=True, help="hub id, folder, config.json or .gguf of this machine")
    add(
        "--wish",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="objective=throughput, concurrency=16 ...; every key of docs/inventory.md",
    )
    add(
        "--measured",
        action="append",
        default=[],
        metavar="FILE",
        help="measurements of the rig, which replace predictions; may be given several times",
    )
    add("--candidates", action="store_true", help="every way with what it would give")
    add("--json", action="store_true", help="for programs: docs/plan-json.md")
    parser.set_defaults(run=run_plan)


def _machine_options(parser: argparse.ArgumentParser) -> None:
    """A captured machine, or cards and the links that they are thought to have."""
    add = parser.add_argument
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--host",
        action="append",
        metavar="CAPTURE",
        help="captured machine or folder of outputs; may be given several times",
    )
    where.add_argument(
        "--gpus", metavar="CARDS", help="cards of a host to think of: '2x RTX 3090 + RTX 3060'"
    )
    add("--pcie", metavar="SLOTS", help="with --gpus: x8, or one for each card: x8,x4, 4.0x8")
    add(
        "--nvlink",
        action="store_true",
        default=None,
        help="with --gpus: bridges on cards 0-1, 2-3 ...",
    )
    add(
        "--p2p",
        action=argparse.BooleanOptionalAction,
        help="with --gpus: peer access over PCIe; as NVIDIA's own driver grants it when not said",
    )
    add("--numa", type=int, metavar="NODES", help="with --gpus: sockets, default 1")


def run_plan(options: argparse.Namespace) -> int:
    """A plan for every host: 1 where one has none, or where something cannot be read."""
    try:
        wish = wished(options.model, options.wish)
        hosts = list(_hosts(options))
        model = local_models.load(options.model)
        measured = [m for path in options.measured for m in _measured(path)]
    except MultigpuError as error:
        if options.json:
            print(json.dumps(error_json(error), indent=1))
        raise
    answers = [_answer(host, model, wish, options, measured) for host in hosts]
    if options.json:
        documents = [answer.document for answer in answers]
        print(json.dumps(documents[0] if len(documents) == 1 else documents, indent=1))
    else:
        print("\n".join(answer.screen for answer in answers), end="", flush=True)
    refused = [answer.refused for answer in answers if answer.refused is not None]
    for line in refused:
        print(line, file=sys.stderr)
    return int(bool(refused))


def wished(model: str, pairs: Iterable[str]) -> Wish:
    """The wish of `KEY=VALUE` words, read as an inventory's is. Raises WishError."""
    values: dict[str, Any] = {"model": model}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise WishError(f"--wish {pair!r}: write KEY=VALUE, for example concurrency=16")
        if key in values:
            known = "--model says it" if key == "model" else "it is given twice"
            raise WishError(f"--wish {pair!r}: {known}: leave it out")
        values[key] = _value(key, text)
    (wish,) = wishes({SERVICE: values})
    return wish


def _value(key: str, text: str) -> Any:
    """JSON or a Python literal where it is one, else the text."""
    if key in TEXTS:
        return text
    value: Any = text
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
            break
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    if key in LISTS and not isinstance(value, list | tuple):
        return [part.strip() for part in text.split(",")] if value == text else [value]
    return value


def _hosts(options: argparse.Namespace) -> Iterator[Host]:
    words = ("pcie", "nvlink", "p2p", "numa")
    said = [name for name in words if getattr(options, name) is not None]
    if options.host and said:
        raise WishError(f"--{said[0]} goes with --gpus; a captured machine knows its own links")
    if options.host:
        yield from map(machine, options.host)
    else:
        yield what_if.host(
            options.gpus,
            options.pcie,
            nvlink=bool(options.nvlink),
            p2p=options.p2p,
            numa_nodes=1 if options.numa is None else options.numa,
        )


def _measured(path: str) -> tuple[Measurement, ...]:
    return measured_file.read(texts.read(Path(path)), path)


def _answer(
    host: Host,
    model: ModelSpec,
    wish: Wish,
    options: argparse.Namespace,
    measured: Sequence[Measurement],
) -> Answer:
    """The plan of one host or its refusal; neither hides the other hosts."""
    try:
        made = plan(host, model, wish, measured=measured)
    except NoPlan as error:
        document = refusal_json(error, host, model, wish, candidates=options.candidates)
        page = explain_refusal(error, host.name)
        return Answer(
            page + _table(error.rejected, host, model, wish, options), document, str(error)
        )
    except MultigpuError as error:
        return Answer("", error_json(error), f"{host.name}: {error}")
    document = plan_json(made, host, candidates=options.candidates)
    return Answer(explain(made) + _table(_ways(made), host, model, wish, options), document)


def _ways(made: Plan) -> list[Rejected]:
    return [Rejected(made.chosen, ()), *made.rejected]


def _table(
    ways: Iterable[Rejected], host: Host, model: ModelSpec, wish: Wish, options: argparse.Namespace
) -> str:
    if not options.candidates or options.json:
        return ""
    found = list(every_way(ways, host, model, workload(model, wish)))
    return "".join(f"{line}\n" for line in ["", *candidates_screen(found, columns())])
