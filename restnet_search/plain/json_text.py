"""JSON as plain data: read within limits, each key once, finite numbers only; and written with its own digest.

Every JSON file that a user or another program can touch is read here. :mod:`restnet_search.space.plain_yaml` is its
counterpart for YAML.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from restnet_search.files import bytes_digest

__all__ = ["DIGEST", "canonical_digest", "digested_text", "parse_json", "read_json", "with_digest", "without_digest"]

DIGEST = "digest"
"""Key under which a file of ours holds the digest of everything else in it."""

_MOST_BYTES = 512 * 2**20  # results of the largest searches have some tens of MiB
_MOST_DEPTH = 100
_LONGEST = 40  # digits of an integer


def read_json(path: Path) -> Any:
    """Read a JSON file (UTF-8); of an endless file no more than the limit is read.

    Raises:
        OSError: If it cannot be read.
        ValueError: As :func:`parse_json`, or if it is larger than any file of ours, or no UTF-8.
    """
    with path.open("rb") as file:
        raw = file.read(_MOST_BYTES + 1)
    return parse_json(raw)


def parse_json(text: str | bytes, *, finite: bool = True) -> Any:
    """Return the plain data that a JSON text holds; `finite`: NaN and infinity are refused.

    Raises:
        ValueError: If it is none, is too large or nested too deeply, holds a key twice, a number that is not finite or
            longer than 40 digits, or half a character (a lone surrogate), which no file can hold.
    """
    if len(text) > _MOST_BYTES:
        raise ValueError(f"it is larger than {_MOST_BYTES // 2**20} MiB")
    try:
        value = json.loads(text.decode("utf-8") if isinstance(text, bytes) else text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check(value, finite)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:40]!r} is there twice")
    return made


def _check(value: Any, finite: bool) -> None:
    """Refuse what would break whoever handles the value later. A stack, not recursion: the depth is not known yet."""
    pending: list[tuple[Any, int]] = [(value, 1)]
    while pending:
        one, depth = pending.pop()
        if isinstance(one, dict | list):
            if depth > _MOST_DEPTH:
                raise ValueError(f"it is nested more than {_MOST_DEPTH} deep")
            inside = [*one.keys(), *one.values()] if isinstance(one, dict) else one
            pending += [(item, depth + 1) for item in inside]
        elif isinstance(one, str):
            if not one.isascii():
                _refuse_half_characters(one)
        elif isinstance(one, float):
            if finite and not math.isfinite(one):
                raise ValueError("it holds a number that is not finite")
        elif isinstance(one, int) and abs(one) >= 10**_LONGEST:
            raise ValueError(f"it holds a number of more than {_LONGEST} digits")


def _refuse_half_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half a character (a lone surrogate)") from None


def canonical_digest(plain: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the values, whatever the order of keys and the white space they are written with."""
    return bytes_digest(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())


def with_digest(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping of JSON values with the digest of them all; :func:`without_digest` takes it off again."""
    return {**plain, DIGEST: canonical_digest(plain)}


def digested_text(plain: Mapping[str, Any]) -> str:
    """Return the JSON text of a mapping with its own digest; half characters (of file names) are question marks.

    Raises:
        ValueError: If a number is not finite.
    """
    whole = json.dumps(plain, ensure_ascii=False, allow_nan=False).encode(errors="replace")
    return json.dumps(with_digest(json.loads(whole)), indent=2, ensure_ascii=False) + "\n"


def without_digest(plain: Any) -> Any:
    """Return JSON values without their digest, after comparing it; values that hold none are returned as they are.

    Files of earlier versions have no digest. It tells accidents from what was written; it is no signature.

    Raises:
        ValueError: If the values are not those that were written; says how to keep a change that was meant.
    """
    if not (isinstance(plain, dict) and DIGEST in plain):
        return plain
    rest = {key: value for key, value in plain.items() if key != DIGEST}
    if plain[DIGEST] != canonical_digest(rest):
        raise ValueError(
            f"it was changed after it was written (its {DIGEST} does not fit); a change that is meant is kept by"
            f" removing the key {DIGEST}"
        )
    return rest
