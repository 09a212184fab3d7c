"""The interface of rankers, which see every batch of features once and then score all stitch points."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from restnet_search.errors import ExtensionError
from restnet_search.graph.cut_points import CutPoint
from restnet_search.registry import RANKERS

__all__ = ["FeatureBatch", "PairScores", "Ranker", "RankerSetup", "build_ranker"]

PairScores = dict[tuple[str, str], NDArray[np.float64]]
"""Per (front, back) anchor names: a matrix (front cuts, back cuts), higher is better, NaN where nothing can be said."""


@dataclass(frozen=True)
class RankerSetup:
    """Facts that rankers know before the first image.

    Attributes:
        cut_points: Of every anchor, by name; at least two anchors.
        images: Number of images that :meth:`Ranker.update` will be shown; a ranker that learns is shown more.
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

    It is built with a :class:`RankerSetup` and, as keywords, the ``ranker.options`` of the space.

    ``update`` is called for every batch; ``end_pass`` when all images were seen, and then, only where ``passes`` is
    more than 1 because the sums of all pairs would not fit into memory at once, the images come again. A ranker that
    ``learns`` is shown val images after its last pass.
    """

    learns: ClassVar[bool] = False
    """True where something is trained: ``update`` is then shown all training images of the search, not
    ``ranker.images`` of them, and ``update_val`` the val images, on which what was trained is asked."""

    @property
    def passes(self) -> int:
        """Times that the images must be seen; 0 for a ranker that looks at none."""
        return 1

    @abstractmethod
    def update(self, batch: FeatureBatch) -> None:
        """Add one batch of training images: at least four, unless the ranker learns."""

    def update_val(self, batch: FeatureBatch) -> None:  # noqa: B027  (only a ranker that learns is shown any)
        """Add one batch of val images."""

    def end_pass(self) -> None:  # noqa: B027  (most rankers have nothing to do here)
        """Take note that all images of this pass were seen."""

    @abstractmethod
    def scores(self) -> PairScores:
        """Return the scores, after the last pass: every pair of the setup, a matrix of its numbers of cut points.

        Higher is better. What is a distance by nature is returned with its sign turned.
        """


def build_ranker(name: str, setup: RankerSetup, options: Mapping[str, Any] | None = None) -> Ranker:
    """Build the ranker of that name; one of an installed package must have been admitted before.

    Raises:
        ExtensionError: As ``RANKERS.get``, if it cannot be built with the options, or if it is no :class:`Ranker`.
    """
    build = RANKERS.get(name)
    try:
        ranker = build(setup, **(options or {}))
    except Exception as error:  # code of others may raise anything
        raise ExtensionError(
            f"The ranker {name!r} cannot be built with the options {dict(options or {})}: "
            f"{type(error).__name__}: {error}",
            hint="mend ranker.options in the space",
        ) from error
    if not isinstance(ranker, Ranker):
        raise ExtensionError(f"The ranker {name!r} is {ranker!r}.", expected="a subclass of Ranker")
    return ranker
