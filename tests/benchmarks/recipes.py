"""Recipes: how benchmarks train a stitch layer, as keys of the sections ``stitch`` and ``training``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from restnet_search.search.training.choices import control_choices
from restnet_search.space.effort import EFFORTS, Effort
from restnet_search.space.sections.search_sections import TrainingSpec

if TYPE_CHECKING:
    from restnet_search.search.points.candidates import Candidate
    from tests.benchmarks.pairs import Pair

__all__ = ["ALONE", "BEFORE", "RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """One way to train; ``training`` are keys that all trials of a search share."""

    kind: str = "conv3x3"
    tune: str = "stitch+norm-stats"
    lr: float = 1e-3
    epochs: int = 1
    match_epochs: int = 0
    match_at: str = "stitch"
    distill: float = 0.0
    training: Mapping[str, Any] = field(default_factory=lambda: {"batch_size": 100})

    @property
    def passes(self) -> int:
        """Passes over the training images."""
        return max(1, self.epochs + self.match_epochs)

    def train(
        self, pair: Pair, candidate: Candidate, *, epochs: int | None = None, images: int | None = None
    ) -> dict[str, Any]:
        """Train one hybrid; ``epochs`` in place of the recipe's, ``images`` of all that the pair was opened with."""
        from restnet_search.search.run.training_choices import TrainingChoices

        choices = TrainingChoices(
            self.lr,
            self.epochs if epochs is None else epochs,
            self.tune,  # pyright: ignore[reportArgumentType]
            self.match_epochs,
            self.distill,
            self.match_at,  # pyright: ignore[reportArgumentType]
        )
        return pair.reach(candidate, self.kind, choices, images=images, **self.training)


_CHOSEN = ("tune", "lr", "epochs", "distill")


def _of_effort(effort: Effort, **changed: Any) -> Recipe:
    """A level of effort at the middle of what it searches, for one epoch; ``changed`` are keys of `Recipe`."""
    keys = EFFORTS[effort].training
    choices = control_choices(TrainingSpec.model_validate(keys))
    training = {key: value for key, value in keys.items() if key not in _CHOSEN}
    return Recipe(
        **{"tune": choices.tune, "lr": choices.lr, "distill": choices.distill, "training": training, **changed}
    )


BEFORE, ALONE = "before", "alone"
RECIPES: Mapping[str, Recipe] = {
    BEFORE: Recipe(lr=3e-3, distill=0.5),
    ALONE: _of_effort("balanced", tune="stitch+norm-stats"),
    "balanced": _of_effort("balanced"),
    "best": _of_effort("best"),
}
"""What releases before there was an ``effort`` were measured with; the most that a stitch layer and batch-norm
statistics alone are given; and the levels of ``effort``."""
