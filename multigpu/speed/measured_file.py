"""`measurements/<host>.yaml`: what was measured on a host. Text in, text out.

A list of mappings with the fields of `Measurement`; a person may edit it and add rows.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping

import cattrs
from cattrs.gen import make_dict_unstructure_fn
from cattrs.preconf.json import make_converter
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from multigpu.errors import MultigpuError
from multigpu.speed.measured import Measurement


class MeasurementError(MultigpuError):
    """A measurements file is no YAML or holds something that is no measurement."""


_converter = make_converter(forbid_extra_keys=True)
_converter.register_unstructure_hook(
    Measurement,
    make_dict_unstructure_fn(Measurement, _converter, _cattrs_omit_if_default=True),
)


def read(text: str, path: str) -> tuple[Measurement, ...]:
    """The measurements of a file. Raises MeasurementError that names the file and the row."""
    try:
        rows = YAML(typ="safe").load(text)
    except YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f" (line {place.line + 1})" if place is not None else ""
        raise MeasurementError(f"{path} is no YAML{where}") from None
    if rows is None:
        return ()
    if not isinstance(rows, list):
        raise MeasurementError(f"{path}: a list of measurements is needed")
    return tuple(_row(row, f"{path}, measurement {i}") for i, row in enumerate(rows, 1))


def _row(row: object, place: str) -> Measurement:
    if not isinstance(row, Mapping):
        raise MeasurementError(f"{place}: a mapping of fields is needed")
    try:
        # By way of JSON: dates that YAML reads as such become the text they were.
        plain = json.loads(json.dumps(dict(row), default=str))
        return _converter.structure(plain, Measurement)
    except (ValueError, TypeError, KeyError, cattrs.BaseValidationError) as error:
        what = "; ".join(cattrs.transform_error(error, path="measurement"))
        raise MeasurementError(f"{place}: {what}") from None


def write(measured: Iterable[Measurement]) -> str:
    """The file's text; `read` gives the same measurements."""
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    out = io.StringIO()
    rows = [json.loads(json.dumps(_converter.unstructure(each))) for each in measured]
    yaml.dump(rows, out)
    return out.getvalue()
