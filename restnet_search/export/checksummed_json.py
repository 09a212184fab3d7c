"""JSON files that carry their own checksum, so that a truncated or altered one is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from restnet_search.errors import ExportError
from restnet_search.plain.json_text import DIGEST, canonical_digest, read_json, with_digest

__all__ = ["checksummed_text", "dump_checksummed", "read_checksummed", "validate_as"]

_FIRST = ("format_version", "restnet_search")  # keys that people look for


def checksummed_text(plain: Mapping[str, Any]) -> str:
    """Return the JSON text of a mapping, with the SHA-256 of its canonical form under ``digest``."""
    return json.dumps(with_digest(plain), indent=1) + "\n"


def dump_checksummed(manifest: Any) -> str:
    """Return the JSON text of a manifest (a dataclass whose fields are the keys), with its checksum."""
    plain = TypeAdapter(type(manifest)).dump_python(manifest, mode="json")
    return checksummed_text({key: plain[key] for key in _FIRST} | plain)


def read_checksummed(path: Path, version: int, *, adaptive: bool = False) -> dict[str, Any]:
    """Read what :func:`checksummed_text` wrote; the checksum itself is left out.

    Args:
        path: The JSON file.
        version: The format version that it must have.
        adaptive: Whether it must be an adaptive model (``"kind": "adaptive"``), or the export of one network.

    Raises:
        ExportError: If it cannot be read, another format version wrote it, or it was altered.
    """
    try:
        plain = read_json(path)
    except (OSError, ValueError) as error:
        raise ExportError(f"The export {path} cannot be read: {error}", hint="export it again") from error
    if not isinstance(plain, dict):
        raise ExportError(f"The export {path} is no JSON of an export.", hint="export it again")
    if (plain.get("kind") == "adaptive") != adaptive:
        raise ExportError(
            f"The export {path} is {'no' if adaptive else 'an'} adaptive model.",
            expected="an adaptive model" if adaptive else "the export of one network",
            hint=f"read it with restnet_search.{'load_hybrid' if adaptive else 'AdaptiveModel.load'}",
        )
    if plain.get("format_version", version) != version:
        raise ExportError(
            f"The export {path} has format version {plain['format_version']}.",
            expected=f"format version {version}",
            hint="read it with the version of restnet-search that wrote it, or export it again",
        )
    written = plain.pop(DIGEST, None)
    if written != (present := canonical_digest(plain)):
        raise ExportError(
            f"The export {path} was altered after it was written.",
            expected=f"digest {written or '(missing)'}, came {present}",
            hint="copy the file again, or export again",
        )
    return plain


_T = TypeVar("_T")


def validate_as(cls: type[_T], plain: object, problem: str, hint: str) -> _T:
    """Return plain values as an object of a class.

    Raises:
        ExportError: If they are none; ``problem`` starts its message, which names the first wrong key.
    """
    try:
        return TypeAdapter(cls).validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise ExportError(f"{problem}: {where}: {first['msg']}", hint=hint) from error
