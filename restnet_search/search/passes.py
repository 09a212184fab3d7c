"""One anchor's pass over the images of one split: what it computes, what its features take, what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from restnet_search.anchors import Anchor
from restnet_search.data import Split
from restnet_search.data.augmented_views import AugmentedView, images_of
from restnet_search.graph.anchor_graph import AnchorGraph

__all__ = ["PASS_BATCH", "CutAnchor", "Pass", "PassKey", "Reuse"]

PASS_BATCH = 250
"""Images per batch of a pass whose features are kept; always in order, so that kernels round the same every time."""

PassKey = tuple[str, str, AugmentedView | None]


@dataclass(frozen=True)
class CutAnchor:
    """An anchor with its trace and cut points."""

    anchor: Anchor
    graph: AnchorGraph


@dataclass
class Reuse:
    """What was asked of a store and what it cost.

    Attributes:
        used: Images whose features were handed out; without a store each would have been a forward through a front.
        forwarded: Images that went through a front (or a part of one), once for all cut points computed together.
        read: Files of features that an earlier process, or another one, had written.
    """

    used: int = 0
    forwarded: int = 0
    read: int = 0


@dataclass(frozen=True)
class Pass:
    """An anchor over a split's images, as they are or as an augmented view changes them."""

    name: str
    cut_anchor: CutAnchor
    split: Split
    augmented: AugmentedView | None
    reuse: Reuse

    @property
    def key(self) -> PassKey:
        return self.name, self.split.digest, self.augmented

    def shape(self, cut: int) -> tuple[int, ...]:
        """Of the features of all images: ``(n, ...)``."""
        return len(self.split), *self.cut_anchor.graph.cut_points[cut].shape

    def size(self, cut: int, width: int) -> int:
        """Bytes of the features of all images, ``width`` bytes each value."""
        return width * prod(self.shape(cut))

    def images(self, batch_size: int = PASS_BATCH, order: Tensor | None = None) -> Iterator[Tensor]:
        """The images, normalised, in order or as ``order`` says."""
        indices = torch.arange(len(self.split)) if order is None else order
        return images_of(self.split, self.cut_anchor.anchor.view, batch_size, indices, self.augmented)

    def run(
        self, cuts: Sequence[int], batches: Iterable[Tensor], start: int | None = None
    ) -> Iterator[tuple[Tensor, ...]]:
        """Features at the cut points for every batch of images, or of features at the cut point ``start``."""
        tap = self.cut_anchor.graph.between(start, cuts)
        for batch in batches:
            with torch.no_grad():  # not around the yield: it would leak into the caller
                features = tap(batch)
            self.reuse.forwarded += len(batch)
            yield (features,) if isinstance(features, Tensor) else features
