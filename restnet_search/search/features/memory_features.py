"""Features kept in memory, in float32, least recently used dropped first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

from restnet_search.search.features.passes import Pass, PassKey

__all__ = ["MemoryFeatures"]

_WIDTH = 4  # bytes of a value


class MemoryFeatures:
    """A cache of at most ``capacity`` bytes of features, by pass and cut point.

    They are computed from the nearest earlier cut point that is kept, or else from the images.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._kept: OrderedDict[tuple[PassKey, int], Tensor] = OrderedDict()

    @property
    def used(self) -> int:
        """The bytes of all features that are kept."""
        return sum(tensor.nbytes for tensor in self._kept.values())

    def can_cache(self, work: Pass, cut: int) -> bool:
        """Return True if the features fit the capacity by themselves."""
        return work.size(cut, _WIDTH) <= self.capacity

    def can_cache_all(self, asks: Iterable[tuple[Pass, int]]) -> bool:
        """Return True if all these features fit the capacity together."""
        return sum(work.size(cut, _WIDTH) for work, cut in asks) <= self.capacity

    def get(self, work: Pass, cuts: Sequence[int], prefetch: Collection[int]) -> dict[int, Tensor]:
        """Return features at the cut points that fit, by cut point; one pass computes all that are missing.

        ``prefetch`` cut points on its way are computed, too, where the capacity leaves room for them; those beyond it
        begin where it ended, when they are asked.
        """
        asked = self._that_fit(work, cuts)
        missing = [cut for cut in asked if (work.key, cut) not in self._kept]
        if missing:
            self._make_room(sum(work.size(cut, _WIDTH) for cut in missing), {(work.key, cut) for cut in asked})
            self._compute(work, sorted([*missing, *self._extra(work, missing, prefetch)]))
        features: dict[int, Tensor] = {}
        for cut in asked:
            self._kept.move_to_end((work.key, cut))
            features[cut] = self._kept[work.key, cut]
        return features

    def note_read(self, sizes: Sequence[int], count: int, resident: int) -> None:
        """Do nothing: what is kept here is within the capacity."""

    def _that_fit(self, work: Pass, cuts: Sequence[int]) -> list[int]:
        """Return the cut points that the capacity holds beside each other, those that are kept already first."""
        chosen: list[int] = []
        room = self.capacity
        for cut in sorted(cuts, key=lambda cut: (work.key, cut) not in self._kept):
            if work.size(cut, _WIDTH) <= room:
                chosen.append(cut)
                room -= work.size(cut, _WIDTH)
        return chosen

    def _make_room(self, length: int, asked: set[tuple[PassKey, int]]) -> None:
        """Drop what was used longest ago, and is not asked for now, until so many more bytes fit: before they come."""
        for key in [key for key in self._kept if key not in asked]:
            if self.used + length <= self.capacity:
                return
            del self._kept[key]

    def _extra(self, work: Pass, missing: Sequence[int], prefetch: Collection[int]) -> list[int]:
        room = self.capacity - self.used - sum(work.size(cut, _WIDTH) for cut in missing)
        chosen: list[int] = []
        deepest = max(missing)
        for cut in sorted(cut for cut in prefetch if cut < deepest):
            size = work.size(cut, _WIDTH)
            if size <= room and cut not in missing and (work.key, cut) not in self._kept:
                chosen.append(cut)
                room -= size
        return chosen

    def _compute(self, work: Pass, cuts: Sequence[int]) -> None:
        earlier = [cut for key, cut in self._kept if key == work.key and cut < cuts[0]]
        start = max(earlier, default=None)
        batches = work.images() if start is None else self._kept[work.key, start].split(work.batch)
        results = {cut: torch.empty(work.shape(cut)) for cut in cuts}
        position = 0
        for features in work.run(cuts, batches, start):
            for cut, values in zip(cuts, features, strict=True):
                results[cut][position : position + len(values)].copy_(values)
            position += len(features[0])
        self._kept.update(((work.key, cut), values) for cut, values in results.items())
