"""Ranker ``width``: prefers stitch points whose sides have like numbers of channels."""

from __future__ import annotations

import numpy as np

from restnet_search.similarity.rankers import FeatureBatch, PairScores, Ranker, RankerSetup


class WidthRanker(Ranker):
    """Minus the distance of the logarithms of both widths, to a power."""

    def __init__(self, setup: RankerSetup, power: float = 1.0) -> None:
        self._setup, self._power = setup, power

    @property
    def passes(self) -> int:
        return 0

    def update(self, batch: FeatureBatch) -> None:
        """Look at nothing."""

    def scores(self) -> PairScores:
        widths = {
            name: np.log([max(1, cut.layout.channels) for cut in cuts]) for name, cuts in self._setup.cut_points.items()
        }
        return {
            (front, back): -(np.abs(widths[front][:, None] - widths[back][None, :]) ** self._power)
            for front, back in self._setup.pairs
        }
