"""The choices that training makes by itself, where no search makes them."""

from __future__ import annotations

from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.space.schema import TrainingSpec

__all__ = ["control_choices"]


def control_choices(training: TrainingSpec) -> TrainingChoices:
    """Return the choices of controls: the middle of what the search may choose, and the first of what it lists."""
    (low, high), (fewest, most) = training.lr, training.epochs
    return TrainingChoices(
        lr=(low * high) ** 0.5,
        epochs=(fewest + most + 1) // 2,
        tune=training.tune[0],
        match_epochs=training.match_epochs[0],
        distill=training.distill[0],
        match_at=training.match_at[0],
    )
