"""Predictions of a network for the images of a split: whether each is right, and how sure the network is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from restnet_search.plain.answers import Answers

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Predictions"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """A network's first classes for the images of a split, in its order.

    Attributes:
        images: Digest of the split: equal for the same images in the same order.
        correct: bool ``(n,)``, whether the first class is the label.
        confidence: float64 ``(n,)``, the largest softmax probability.
    """

    images: str
    correct: np.ndarray
    confidence: np.ndarray

    def __len__(self) -> int:
        return len(self.correct)

    @property
    def answers(self) -> Answers:
        """The images that are right, without how sure the network is."""
        return Answers.of(self.correct.tolist(), self.images)
