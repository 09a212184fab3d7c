"""Choices of a trial: what Optuna picks beside the stitch point."""

from __future__ import annotations

from dataclasses import dataclass

from restnet_search.space.schema import TrainingSpec, Tune

__all__ = ["TrainingChoices", "control_choices"]


@dataclass(frozen=True)
class TrainingChoices:
    """Peak learning rate, epochs, and what is trained and followed in them.

    Attributes:
        lr: Peak learning rate of the stitch layer.
        epochs: Passes over the training images.
        tune: What is trained beside the stitch layer.
        match_epochs: Epochs before ``epochs``, in which the stitch layer learns the back anchor's own features.
        distill: Share of the loss that follows the larger anchor's logits, from 0 to 1.
    """

    lr: float
    epochs: int
    tune: Tune = "stitch"
    match_epochs: int = 0
    distill: float = 0.0


def control_choices(training: TrainingSpec) -> TrainingChoices:
    """Return the choices of controls: the middle of what the search may choose, and the first of what it lists."""
    (low, high), (fewest, most) = training.lr, training.epochs
    return TrainingChoices(
        lr=(low * high) ** 0.5,
        epochs=(fewest + most + 1) // 2,
        tune=training.tune[0],
        match_epochs=training.match_epochs[0],
        distill=training.distill[0],
    )
