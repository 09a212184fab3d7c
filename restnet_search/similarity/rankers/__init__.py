"""What orders stitch points before any training: one file per ranker, by the name that a space gives it."""

from collections.abc import Callable, Mapping

from restnet_search.similarity.rankers._base import FeatureBatch, PairScores, Ranker, RankerSetup
from restnet_search.similarity.rankers._cka import CkaRanker
from restnet_search.similarity.rankers._kl import KlRanker
from restnet_search.similarity.rankers._lstsq import LstsqRanker
from restnet_search.similarity.rankers._random import RandomRanker

__all__ = [
    "RANKERS",
    "CkaRanker",
    "FeatureBatch",
    "KlRanker",
    "LstsqRanker",
    "PairScores",
    "RandomRanker",
    "Ranker",
    "RankerSetup",
]

RANKERS: Mapping[str, Callable[[RankerSetup], Ranker]] = {
    "cka": CkaRanker,
    "kl": KlRanker,
    "lstsq": LstsqRanker,
    "random": RandomRanker,
}
