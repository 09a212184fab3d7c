"""One anchor's pass over the images of one split, and the count of what such passes cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor, nn

from restnet_search.compute import Compute
from restnet_search.data import Split
from restnet_search.data.augmented_views import AugmentedView, images_of
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.search.prepare.compiled import Compiled
from restnet_search.search.prepare.cut_anchor import CutAnchor
from restnet_search.search.run.records import CacheStatistics

__all__ = ["PASS_BATCH", "PASS_BYTES", "CacheMeter", "FeatureExtractors", "Pass", "PassKey", "pass_batch"]

PASS_BATCH = 250
"""Images per batch of a pass, at most."""

PASS_BYTES = 2**30
"""Bytes of a batch's features at all cut points together, at most, in float32; an image is a batch in any case."""


PassKey = tuple[str, str, AugmentedView | None]


def pass_batch(images: int, graph: AnchorGraph) -> int:
    """Return how many of so many images a pass of an anchor takes at once; see :attr:`Pass.batch`."""
    each = 4 * sum(prod(cut.shape) for cut in graph.cut_points)
    most = max(1, min(PASS_BATCH, PASS_BYTES // each))
    return math.ceil(images / math.ceil(images / most))


class CacheMeter:
    """A count of what a store hands out and what that costs; its passes, and stores made from it, add to the same."""

    def __init__(self) -> None:
        self.total = CacheStatistics(0, 0)

    def add(self, *, used: int = 0, forwarded: int = 0, read: int = 0) -> None:
        """Add to the total; the figures are those of :class:`CacheStatistics`."""
        total = self.total
        self.total = CacheStatistics(total.used + used, total.forwarded + forwarded, total.read + read)


@dataclass(frozen=True)
class FeatureExtractors:
    """Slices of anchors that give features at cut points, on the device; compiled ones are kept, for they are dear."""

    compute: Compute = field(default_factory=Compute)
    _compiled: dict[tuple[str, int | None, tuple[int, ...]], nn.Module] = field(default_factory=dict)

    def between(self, name: str, graph: AnchorGraph, start: int | None, cuts: Sequence[int]) -> nn.Module:
        """Return the slice of an anchor from the images (``start`` None) or a cut point to later cut points."""
        if not self.compute.compiled:
            return self.compute.place(graph.between(start, cuts))
        key = (name, start, tuple(cuts))
        if key not in self._compiled:
            placed = self.compute.place(graph.between(start, cuts))
            self._compiled[key] = Compiled(placed, f"the front of {name}")
        return self._compiled[key]


@dataclass(frozen=True)
class Pass:
    """An anchor over a split's images, as they are or as an augmented view changes them."""

    name: str
    cut_anchor: CutAnchor
    split: Split
    augmented: AugmentedView | None
    meter: CacheMeter
    extractors: FeatureExtractors = field(default_factory=FeatureExtractors)

    @property
    def compute(self) -> Compute:
        return self.extractors.compute

    @property
    def exact(self) -> bool:
        """True if the images score hybrids, and so go through in float32 always."""
        return self.split.name != "train"

    @property
    def key(self) -> PassKey:
        return self.name, self.split.digest, self.augmented

    def shape(self, cut: int) -> tuple[int, ...]:
        """Return the shape of the features of all images, ``(n, ...)``."""
        return len(self.split), *self.cut_anchor.graph.cut_points[cut].shape

    def size(self, cut: int, width: int) -> int:
        """Return the bytes of the features of all images, ``width`` bytes each value."""
        return width * prod(self.shape(cut))

    @property
    def batch(self) -> int:
        """Images per batch: the split in the fewest batches within ``PASS_BATCH`` and ``PASS_BYTES``, all of one size.

        Every batch that runs through a front has this size, whichever images it holds and in which order they come, so
        that kernels round the same and an image has the same features to the last bit wherever they are computed.
        """
        return pass_batch(len(self.split), self.cut_anchor.graph)

    def images(self, order: Tensor | None = None) -> Iterator[Tensor]:
        """Yield batches of the images, normalized, in order or as ``order`` says."""
        indices = torch.arange(len(self.split)) if order is None else order
        return images_of(self.split, self.cut_anchor.anchor.preprocessing, self.batch, indices, self.augmented)

    def run(
        self, cuts: Sequence[int], batches: Iterable[Tensor], start: int | None = None
    ) -> Iterator[tuple[Tensor, ...]]:
        """Yield features on the device at the cut points, per batch of images or of features at the cut ``start``.

        They are float32, whatever the type of the pass. A batch that is smaller than :attr:`batch` is filled up with
        zeros on its way.
        """
        tap = self.extractors.between(self.name, self.cut_anchor.graph, start, cuts)
        for batch in batches:
            count = len(batch)
            if missing := self.batch - count:
                batch = torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])])  # noqa: PLW2901
            features = self.compute.run(tap, batch, f"features of {self.name}", exact=self.exact)
            if start is None:
                self.meter.add(forwarded=count)
            yield tuple(one[:count] for one in ((features,) if isinstance(features, Tensor) else features))
