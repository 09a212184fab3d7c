"""Effort: how much a search spends on training a hybrid, as defaults for the keys that a space does not set itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

if TYPE_CHECKING:
    from restnet_search.space.sections.search_sections import RetrainSpec, TrainingSpec

__all__ = ["EFFORTS", "Effort", "EffortLevel", "own_keys", "with_effort"]

Effort = Literal["paper", "balanced", "best"]


@dataclass(frozen=True)
class EffortLevel:
    """One choice of ``effort``.

    Attributes:
        says: What it changes and what that costs, in one line.
        training: Defaults of the section ``training``.
        controls: Defaults of the section ``controls``.
        retrain: Defaults of the section ``retrain``.
    """

    says: str
    training: Mapping[str, Any] = field(default_factory=dict)
    controls: Mapping[str, Any] = field(default_factory=dict)
    retrain: Mapping[str, Any] = field(default_factory=dict)


_DISTILLED: Mapping[str, Any] = {"distilled": True}
_FOLLOWED: Mapping[str, Any] = {"distill": 0.5, "distill_backs": "larger"}
_BY_BATCH: Mapping[str, Any] = {"norms": "batch", "batch_size": 50, "lr": [3e-4, 2e-3]}

EFFORTS: Mapping[Effort, EffortLevel] = {
    "paper": EffortLevel("the stitch layer alone is trained, as in ReStNet; the least work"),
    "balanced": EffortLevel(
        "the back's norm layers are trained, too, by the statistics of each batch, and backs of the larger anchor "
        "follow its answers, about a tenth more work; the two best of each budget are then trained again with their "
        "fronts, each about six times a trial's work; a small anchor learns from the large one, to compare with",
        {"tune": "stitch+norm", **_BY_BATCH, "whiten": True, **_FOLLOWED},
        _DISTILLED,
        {"hybrids": 2, "epochs": 2},
    ),
    "best": EffortLevel(
        "all of the front and of the back is trained, too, for twice the epochs, about five times the work, and no two "
        "hybrids share weights; a small anchor learns from the large one, to compare with",
        {"tune": "hybrid", **_BY_BATCH, "epochs": [2, 4], **_FOLLOWED},
        _DISTILLED,
    ),
}
"""The choices of ``effort``; ``reports/training_choices.md`` has what their keys are worth. None sets the kind of
stitch layers: what a closed form of 3x3 ones costs grows with the square of the channels."""


def with_effort(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a space, not validated yet, in which the keys that it does not set are those of its effort.

    Under ``strategy: joint`` all is left as it is: what all hybrids share is trained as SN-Net does.
    """
    name, search = raw.get("effort", "balanced"), raw.get("search", {})
    level = next((level for known, level in EFFORTS.items() if known == name), None)
    if level is None or _keys_of(search).get("strategy") == "joint":
        return dict(raw)
    filled = dict(raw)
    for section, defaults in (
        ("training", level.training),
        ("controls", level.controls),
        ("retrain", level.retrain),
    ):
        own = raw.get(section, {})
        if defaults and isinstance(own, Mapping | BaseModel):  # what is no section is left for validation to refuse
            filled[section] = {**defaults, **_keys_of(own)}
    return filled


def own_keys(effort: Effort, training: TrainingSpec, retrain: RetrainSpec) -> tuple[str, ...]:
    """Return the keys of an effort that a space has set otherwise: ``training.epochs``."""
    level = EFFORTS[effort]
    return tuple(
        f"{section}.{key}"
        for section, spec, defaults in (("training", training, level.training), ("retrain", retrain, level.retrain))
        for key in defaults
        if getattr(spec, key) != getattr(spec.model_validate(defaults), key)
    )


def _keys_of(section: object) -> Mapping[str, Any]:
    """Return the keys that a section sets."""
    if isinstance(section, BaseModel):
        return section.model_dump(exclude_unset=True)
    return section if isinstance(section, Mapping) else {}
