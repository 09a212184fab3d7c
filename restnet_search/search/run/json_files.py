"""The small JSON files of a run, read as what they were written from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from restnet_search.errors import RunError

__all__ = ["read_as"]

_T = TypeVar("_T")


def read_as(cls: type[_T], path: Path) -> _T:
    """Read a JSON file that holds an object of a class.

    Raises:
        RunError: If it cannot be read, is damaged, or holds something else; names the first wrong key. It stays.
    """
    try:
        return TypeAdapter(cls).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        problem = f"{where}: {first['msg']}"
    except (OSError, ValueError, RecursionError) as error:
        problem = str(error)
    raise RunError(
        f"The file {path} of the run cannot be read: {problem}.",
        expected="what the run wrote there",
        hint="put a copy of it there, or start a new run",
    )
