"""Checks that the schema's validators share; each problem knows its place in the file."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from restnet_search.errors import did_you_mean
from restnet_search.registry import Registry

__all__ = [
    "NOT_REGISTERED",
    "Problem",
    "a_number",
    "cut_point_reference",
    "each_once",
    "one_is_a_list",
    "plain_data",
    "raise_problems",
    "registered_in",
    "unknown_name",
]

NOT_REGISTERED = "not_registered"

_LONGEST = 40  # digits of a number
_NUMBER_LIKE = re.compile(r"[\s\d_.eE+-]*\d[\s\d_.eE+-]*")  # digits of any script
_DECIMAL = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")

_Value = TypeVar("_Value", bound=str | int | float)


class Problem(NamedTuple):
    """A problem with `value` at `location`, which is relative to what the validator was given."""

    location: tuple[int | str, ...]
    message: str
    value: object


def raise_problems(title: str, problems: Sequence[Problem]) -> None:
    """Raise all problems as one error whose places pydantic completes; do nothing if there are none.

    Raises:
        ValidationError: If there is any problem.
    """
    if not problems:
        return
    details = [
        InitErrorDetails(
            type=PydanticCustomError("space_problem", "{message}", {"message": problem.message}),
            loc=problem.location,
            input=problem.value,
        )
        for problem in problems
    ]
    raise ValidationError.from_exception_data(title, details)


def unknown_name(name: str, names: Sequence[str]) -> str:
    """Say that `name` is no anchor, and which there are."""
    return f"is no anchor of this space; the anchors are {did_you_mean(name, names)}"


def a_number(value: object) -> object:
    """Refuse what Python would take for a number and nobody else does: true, ``1_000``, ``０``, ``08``; -0.0 is 0.0."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    if (isinstance(value, str) and len(value) > _LONGEST) or (isinstance(value, int) and abs(value) >= 10**_LONGEST):
        raise ValueError(f"must be a number of at most {_LONGEST} digits")
    if isinstance(value, str) and _NUMBER_LIKE.fullmatch(value) and not _DECIMAL.fullmatch(value):
        raise ValueError("must be a number, in decimal digits 0 to 9")
    return 0.0 if isinstance(value, float) and value == 0 else value


def one_is_a_list(value: object) -> object:
    """Return a list of a single choice, and a list as it is."""
    return [value] if isinstance(value, str | int | float) else value


def each_once(value: list[_Value]) -> list[_Value]:
    """Refuse a list with repeats."""
    if len(set(value)) != len(value):
        raise ValueError("lists something twice")
    return value


def registered_in(registry: Registry) -> Callable[[str], str]:
    """Return a check that refuses names which neither we nor an installed package registered; it runs no code.

    Its errors are of the type :data:`NOT_REGISTERED`, with the kind of extension and the group of entry points.
    """

    def check(value: str) -> str:
        if value not in registry.built_ins and value not in (known := registry.known_names()):
            context = {"names": did_you_mean(value, known), "kind": registry.kind, "group": registry.group}
            raise PydanticCustomError(NOT_REGISTERED, "must be one of {names}", context)
        return value

    return check


def cut_point_reference(value: object) -> object:
    """Check that a reference is an index (0 first) or a module path such as ``layer2.1``."""
    is_index = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not (is_index or (isinstance(value, str) and value)):
        raise ValueError("must be the index of a cut point (0 or more) or a module path such as layer2.1")
    return value


def plain_data(value: object) -> object:
    """Return `value` with tuples as lists, so that YAML and JSON files give back what was written.

    Raises:
        ValidationError: If anything in it is no mapping with text keys, list, text, finite number, true, false or null.
    """
    problems: list[Problem] = []
    plain = _plain(value, (), problems)
    raise_problems("plain data", problems)
    return plain


def _plain(value: object, location: tuple[int | str, ...], problems: list[Problem]) -> object:
    if isinstance(value, dict):
        problems += [
            Problem((*location, repr(key)), "a key must be text; put it in quotes", key)
            for key in value
            if not isinstance(key, str)
        ]
        return {key: _plain(item, (*location, str(key)), problems) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, (*location, index), problems) for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        problems.append(Problem(location, "must be a finite number", value))
    elif isinstance(value, int) and abs(value) >= 10**_LONGEST:
        problems.append(Problem(location, f"must have at most {_LONGEST} digits", "a longer number"))
    elif not (value is None or isinstance(value, str | int | float)):
        problems.append(Problem(location, "must be text, a number, true, false, null, a list or a mapping", value))
    return value
