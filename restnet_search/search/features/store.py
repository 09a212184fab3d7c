"""Features of frozen fronts, computed once for all who need them: kept in memory, on disk, or passed through."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from restnet_search.compute import Compute
from restnet_search.data import Split
from restnet_search.data.augmented_views import AugmentedView, images_of
from restnet_search.search.features.disk_features import CannotKeepError, DiskFeatures
from restnet_search.search.features.disk_store import DiskStore
from restnet_search.search.features.memory_features import MemoryFeatures
from restnet_search.search.features.passes import CacheMeter, FeatureExtractors, Pass
from restnet_search.search.prepare.cut_anchor import CutAnchor
from restnet_search.search.run.records import CacheStatistics

__all__ = ["FeatureStore", "StoreRecipe"]

_log = logging.getLogger("restnet_search")


class FeatureStore:
    """A store of features at cut points, per split and augmented view.

    They are kept in memory in float32 or, given ``disk``, in files, in those files' types; either is bounded, least
    recently used dropped first. What is larger than the bound alone is not kept: it is computed whenever it is asked.
    One pass over an anchor computes all cut points that are asked together, and those of ``prefetch`` that there
    is room for.

    Args:
        anchors: By name.
        capacity: Bytes in memory, of mapped files, too.
        disk: Features on disk, instead of in memory; where they cannot be written, memory takes over.
        prefetch: Cut points that will be asked for, by (anchor's name, digest of the split).
        warn: Takes the one message that the disk cannot be written.
        compute: Where anchors run; features that are kept lie on the CPU, those handed out on its device.
    """

    def __init__(
        self,
        anchors: Mapping[str, CutAnchor],
        capacity: int,
        *,
        disk: DiskFeatures | None = None,
        prefetch: Mapping[tuple[str, str], Collection[int]] | None = None,
        warn: Callable[[str], None] = _log.warning,
        compute: Compute | None = None,
    ) -> None:
        self._extractors = FeatureExtractors(compute or Compute())
        self._anchors, self._prefetch, self._warn = anchors, prefetch or {}, warn
        self._level: MemoryFeatures | DiskFeatures = disk or MemoryFeatures(capacity)
        self._capacity = capacity
        self.meter = CacheMeter()

    @property
    def anchors(self) -> Mapping[str, CutAnchor]:
        """The anchors whose features it keeps, by name."""
        return self._anchors

    @property
    def compute(self) -> Compute:
        return self._extractors.compute

    @property
    def statistics(self) -> CacheStatistics:
        """The features handed out so far, and the passes that they cost."""
        return self.meter.total

    def batches(
        self,
        name: str,
        cut: int,
        split: Split,
        batch_size: int,
        indices: Tensor | None = None,
        augmented: AugmentedView | None = None,
    ) -> Iterator[Tensor]:
        """Yield features ``(b, ...)`` of an anchor at a cut point, for a split's images in order or as ``indices`` say.

        They lie on the device of ``compute``, in float32.
        """
        for (features,) in self.batches_at(name, [cut], split, batch_size, indices, augmented):
            yield features

    def batches_at(
        self,
        name: str,
        cuts: Sequence[int],
        split: Split,
        batch_size: int,
        indices: Tensor | None = None,
        augmented: AugmentedView | None = None,
    ) -> Iterator[tuple[Tensor, ...]]:
        """Yield features at several cut points of one anchor, float32 ``(b, ...)`` each, in the order of ``cuts``.

        What is not kept comes from one pass over the images, for all cut points that need it.
        """
        work = self._pass(name, split, augmented)
        kept = self._get(work, sorted(set(cuts)))
        order = torch.arange(len(split)) if indices is None else indices
        passing = [cut for cut in sorted(set(cuts)) if cut not in kept]
        fresh = _in_batches(work.run(passing, work.images(order)), batch_size) if passing else None
        for chunk in order.split(batch_size):
            features = {cut: self.compute.gather(tensor, chunk).float() for cut, tensor in kept.items()}
            self._level.note_read([tensor[0].nbytes for tensor in kept.values()], len(chunk), self._capacity)
            if fresh is not None:
                features |= zip(passing, next(fresh), strict=True)
            self.meter.add(used=len(cuts) * len(chunk))
            yield tuple(features[cut] for cut in cuts)

    def images(
        self,
        name: str,
        split: Split,
        batch_size: int,
        indices: Tensor | None = None,
        augmented: AugmentedView | None = None,
    ) -> Iterator[Tensor]:
        """Yield images ``(b, C, H, W)`` as an anchor sees them, on the device, in order or as ``indices`` say."""
        order = torch.arange(len(split)) if indices is None else indices
        preprocessing = self._anchors[name].anchor.preprocessing
        for batch in images_of(split, preprocessing, batch_size, order, augmented):
            yield self.compute.to_device(batch)

    @property
    def shared(self) -> bool:
        """True if other processes may read what is kept, for it lies on disk."""
        return isinstance(self._level, DiskFeatures)

    def recipe(self) -> StoreRecipe:
        """Return a recipe by which another process opens such a store, over the same files if there are any."""
        if isinstance(self._level, MemoryFeatures):
            return StoreRecipe(self._capacity, self._prefetch)
        level = self._level
        return StoreRecipe(
            self._capacity, self._prefetch, level.store.folder, level.store.bound, level.dtype, level.contents
        )

    def fill(self, name: str, cuts: Sequence[int], split: Split, augmented: AugmentedView | None = None) -> None:
        """Keep features at cut points as far as they can be kept: one pass computes all that are missing."""
        self._get(self._pass(name, split, augmented), sorted(set(cuts)))

    def can_cache(self, name: str, cut: int, split: Split) -> bool:
        """Return True if features at this cut point can be kept; else every ask for them is a pass over the images."""
        return self._level.can_cache(self._pass(name, split, None), cut)

    def can_cache_all(self, asks: Iterable[tuple[str, int, Split, AugmentedView | None]]) -> bool:
        """Return True if features at all these cut points can be kept beside each other."""
        return self._level.can_cache_all([(self._pass(name, split, view), cut) for name, cut, split, view in asks])

    def uncached(self) -> FeatureStore:
        """Return a store of the same anchors that keeps nothing: every ask is a pass over the images that it names."""
        store = FeatureStore(self._anchors, 0)
        store.meter, store._extractors = self.meter, self._extractors
        return store

    def _pass(self, name: str, split: Split, view: AugmentedView | None) -> Pass:
        return Pass(name, self._anchors[name], split, view, self.meter, self._extractors)

    def _get(self, work: Pass, cuts: Sequence[int]) -> dict[int, Tensor]:
        prefetch = self._prefetch.get((work.name, work.split.digest), ())
        try:
            return self._level.get(work, cuts, prefetch)
        except CannotKeepError as error:
            self._warn(f"Features cannot be kept on disk: {error}. The search goes on without the cache there.")
            self._level = MemoryFeatures(self._capacity)
            return self._level.get(work, cuts, prefetch)


def _in_batches(parts: Iterable[tuple[Tensor, ...]], size: int) -> Iterator[tuple[Tensor, ...]]:
    """Cut what a pass yields into batches of another size, each in memory of its own, as rows gathered from a store."""
    left: tuple[Tensor, ...] = ()
    for part in parts:
        rows = tuple(map(torch.cat, zip(left, part, strict=True))) if left else part
        whole = len(rows[0]) // size * size
        for start in range(0, whole, size):
            yield tuple(one[start : start + size].clone(memory_format=torch.contiguous_format) for one in rows)
        left = tuple(one[whole:] for one in rows) if whole < len(rows[0]) else ()
    if left:
        yield tuple(one.clone(memory_format=torch.contiguous_format) for one in left)


@dataclass(frozen=True)
class StoreRecipe:
    """A store to open in another process; the anchors are that process's own.

    ``folder`` is None where features stay in memory; ``contents`` are digests that need not be computed again.
    """

    capacity: int
    prefetch: Mapping[tuple[str, str], Collection[int]]
    folder: Path | None = None
    bound: int = 0
    dtype: str = "float32"
    contents: Mapping[str, str] = field(default_factory=dict)

    def open(
        self, anchors: Mapping[str, CutAnchor], warn: Callable[[str], None], compute: Compute | None = None
    ) -> FeatureStore:
        """Open the store; arguments as for :class:`FeatureStore`."""
        disk = DiskFeatures(DiskStore(self.folder, self.bound), self.dtype, self.contents) if self.folder else None
        return FeatureStore(anchors, self.capacity, disk=disk, prefetch=self.prefetch, warn=warn, compute=compute)
