"""Report <-> JSON, strictly typed both ways, and the files of a run folder written in one step each."""

from __future__ import annotations

import csv
import io
import json
import os
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from restnet_search.errors import RunError
from restnet_search.files import write_atomically
from restnet_search.reporting.report import SCHEMA_VERSION, AnchorEntry, BudgetEntry, Entry, Report

__all__ = ["CSV", "RESULTS", "from_json", "pareto_csv", "read_results", "to_json", "write_results"]

RESULTS = "results.json"
CSV = "pareto.csv"

_COLUMNS: tuple[str, ...] = (
    "budget", "id", "kind", "front", "front_cut", "back", "back_cut", "order", "macs", "params",
    "val_top1", "val_n", "test_top1", "test_low", "test_high", "test_n", "pick", "memory", "latency",
    "measured_median", "measured_p95", "tune",
)  # fmt: skip


def to_json(report: Report) -> dict[str, Any]:
    """Return the report as the plain values of ``results.json``."""
    return _encode(report)


def from_json(data: object, source: str = RESULTS) -> Report:
    """Read what :func:`to_json` gave; keys that the schema does not know are passed over.

    Args:
        source: Named in errors.

    Raises:
        RunError: If the schema version is another one, or a key is missing or of the wrong type; names the key.
    """
    version = data.get("schema_version") if isinstance(data, Mapping) else None
    if isinstance(data, Mapping) and "schema_version" in data and version != SCHEMA_VERSION:
        raise RunError(
            f"{source}: schema_version is {version!r}, which this version of restnet-search cannot read.",
            expected=f"schema_version {SCHEMA_VERSION}",
            hint="use the version of restnet-search that wrote the run",
        )
    return _decode(Report, data, "", source)


def write_results(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write ``results.json`` and ``pareto.csv``; each file is either the old or the new one, never a part.

    Raises:
        ValueError: If the report holds a number that is not finite; nothing is written then.
    """
    text = json.dumps(to_json(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    table = pareto_csv(report)
    folder.mkdir(parents=True, exist_ok=True)
    return write_atomically(folder / RESULTS, text), write_atomically(folder / CSV, table)


def read_results(path: str | os.PathLike[str]) -> Report:
    """Read the report of a run folder, or a ``results.json`` itself.

    Raises:
        RunError: If the file is missing, is no complete JSON, or does not hold the schema; names file and key.
    """
    file = Path(path)
    file = file / RESULTS if file.is_dir() else file
    try:
        data = json.loads(file.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except FileNotFoundError:
        raise RunError(
            f"There are no results at {file}.",
            expected=f"the folder of a finished run, with {RESULTS} in it",
            hint="`restnet-search report latest` names the newest run; an interrupted one goes on with --resume RUN",
        ) from None
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise RunError(
            f"{file} is not complete JSON: {error}.",
            expected=f"the {RESULTS} that a run wrote",
            hint="write it again with `restnet-search --resume RUN`",
        ) from error
    except OSError as error:
        raise RunError(f"Cannot read {file}: {error.strerror or error}.") from error
    return from_json(data, str(file))


def pareto_csv(report: Report) -> str:
    """Return a CSV table with one row per budget and member of its Pareto set; accuracies are fractions."""
    buffer = io.StringIO()
    writer: csv.DictWriter[str] = csv.DictWriter(buffer, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for budget in report.budgets:
        for id in budget.pareto:
            writer.writerow(_csv_row(budget, report.entry(id)))
    return buffer.getvalue()


def _csv_row(budget: BudgetEntry, entry: Entry) -> dict[str, object]:
    row: dict[str, object] = {
        "budget": budget.name,
        "id": entry.id,
        "macs": entry.macs,
        "params": entry.params,
        "val_top1": entry.val.top1,
        "val_n": entry.val.n,
        "pick": str(entry.id == budget.pick).lower(),
    }
    if isinstance(entry, AnchorEntry):
        row["kind"] = "anchor"
    else:
        row |= {"kind": "hybrid", "order": entry.order, "tune": entry.tune}
        row |= {"front": entry.front.anchor, "front_cut": entry.front.cut}
        row |= {"back": entry.back.anchor, "back_cut": entry.back.cut}
    row |= {kind: value for kind in ("memory", "latency") if (value := getattr(entry, kind)) is not None}
    if entry.measured is not None:
        row |= {"measured_median": entry.measured.median, "measured_p95": entry.measured.p95}
    if entry.test is not None:
        low, high = entry.test.ci95
        row |= {"test_top1": entry.test.top1, "test_low": low, "test_high": high, "test_n": entry.test.n}
    return row


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


# --- a codec for frozen dataclasses, driven by their annotations ---


def _encode(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        pairs = ((spec, getattr(value, spec.name)) for spec in fields(value))
        return {
            spec.name: _encode(item) for spec, item in pairs if item is not None or not spec.metadata.get("omit_none")
        }
    if isinstance(value, Mapping):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    return value


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _decode(annotation: Any, value: Any, key: str, source: str) -> Any:
    """Read ``value`` as ``annotation``: a dataclass, mapping, tuple, union or plain JSON type. ``key`` is its path."""
    origin, args = get_origin(annotation), get_args(annotation)
    if is_dataclass(annotation):
        return _decode_dataclass(annotation, value, key, source)
    if origin is Mapping:
        _expect(isinstance(value, Mapping), "an object", value, key, source)
        return {name: _decode(args[1], item, _join(key, name), source) for name, item in value.items()}
    if origin is tuple:
        _expect(isinstance(value, list), "a list", value, key, source)
        if args[-1] is not Ellipsis:
            _expect(len(value) == len(args), f"a list of {len(args)}", value, key, source)
            return tuple(
                _decode(arg, item, f"{key}[{i}]", source) for i, (arg, item) in enumerate(zip(args, value, strict=True))
            )
        return tuple(_decode(args[0], item, f"{key}[{i}]", source) for i, item in enumerate(value))
    if origin in (Union, types.UnionType):
        return _decode_union(args, value, key, source)
    if annotation is float and type(value) is int:
        return float(value)
    _expect(type(value) is annotation, _NAMES[annotation], value, key, source)
    return value


def _decode_dataclass(cls: Any, value: Any, key: str, source: str) -> Any:
    _expect(isinstance(value, Mapping), "an object", value, key, source)
    known: dict[str, Any] = {}
    for spec in fields(cls):
        path = _join(key, spec.name)
        if spec.name in value:
            known[spec.name] = _decode(_hints(cls)[spec.name], value[spec.name], path, source)
        elif spec.default is MISSING and spec.default_factory is MISSING:
            raise RunError(
                f"{source}: the key {path} is missing.", hint="write it again with `restnet-search --resume RUN`"
            )
    return cls(**known)


def _decode_union(args: tuple[Any, ...], value: Any, key: str, source: str) -> Any:
    if type(value) in args:  # exact, so that 3 stays an int and 3.0 a float, and None stays None
        return value
    nested = [arg for arg in args if is_dataclass(arg)]
    if nested and value is not None:
        return _decode(nested[0], value, key, source)
    if float in args and type(value) is int:
        return float(value)
    return _expect(False, " or ".join(_NAMES.get(arg, "an object") for arg in args), value, key, source)


_NAMES: dict[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_NAMES[type(None)] = "null"


def _expect(holds: bool, expected: str, value: object, key: str, source: str) -> None:
    if not holds:
        came = json.dumps(value, default=str)
        came = came if len(came) <= 60 else came[:57] + "..."
        raise RunError(f"{source}: {key or 'the file'} is {came}.", expected=expected)


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
