"""Choices of a trial: what Optuna picks beside the stitch point. Imports nothing heavy, so that records can hold it."""

from __future__ import annotations

from dataclasses import dataclass

from restnet_search.plain.bounds import Figure, Fraction, Natural
from restnet_search.space.schema import MatchAt, Tune

__all__ = ["TrainingChoices"]


@dataclass(frozen=True)
class TrainingChoices:
    """Peak learning rate, epochs, and what is trained and followed in them.

    Attributes:
        lr: Peak learning rate of the stitch layer.
        epochs: Passes over the training images.
        tune: What is trained beside the stitch layer.
        match_epochs: Epochs before ``epochs``, in which the stitch layer learns the back anchor's own features.
        distill: Share of the loss that follows the larger anchor's logits, from 0 to 1, where the space's
            ``training.distill_backs`` lets it.
        match_at: Where those features are compared: at the stitch point, or at the back anchor's final ones.
    """

    lr: Figure
    epochs: Natural
    tune: Tune = "stitch"
    match_epochs: Natural = 0
    distill: Fraction = 0.0
    match_at: MatchAt = "stitch"
