"""Ranker ``cka``: minibatch CKA of front and back features, as :mod:`restnet_search.similarity.cka` explains it."""

from __future__ import annotations

from itertools import accumulate

from restnet_search.similarity.cka import MinibatchCKA
from restnet_search.similarity.rankers._base import FeatureBatch, PairScores, Ranker, RankerSetup

__all__ = ["CkaRanker"]


class CkaRanker(Ranker):
    """All cut points of all anchors against each other, each Gram matrix computed once."""

    def __init__(self, setup: RankerSetup) -> None:
        self._setup, self._meter = setup, MinibatchCKA()

    def update(self, batch: FeatureBatch) -> None:
        first, *others = self._setup.cut_points
        self._meter.update(batch.features[first], [layer for name in others for layer in batch.features[name]])

    def scores(self) -> PairScores:
        everything = self._meter.full_matrix().numpy()
        counts = {name: len(cuts) for name, cuts in self._setup.cut_points.items()}
        ends = accumulate(counts.values())
        rows = {name: slice(end - count, end) for (name, count), end in zip(counts.items(), ends, strict=True)}
        return {(front, back): everything[rows[front], rows[back]] for front, back in self._setup.pairs}
