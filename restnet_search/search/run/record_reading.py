"""Records read from a study, also from one that an earlier version wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from restnet_search.errors import RunError
from restnet_search.search.run.records import Dropped, HybridRecord, nested_figures

__all__ = ["read_dropped", "read_hybrid", "read_note"]


def read_hybrid(values: Mapping[str, Any]) -> HybridRecord:
    """Read a record from a study, also from one that an earlier version wrote.

    Args:
        values: What ``dataclasses.asdict`` gave, or what an earlier version did, whose records were flat.
    """
    return _read(HybridRecord, values, _hybrid_of_today)


def read_dropped(values: Mapping[str, Any]) -> Dropped:
    """Read a dropped candidate from a study, also from one that an earlier version wrote; as :func:`read_hybrid`."""
    return _read(Dropped, values, _dropped_of_today)


def read_note(cls: Any, values: object, key: str) -> Any:
    """Read what a study holds under a key beside its trials.

    Args:
        cls: What it was written from: a type that pydantic knows.
        values: Plain JSON values.
        key: Named in errors.

    Raises:
        RunError: If it is something else.
    """
    try:
        return _adapter(cls).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _no_record(f"{'.'.join(map(str, (key, *first['loc'])))}: {first['msg']}") from error


def _hybrid_of_today(values: Mapping[str, Any]) -> Mapping[str, Any]:
    values = _nested_hybrid(values) if "front_cut" in values else values
    return values if "cost" in values else nested_figures(values)


def _dropped_of_today(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return _nested_parts(values) if "front_cut" in values else values


def _nested_hybrid(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the record of an earlier version, in which every field is a plain value, into the form of today."""
    apart = ("stitch_kind", "stitch_params", "correct", "n", "rank")
    kept = {key: value for key, value in flat.items() if key not in apart}
    return _nested_parts(kept) | {
        "stitch": {"kind": flat["stitch_kind"], "params": flat["stitch_params"]},
        "val": {"top1": flat["correct"] / flat["n"], "n": flat["n"]},
        "rank": None if flat.get("control") == "self" else flat["rank"] + 1,  # places were counted from 0
    }


def _nested_parts(flat: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in flat.items() if key not in ("front_cut", "back_cut")}
    return kept | {side: {"anchor": flat[side], "cut": flat[f"{side}_cut"]} for side in ("front", "back")}


_T = TypeVar("_T")


def _read(cls: type[_T], values: Mapping[str, Any], nest: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> _T:
    try:
        return _adapter(cls).validate_python(nest(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _no_record(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise _no_record(f"{type(error).__name__}: {error}") from error


def _no_record(problem: str) -> RunError:
    return RunError(
        f"The run's study holds a record that cannot be read: {problem}.",
        expected="what a search wrote, of this version or an earlier one",
        hint="put a copy of study.db there, or start a new run",
    )


@cache
def _adapter(cls: type[_T]) -> TypeAdapter[_T]:
    return TypeAdapter(cls)
