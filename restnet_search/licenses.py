"""Licenses of pre-trained weights: whose holds for an anchor, and which of them shut out commercial use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

__all__ = [
    "TRAINED_HERE",
    "Origin",
    "forbids_commercial_use",
    "license_of",
    "license_warning",
    "non_commercial",
    "shown",
]

Origin = Literal["published", "file", "own", "untrained"]
"""Where weights come from: their publisher (the hub, a cache, ``--weights DIR`` under its name), a file that the space
names, a factory in user code, or nowhere yet."""

TRAINED_HERE = "own, trained here"
"""Stands for the license of weights that are trained from scratch on the user's data."""

_WORDS = re.compile(r"(?<![a-z])(nc|non-?commercial|research)(?![a-z])")
# Names as timm declares them that do not say it: Apple's license for research models, and Meta's of SEER.
_NAMED = frozenset({"apple-amlr", "seer-license"})


def license_of(origin: Origin, *, stated: str | None, declared: str | None) -> str | None:
    """Return the license of an anchor's weights, or None where it is unknown.

    Args:
        origin: Where the weights come from.
        stated: The space's ``license:`` of the anchor; it wins.
        declared: What the model's publisher declares. It is not taken for a file that the space names: that may hold
            anybody's weights.
    """
    if stated is not None:
        return stated
    if origin == "untrained":
        return TRAINED_HERE
    if origin == "file" or declared in (None, "", "unknown"):
        return None
    return declared


def forbids_commercial_use(license: str | None) -> bool:
    """Say if a license is known to allow research or other non-commercial use alone (``cc-by-nc-4.0``)."""
    return license is not None and (license.lower() in _NAMED or _WORDS.search(license.lower()) is not None)


def non_commercial(licenses: Mapping[str, str | None], anchors: Iterable[str]) -> tuple[str, ...]:
    """Return those of the named anchors, each once, whose weights shut out commercial use; `licenses` is by anchor."""
    return tuple(name for name in dict.fromkeys(anchors) if forbids_commercial_use(licenses.get(name)))


def shown(license: str | None) -> str:
    """Return a license as reports and model cards say it."""
    if license is None:
        return "unknown"
    return f"{license} (non-commercial)" if forbids_commercial_use(license) else license


def license_warning(licenses: Mapping[str, str | None], anchors: Iterable[str]) -> str | None:
    """Warn of a network made of these anchors' weights where one shuts out commercial use; None where none does."""
    names = non_commercial(licenses, anchors)
    if not names:
        return None
    names_and_licenses = " and ".join(f"{name} ({licenses[name]})" for name in names)
    return f"NOT FOR COMMERCIAL USE: it holds weights of {names_and_licenses}."
