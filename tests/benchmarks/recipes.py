"""Recipes: how benchmarks train a stitch layer, as keys of the sections ``stitch`` and ``training``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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


BEFORE, ALONE = "before", "alone"
_BY_BATCH: Mapping[str, Any] = {"batch_size": 50, "norms": "batch", "distill_backs": "larger"}
RECIPES: Mapping[str, Recipe] = {
    BEFORE: Recipe(lr=3e-3, distill=0.5),
    ALONE: Recipe(distill=0.5, training={**_BY_BATCH, "whiten": True}),
    "balanced": Recipe(tune="stitch+norm", distill=0.5, training={**_BY_BATCH, "whiten": True}),
    "best": Recipe(tune="hybrid", distill=0.5, training=_BY_BATCH),
}
"""What releases before there was an ``effort`` were measured with; the most that a stitch layer and batch-norm
statistics alone are given; and the levels of ``effort`` at the middle of what they search."""
