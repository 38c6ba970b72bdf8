"""`plans/<host>.yaml`: what was decided for a host, to be reviewed, committed and applied.

Text in, text out. A person's comments, unknown keys and `pins` survive every re-plan: `pins` takes
the keys of a service in the inventory, wins over it, and is obeyed and checked. The other keys are
multigpu's; `digest` guards them, so that an edit in the wrong place is refused instead of lost.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from multigpu.errors import PlanFileError
from multigpu.plain import to_plain, to_plan
from multigpu.plan import Plan

SCHEMA = 2
WIDTH = 130
HEADER = """\
What multigpu plans for {host}; deploys/serve.py applies it.
Yours: `pins` (keys of a service in the inventory: runtime, strategy, gpus, layers, flags, ...),
obeyed, checked and kept. All else is written by deploys/plan.py."""

_PLAIN_WORDS = re.compile(r"(?:[\w./+-]+(?: [\w./+-]+){0,5})?")


def pins(text: str | None, path: str) -> dict[str, dict[str, Any]]:
    """The person's pins per service name. Raises PlanFileError."""
    services = _services(text, path)
    found = {name: service.get("pins") or {} for name, service in services.items()}
    for name, values in found.items():
        if not isinstance(values, Mapping):
            raise PlanFileError(f"{path}: pins of {name} must be a mapping of keys and values")
    return {name: json.loads(_json(values)) for name, values in found.items()}


def read(text: str | None, path: str) -> dict[str, Plan]:
    """The plans per service name. Raises PlanFileError with the place and what to do."""
    return {
        name: _plan(name, service, path)
        for name, service in _services(text, path).items()
        if "plan" in service
    }


def check(text: str | None, path: str) -> None:
    """Refuse what was edited outside `pins`. Raises PlanFileError, naming the service."""
    for name, service in _services(text, path).items():
        if "plan" in service:
            _untouched(name, service, path)


def write(host: str, plans: Iterable[Plan], existing: str | None, path: str) -> str:
    """The new text of the file, made from the old one in place. Raises PlanFileError."""
    document = _document(existing, path)
    if not document:
        document.yaml_set_start_comment(HEADER.format(host=host))
    document |= {"schema": SCHEMA, "host": host}
    if document.get("services") is None:
        document["services"] = CommentedMap()
    services = document["services"]
    wanted = {plan.wish.name: to_plain(plan) for plan in plans}
    for name in [name for name in services if name not in wanted]:
        del services[name]
    for name, value in wanted.items():
        _bring(services.setdefault(name, CommentedMap()), value)
    return _dump(document)


def _bring(service: CommentedMap, plan: Mapping[str, Any]) -> None:
    """Put a plan into a service, beside what the person wrote."""
    if "pins" not in service:
        service.insert(0, "pins", CommentedMap())
    if not isinstance(service.get("plan"), CommentedMap):
        service["plan"] = CommentedMap()
    _merge(service["plan"], plan)
    service["digest"] = _digest(plan)


def _digest(value: Any) -> str:
    return hashlib.sha256(_json(value).encode()).hexdigest()[:16]


def _json(value: Any) -> str:
    # YAML knows dates, JSON does not; 1 and 1.0 are equal in Python and differ in a file.
    return json.dumps(value, sort_keys=True, default=str)


def _plan(name: str, service: Mapping[str, Any], path: str) -> Plan:
    try:
        return to_plan(_untouched(name, service, path))
    except ValueError:
        raise PlanFileError(
            f"{path}: the plan of {name} is of another version: run deploys/plan.py"
        ) from None


def _untouched(name: str, service: Mapping[str, Any], path: str) -> Any:
    value = json.loads(_json(service["plan"]))
    if service.get("digest") != _digest(value):
        raise PlanFileError(
            f"{path}: the plan of {name} was edited by hand: undo the edit, put the change into "
            "its pins and run deploys/plan.py; or delete the file to plan anew"
        )
    return value


@lru_cache(maxsize=4)
def _services(text: str | None, path: str) -> Mapping[str, Any]:
    # Parsing takes a tenth of a second, and each reader of this module needs it; none changes it.
    services = _document(text, path).get("services") or {}
    if not all(isinstance(service, Mapping) for service in services.values()):
        raise PlanFileError(f"{path}: services must be mappings: run deploys/plan.py on a copy")
    return MappingProxyType(dict(services))


def _document(text: str | None, path: str) -> CommentedMap:
    if text is None or not text.strip():
        return CommentedMap()
    try:
        document = _yaml().load(text)
    except YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f" line {place.line + 1}" if place is not None else ""
        problem = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise PlanFileError(
            f"{path}{line}: not YAML: {problem}; mend it, or delete the file to plan anew"
        ) from None
    services = document.get("services") if isinstance(document, CommentedMap) else None
    if not isinstance(document, CommentedMap) or not isinstance(services, Mapping | None):
        raise PlanFileError(f"{path}: not a plan file: it has no mapping of services")
    if document.get("schema", SCHEMA) != SCHEMA:
        found = document.get("schema")
        older = isinstance(found, int) and found < SCHEMA
        do = (
            "copy its pins, delete the file, run deploys/plan.py and put the pins back"
            if older
            else "use the multigpu that wrote it, or delete the file to plan anew"
        )
        raise PlanFileError(f"{path}: schema {found}, this multigpu reads {SCHEMA}: {do}")
    return document


def _merge(old: CommentedMap, new: Mapping[str, Any]) -> None:
    """Make `old` equal to `new`, touching only what differs, so that comments stay."""
    for key in [key for key in old if key not in new]:
        del old[key]
    for key, value in new.items():
        found = old.get(key)
        rows = isinstance(found, CommentedMap) and not found.fa.flow_style()
        if rows and isinstance(value, Mapping):
            _merge(found, value)
        elif key not in old or _json(found) != _json(value):
            old[_rt(key)] = _rt(value)


def _rt(value: Any) -> Any:
    """Plain values as round-trip ones; short leaves in flow style, to be read as a table."""
    if isinstance(value, Mapping):
        result = CommentedMap((_rt(key), _rt(item)) for key, item in value.items())
        if _is_short_leaf(value):
            result.fa.set_flow_style()
        return result
    if isinstance(value, list):
        return _rt_list(value)
    # ruamel.yaml leaves :a and ?a bare where it cannot read them back, and folds a NEL.
    odd = isinstance(value, str) and (value[:1] in (":", "?") or not value.isprintable())
    return DoubleQuotedScalarString(value) if odd else value


def _is_short_leaf(value: Mapping[str, Any]) -> bool:
    """Numbers, names and lists of them that fit a line; sentences stand one below the other."""
    length = sum(len(f"{key}: {item}, ") for key, item in value.items())
    lists = [item for each in value.values() if isinstance(each, list) for item in each]
    single = [each for each in value.values() if not isinstance(each, list)]
    return 0 < length < WIDTH - 10 and _plain([*value, *single, *lists])


def _rt_list(value: list[Any]) -> Any:
    result = CommentedSeq(_rt(item) for item in value)
    if _plain(value):
        result.fa.set_flow_style()
    return result


def _plain(values: Iterable[Any]) -> bool:
    return all(
        not isinstance(value, Mapping | list) and _PLAIN_WORDS.fullmatch(str(value)) is not None
        for value in values
    )


def _dump(document: CommentedMap) -> str:
    stream = io.StringIO()
    _yaml().dump(document, stream)
    return stream.getvalue()


def _yaml() -> YAML:
    yaml = YAML(typ="rt")
    yaml.width = WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.preserve_quotes = True
    return yaml
