"""Rivals of the picks: what the same images, or as many MACs on average, come to without a stitch layer.

Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from restnet_search.plain.bounds import Figure, Fraction, Natural, Seconds
from restnet_search.search.run.records import AnchorRecord, Cost, FinalScore, Score

__all__ = ["DISTILLED", "Cascade", "Distillation", "Distilled", "Rivals"]

DISTILLED = "d000"
"""Id of the distilled anchor, by which exports call it."""


@dataclass(frozen=True)
class Cascade:
    """Two anchors, one behind the other: the small one answers where it is sure, the large one sees the other images.

    An image is left to the large anchor where the largest softmax probability of the small one is below the threshold.
    The threshold is the one with the best accuracy on val whose MACs, on average over val, are within the limit.

    Attributes:
        budget: Name of the device budget beside whose pick it stands.
        at: Whose MACs are the limit: the ``pick``'s, or the ``budget``'s own.
        limit: MACs that it may take on average over val.
        small: The anchor that sees every image.
        large: The anchor that sees those that are left to it.
        threshold: Between 0 and 1.
        deferred: By split, the fraction of images that are left to the large anchor.
        mean_macs: By split, MACs for one image on average.
        cost: MACs of an image that both anchors see, the most that one can take; parameters of both.
        val: Accuracy on val, by which the threshold was chosen.
        test: Accuracy on test.
    """

    budget: str
    at: Literal["pick", "budget"]
    limit: Natural
    small: str
    large: str
    threshold: Fraction
    deferred: Mapping[str, Fraction]
    mean_macs: Mapping[str, Figure]
    cost: Cost
    val: Score
    test: FinalScore

    @property
    def id(self) -> str:
        """The name by which comparisons of its budget call it."""
        return f"cascade at the {self.at}'s MACs"


@dataclass(frozen=True)
class Distillation:
    """The plan of a distilled control.

    Attributes:
        small: Name of the anchor that is trained, all of it.
        large: Name of the anchor whose logits it follows.
        images: Distinct training images.
        epochs: Passes over them; the one that is the most accurate on val is kept.
        wanted: Images, each as often as it is seen, that these come as near to as whole epochs can: as many as the
            search saw, or the limit that the space sets.
    """

    small: str
    large: str
    images: Natural
    epochs: Natural
    wanted: Natural

    @property
    def images_seen(self) -> int:
        """Training images over all epochs, each as often as it is seen."""
        return self.images * self.epochs


@dataclass(frozen=True)
class Distilled:
    """The control that spends the search's images on a small anchor: all of it is trained to follow a large one.

    Attributes:
        network: The small anchor after it, under an id of its own.
        plan: What it was trained on.
        seconds: Wall time of its training.
        sha256: Of the file with its weights.
    """

    network: AnchorRecord
    plan: Distillation
    seconds: Seconds
    sha256: str


@dataclass(frozen=True)
class Rivals:
    """All rivals of a search: cascades by budget, and the distilled anchor where one was trained."""

    cascades: tuple[Cascade, ...] = ()
    distilled: Distilled | None = None

    def cascades_beside(self, budget: str) -> tuple[Cascade, ...]:
        """Return the cascades that stand beside a budget's pick."""
        return tuple(cascade for cascade in self.cascades if cascade.budget == budget)
