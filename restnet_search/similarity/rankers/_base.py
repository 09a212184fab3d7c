"""The interface of rankers: they see every batch of features once, then score all stitch points."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from restnet_search.graph.cut_points import CutPoint

__all__ = ["FeatureBatch", "PairScores", "Ranker", "RankerSetup"]

PairScores = dict[tuple[str, str], NDArray[np.float64]]
"""Per (front, back) anchor names: a matrix (front cuts, back cuts), higher is better, NaN where nothing can be said."""


@dataclass(frozen=True)
class RankerSetup:
    """What rankers know before the first image.

    Attributes:
        cut_points: Of every anchor, by name; at least two anchors.
        images: How many images will be seen.
        classes: Classes of the data.
        seed: For rankers that draw.
    """

    cut_points: Mapping[str, Sequence[CutPoint]]
    images: int
    classes: int
    seed: int

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All ordered (front, back) pairs of anchors."""
        return list(permutations(self.cut_points, 2))


@dataclass(frozen=True)
class FeatureBatch:
    """The same n images, in the same order, in every anchor, each preprocessed as it needs.

    Attributes:
        features: Per anchor and cut point ``(n, ...)``.
        logits: Per anchor ``(n, classes)``.
        labels: int64 ``(n,)``.
    """

    features: Mapping[str, Sequence[Tensor]]
    logits: Mapping[str, Tensor]
    labels: Tensor


class Ranker(ABC):
    """Scores the stitch points of every ordered pair of anchors from features streamed once.

    ``update`` is called for every batch; ``end_pass`` when all images were seen, and then, only where ``passes`` is
    more than 1 because the sums of all pairs would not fit into memory at once, the images come again.
    """

    @property
    def passes(self) -> int:
        """How often the images must be seen."""
        return 1

    @abstractmethod
    def update(self, batch: FeatureBatch) -> None:
        """Add one batch of at least four images."""

    def end_pass(self) -> None:  # noqa: B027  (most rankers have nothing to do here)
        """All images of this pass were seen."""

    @abstractmethod
    def scores(self) -> PairScores:
        """The scores, after the last pass."""
