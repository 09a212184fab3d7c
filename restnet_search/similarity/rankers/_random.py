"""Ranker ``random``: scores drawn from [0, 1), the control that every ranker must beat."""

from __future__ import annotations

import numpy as np

from restnet_search.similarity.rankers._base import FeatureBatch, PairScores, Ranker, RankerSetup

__all__ = ["RandomRanker"]


class RandomRanker(Ranker):
    """Depends on the seed and the numbers of cut points alone."""

    def __init__(self, setup: RankerSetup) -> None:
        self._setup = setup

    @property
    def passes(self) -> int:
        return 0

    def update(self, batch: FeatureBatch) -> None:
        """Look at nothing."""

    def scores(self) -> PairScores:
        cuts, generator = self._setup.cut_points, np.random.default_rng(self._setup.seed)
        return {
            (front, back): generator.random((len(cuts[front]), len(cuts[back]))) for front, back in self._setup.pairs
        }
