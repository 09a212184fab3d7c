"""Keys of a search space that have another name now: refused in a user's file, mapped in a run's own copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["RENAMED_KEYS", "upgrade_space"]

RENAMED_KEYS: Mapping[tuple[str, ...], str] = {
    ("early",): "halving",
    ("cache", "together"): "trials_per_pass",
}
"""The path of each old key, and the name it has now in the same section."""


def upgrade_space(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a space, not validated yet, with the keys of earlier releases under their present names.

    An old key that stands beside its new one is left, so that validation refuses it. `raw` itself stays as it is.
    Before there were terms of stitch layers, layers had none; before ``distill_backs``, all hybrids followed.
    """
    upgraded = dict(raw)
    if isinstance(stitch := upgraded.get("stitch"), Mapping):
        upgraded["stitch"] = {"terms": [], **stitch}
    if isinstance(training := upgraded.get("training"), Mapping):
        upgraded["training"] = {"distill_backs": "all", **training}
    for path, new in RENAMED_KEYS.items():
        upgraded = _renamed(upgraded, path, new)
    return upgraded


def _renamed(section: Mapping[str, Any], path: tuple[str, ...], new: str) -> dict[str, Any]:
    key, *rest = path
    if rest:
        inner = section.get(key)
        return {**section, key: _renamed(inner, tuple(rest), new)} if isinstance(inner, Mapping) else dict(section)
    if new in section:
        return dict(section)
    return {new if name == key else name: value for name, value in section.items()}
