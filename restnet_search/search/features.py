"""Features of frozen fronts, computed once and kept while memory allows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from restnet_search.anchors import Anchor
from restnet_search.data import Split
from restnet_search.graph.anchor_graph import AnchorGraph

if TYPE_CHECKING:
    from torch import nn

__all__ = ["CutAnchor", "FeatureStore"]

_BATCH = 250


@dataclass(frozen=True)
class CutAnchor:
    """An anchor with its trace and cut points."""

    anchor: Anchor
    graph: AnchorGraph


class FeatureStore:
    """Features at cut points per split, in float32, least recently used dropped first beyond ``capacity`` bytes.

    Features at a cut point are computed from the nearest earlier cut point of the same anchor that is kept, or else
    from the images. What is larger than the capacity alone is never kept: it is computed whenever it is asked.
    """

    def __init__(self, anchors: Mapping[str, CutAnchor], capacity: int) -> None:
        self._anchors, self._capacity = anchors, capacity
        self._kept: OrderedDict[tuple[str, int, str], Tensor] = OrderedDict()

    def batches(
        self, name: str, cut: int, split: Split, batch_size: int, indices: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Features ``(b, ...)`` of an anchor at a cut point, for a split's images in order or as ``indices`` say."""
        kept = self._get(name, cut, split)
        order = torch.arange(len(split)) if indices is None else indices
        if kept is not None:
            for chunk in order.split(batch_size):
                yield kept[chunk]
            return
        front = self._anchors[name].graph.front(cut)
        view = self._anchors[name].anchor.view
        for images in split.batches(view, batch_size, order):
            with torch.no_grad():  # not around the yield: it would leak into the caller
                features = front(images)
            yield features

    def _get(self, name: str, cut: int, split: Split) -> Tensor | None:
        key = (name, cut, split.digest)
        if key not in self._kept:
            size = 4 * len(split) * prod(self._anchors[name].graph.cut_points[cut].shape)
            if size > self._capacity:
                return None
            self._kept[key] = self._compute(name, cut, split)
            self._evict()
        self._kept.move_to_end(key)
        return self._kept[key]

    def _compute(self, name: str, cut: int, split: Split) -> Tensor:
        graph = self._anchors[name].graph
        earlier = [kept for (anchor, kept, data) in self._kept if (anchor, data) == (name, split.digest) and kept < cut]
        start = max(earlier, default=None)
        segment = graph.between(start, [cut])
        if start is None:
            batches: Iterator[Tensor] = split.batches(self._anchors[name].anchor.view, _BATCH)
        else:
            batches = iter(self._kept[name, start, split.digest].split(_BATCH))
        return run_batched(segment, batches, len(split), graph.cut_points[cut].shape)

    def _evict(self) -> None:
        while sum(tensor.nbytes for tensor in self._kept.values()) > self._capacity and len(self._kept) > 1:
            self._kept.popitem(last=False)


def run_batched(module: nn.Module, batches: Iterator[Tensor], count: int, shape: tuple[int, ...]) -> Tensor:
    """Run a module without gradients over batches into one tensor ``(count, *shape)``."""
    result = torch.empty(count, *shape)
    position = 0
    with torch.no_grad():
        for batch in batches:
            result[position : position + len(batch)] = module(batch)
            position += len(batch)
    return result
