"""Effort: how much a search spends on training a hybrid, as defaults for the keys that a space does not set itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

if TYPE_CHECKING:
    from restnet_search.space.schema import SearchSpace

__all__ = ["EFFORTS", "Effort", "EffortLevel", "own_keys", "with_effort"]

Effort = Literal["paper", "balanced", "best"]


@dataclass(frozen=True)
class EffortLevel:
    """One choice of ``effort``.

    Attributes:
        says: What it changes and what that costs, in one line.
        stitch: Defaults of the section ``stitch``.
        training: Defaults of the section ``training``.
    """

    says: str
    stitch: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


EFFORTS: Mapping[Effort, EffortLevel] = {
    "paper": EffortLevel("the stitch layer alone is trained, as in ReStNet; the cheapest"),
    "balanced": EffortLevel(
        "",
        stitch={},
        training={"tune": "stitch+norm-stats"},
    ),
    "best": EffortLevel(
        "",
        stitch={},
        training={"tune": "all"},
    ),
}
"""The choices of ``effort``; ``reports/training_choices.md`` has what each of their keys is worth."""


def with_effort(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a space, not validated yet, in which the keys that it does not set are those of its effort.

    Under ``strategy: joint`` all is left as it is: what all hybrids share is trained as SN-Net does.
    """
    filled = dict(raw)
    level = EFFORTS.get(raw.get("effort", "balanced"))
    search = _keys_of(raw.get("search", {}))
    if level is None or search is None or search.get("strategy") == "joint":
        return filled
    for name, defaults in (("stitch", level.stitch), ("training", level.training)):
        own = _keys_of(raw.get(name, {}))
        if own is not None and defaults:
            filled[name] = {**defaults, **own}
    return filled


def own_keys(space: SearchSpace) -> tuple[str, ...]:
    """Return the keys of a space's effort that the space has set otherwise: ``training.epochs``."""
    level = EFFORTS[space.effort]
    sections = {"stitch": (space.stitch, level.stitch), "training": (space.training, level.training)}
    return tuple(
        f"{name}.{key}"
        for name, (section, defaults) in sections.items()
        for key in defaults
        if getattr(section, key) != getattr(type(section)(**defaults), key)
    )


def _keys_of(section: object) -> dict[str, Any] | None:
    """Return the keys that a section sets; None where it is none, which validation says."""
    if isinstance(section, str):
        return {"kind": section}
    if isinstance(section, BaseModel):
        return section.model_dump(exclude_unset=True)
    return dict(section) if isinstance(section, Mapping) else None
