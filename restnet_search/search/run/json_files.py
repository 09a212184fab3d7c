"""The small JSON files of a run: written with a digest, read as what they were written from."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from restnet_search.errors import RunError
from restnet_search.plain.json_text import read_json, without_digest

__all__ = ["read_as"]

_T = TypeVar("_T")


def read_as(cls: type[_T], path: Path) -> _T:
    """Read a JSON file that holds an object of a class.

    Raises:
        RunError: If it cannot be read, is damaged, or holds something else; names the first wrong key. It stays.
    """
    try:
        return TypeAdapter(cls).validate_python(without_digest(read_json(path)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        problem = f"{where}: {first['msg']}"
    except (OSError, ValueError) as error:
        problem = str(error)
    raise RunError(
        f"The file {path} of the run cannot be read: {problem}.",
        expected="what the run wrote there",
        hint="put a copy of it there, or start a new run",
    )
