"""The report and ``results.json``: pydantic writes and reads its dataclasses, strictly typed both ways."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from restnet_search.errors import RunError
from restnet_search.files import write_atomically
from restnet_search.plain.json_text import digested_text, read_json, without_digest
from restnet_search.reporting.model.run_report import SCHEMA_VERSION, Report
from restnet_search.reporting.results_file.contradictions import contradiction
from restnet_search.reporting.results_file.csv_table import pareto_csv
from restnet_search.reporting.results_file.upgrade import upgraded

__all__ = ["CSV", "RESULTS", "from_json", "read_results", "to_json", "write_results"]

RESULTS = "results.json"
CSV = "pareto.csv"

_WRITE_AGAIN = "write it again with `restnet-search --resume RUN`"


@cache
def _adapter() -> TypeAdapter[Report]:
    return TypeAdapter(Report)


def to_json(report: Report) -> dict[str, Any]:
    """Return the report as the plain values of ``results.json``."""
    # any mapping is an object, not only a dict
    return _adapter().dump_python(report, mode="json", fallback=dict, warnings=False)


def from_json(data: object, source: str = RESULTS) -> Report:
    """Read what :func:`to_json` gave, in this version or an earlier one; unknown keys are passed over.

    Args:
        data: Plain JSON values.
        source: Named in errors.

    Raises:
        RunError: If the schema version is a later one, or a key is missing or of the wrong type; names the key.
    """
    if isinstance(data, Mapping):
        data = upgraded(data)
        version = data.get("schema_version", SCHEMA_VERSION)  # where it is missing, the codec says so
        if version != SCHEMA_VERSION:
            raise RunError(
                f"{source}: schema_version is {version!r}, which this version of restnet-search cannot read.",
                expected=f"schema_version {SCHEMA_VERSION} or below",
                hint="use the version of restnet-search that wrote the run",
            )
    try:
        # JSON text, not Python values: strict typing then still takes objects for dataclasses and lists for tuples
        report = _adapter().validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise _located(error, data, source) from None
    if (problem := contradiction(report)) is not None:
        raise RunError(f"{source} contradicts itself: {problem}.", hint=_WRITE_AGAIN)
    return report


def write_results(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write ``results.json`` and ``pareto.csv``; each file is either the old or the new one, never a part.

    Raises:
        ValueError: If the report holds a number that is not finite; nothing is written then.
    """
    text = digested_text(to_json(report))
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
        data = read_json(file)
    except FileNotFoundError:
        raise RunError(
            f"There are no results at {file}.",
            expected=f"the folder of a finished run, with {RESULTS} in it",
            hint="`restnet-search report latest` names the newest run; an interrupted one goes on with --resume RUN",
        ) from None
    except ValueError as error:
        raise RunError(
            f"{file} is not complete JSON: {error}.", expected=f"the {RESULTS} that a run wrote", hint=_WRITE_AGAIN
        ) from error
    except OSError as error:
        raise RunError(f"Cannot read {file}: {error.strerror or error}.") from error
    try:
        whole = without_digest(data)
    except ValueError as error:
        raise RunError(
            f"{file} cannot be relied on: {error}.", expected=f"the {RESULTS} that a run wrote", hint=_WRITE_AGAIN
        ) from error
    return from_json(whole, str(file))


def _located(error: ValidationError, data: object, source: str) -> RunError:
    """Say of the first thing that is wrong where it stands, what stands there, and what was expected."""
    first = error.errors(include_url=False)[0]
    keys, value = _descend(data, first["loc"])
    missing = first["loc"][len(keys) : len(keys) + 1]
    if first["type"] == "missing" and missing and isinstance(missing[0], str):
        return RunError(f"{source}: the key {_path((*keys, *missing))} is missing.", hint=_WRITE_AGAIN)
    text = json.dumps(value, default=str)
    text = text if len(text) <= 60 else text[:57] + "..."
    expected = first["msg"].removeprefix("Input should be ")
    return RunError(f"{source}: {_path(keys) or 'the file'} is {text}.", expected=expected, hint=_WRITE_AGAIN)


def _descend(data: Any, location: tuple[int | str, ...]) -> tuple[tuple[int | str, ...], Any]:
    """Follow a location as far as the data goes: pydantic ends it with the branch of a union, which is no key."""
    for depth, key in enumerate(location):
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return location[:depth], data
    return location, data


def _path(keys: tuple[int | str, ...]) -> str:
    """Write a location as ``hybrids[3].front.cut``."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")
