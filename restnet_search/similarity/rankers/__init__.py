"""Rankers, which order stitch points before any training: one file each.

A new one is a subclass of :class:`Ranker`, named in ``RANKERS`` of :mod:`restnet_search.registry`.
"""

from restnet_search.similarity.rankers._base import FeatureBatch, PairScores, Ranker, RankerSetup, build_ranker
from restnet_search.similarity.rankers._cka import CkaRanker
from restnet_search.similarity.rankers._kl import KlRanker
from restnet_search.similarity.rankers._lstsq import LstsqRanker
from restnet_search.similarity.rankers._random import RandomRanker

__all__ = [
    "CkaRanker",
    "FeatureBatch",
    "KlRanker",
    "LstsqRanker",
    "PairScores",
    "RandomRanker",
    "Ranker",
    "RankerSetup",
    "build_ranker",
]
