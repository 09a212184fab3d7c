"""Say what is wrong with a space: one line per problem, with its path in the file, the value, and what is valid."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from restnet_search.errors import did_you_mean
from restnet_search.space.renamed_keys import RENAMED_KEYS

__all__ = ["describe_problems", "format_path"]

Location = tuple[int | str, ...]

_KINDS = {
    "bool": "must be true or false",
    "dict": "must be a mapping (key: value)",
    "float": "must be a number",
    "int": "must be a whole number",
    "list": "must be a list ([a, b])",
    "model": "must be a mapping (key: value)",
    "string": "must be text; put a number, a date or yes/no in quotes",
    "tuple": "must be a list ([a, b])",
}
_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}

_PHRASES = {
    "too_short": "must have at least {min_length} entries, has {actual_length}",
    "too_long": "must have at most {max_length} entries, has more",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must match {pattern}",
    "not_registered": "must be one of {names}",
    "finite_number": "must be a finite number",
    "string_unicode": "must be UTF-8 text",
}

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
_short.maxlevel = 3
_YAML_WORDS = {True: "true", False: "false", None: "null"}


def describe_problems(error: ValidationError, data: object, model: type[BaseModel]) -> list[str]:
    """Describe every problem that pydantic found.

    Args:
        error: Raised by validating `data` as `model`.
        data: What was read from the file.
        model: The root of the schema; valid keys and choices come from it.

    Returns:
        Lines such as ``training.lr[0]: must be above 0; came -1``, in the order of the file's schema.
    """
    lines = [_describe(item, data, model) for item in error.errors(include_url=False)]
    return list(dict.fromkeys(lines))  # `lr: -1` stands for both ends of its range, and would be named twice


def format_path(location: Location) -> str:
    """Write a place as users read it: ``training.lr[0]``, ``cut_points.anchors['vit.tiny']``."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier():
            path += f".{part}" if path else part
        else:
            path += f"[{part!r}]"
    return path or "the space"


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**40:  # Python itself refuses to write the longest ones
        return "a longer number"
    return _YAML_WORDS[value] if isinstance(value, bool | NoneType) else _short.repr(value)


def _describe(item: ErrorDetails, data: object, model: type[BaseModel]) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind in ("missing", "extra_forbidden"):
        *parent, key = item["loc"]
        path = format_path((*_existing(parent, data), key))
        if kind == "missing":
            return f"{path}: is missing{_needed(_type_at(model, item['loc']))}"
        if (new := RENAMED_KEYS.get(tuple(str(part) for part in item["loc"]))) is not None:
            return f"{path}: is now {format_path((*parent, new))} (its value: {_shown(item['input'])})"
        valid = _keys_at(model, parent, key)
        return f"{path}: is no known key (its value: {_shown(item['input'])}); valid keys: {valid}"
    if kind == "invalid_key":
        return f"{format_path(item['loc'][:-1])}: the key {_shown(item['input'])} must be text; put it in quotes"
    path = format_path(_existing(item["loc"], data))
    message = _message(kind, context, item, _type_at(model, item["loc"]))
    return f"{path}: {message}; came {_shown(item['input'])}"


def _message(kind: str, context: Mapping[str, Any], item: ErrorDetails, annotation: Any) -> str:
    if kind == "literal_error":
        return f"must be one of {did_you_mean(str(item['input']), [str(choice) for choice in get_args(annotation)])}"
    if kind in ("value_error", "space_problem"):
        return " ".join(str(context.get("error", context.get("message"))).split())
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"must be {words} {_figure(context[key])}"
    if kind in _PHRASES:
        return _PHRASES[kind].format(**context)
    subject, _, _ = kind.partition("_")  # int_type, int_parsing, bool_type, model_type, ...
    return _KINDS.get(subject, item["msg"])


def _figure(bound: float) -> str:
    """Write a bound of the schema in full: 0.5, 1,000,000."""
    return f"{int(bound):,}" if float(bound).is_integer() else f"{bound:g}"


def _existing(location: Sequence[int | str], data: object) -> Location:
    """Return the part of a location that is in the file: shorthands (``ranker: cka``) end before the schema does."""
    existing: list[int | str] = []
    for part in location:
        if isinstance(data, Mapping):
            data = data.get(part)
        elif isinstance(data, list | tuple) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            break
        existing.append(part)
    return tuple(existing)


def _needed(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"; a mapping with the keys {', '.join(annotation.model_fields)}"
    return "; a list" if get_origin(annotation) in (list, tuple) else ""


def _keys_at(model: type[BaseModel], parent: Sequence[int | str], key: int | str) -> str:
    section = _type_at(model, parent)
    fields = section.model_fields if isinstance(section, type) and issubclass(section, BaseModel) else ()
    return did_you_mean(str(key), fields)


def _type_at(model: type[BaseModel], location: Sequence[int | str]) -> Any:
    """Return the schema's type at a location, without Optional and Annotated; None where the schema says nothing."""
    current: Any = model
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = _bare(field.annotation) if field else None
        elif get_origin(current) is tuple and isinstance(part, int):
            arguments = get_args(current)
            current = _bare(arguments[part]) if part < len(arguments) else None
        elif get_origin(current) in (list, dict):
            current = _bare(get_args(current)[-1])
        else:
            return None
    return current


def _bare(annotation: Any) -> Any:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _bare(get_args(annotation)[0])
    if origin in (Union, UnionType):
        options = [option for option in get_args(annotation) if option is not NoneType]
        return _bare(options[0]) if len(options) == 1 else annotation
    return annotation
