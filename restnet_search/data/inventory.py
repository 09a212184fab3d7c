"""Inventory of a data set: its splits and classes, and what of it is not used; for reports and checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from restnet_search.data.readers.file_kinds import SkippedFiles
from restnet_search.data.unreadable import Unreadable

__all__ = ["DataInventory", "Duplicates", "Overlap", "take_inventory"]


@dataclass(frozen=True)
class Overlap:
    """Images of one split whose bytes are also those of an image in an earlier split.

    Attributes:
        split: ``val`` or ``test``.
        other: The earlier split, ``train`` or ``val``.
        count: Images of `split` with a copy in `other`.
        images: Images of `split`.
        relabelled: Those of them whose copy is of another class.
        example: One such pair, the names in `split` and in `other`.
    """

    split: str
    other: str
    count: int
    images: int
    relabelled: int
    example: tuple[str, str]

    @property
    def share(self) -> float:
        """Fraction of the split."""
        return self.count / self.images


@dataclass(frozen=True)
class Duplicates:
    """Images of a split that repeat an earlier one of it, byte for byte; `relabelled` of them under another class."""

    count: int
    relabelled: int
    example: tuple[str, str]


@dataclass(frozen=True)
class DataInventory:
    """A data set as it is used.

    Attributes:
        classes: Names, in order: the place of each is its index in every anchor's answers.
        per_class: By split, the number of images that are used of every class, in that order.
        skipped: By split, files that are no images, by kind; a test that is cut from val has its files there.
        unreadable: By split, images that were left out.
        overlaps: Images that two splits have in common.
        duplicates: By split, images that it holds more than once.
    """

    classes: tuple[str, ...]
    per_class: Mapping[str, tuple[int, ...]]
    skipped: Mapping[str, tuple[SkippedFiles, ...]] = field(default_factory=dict)
    unreadable: Mapping[str, tuple[Unreadable, ...]] = field(default_factory=dict)
    overlaps: tuple[Overlap, ...] = ()
    duplicates: Mapping[str, Duplicates] = field(default_factory=dict)

    @property
    def images(self) -> dict[str, int]:
        """Number of images that are used, by split."""
        return {split: sum(counts) for split, counts in self.per_class.items()}

    @property
    def absent(self) -> dict[str, tuple[str, ...]]:
        """Classes without an image, by split; splits that have all are left out."""
        missing = {
            split: tuple(name for name, count in zip(self.classes, counts, strict=True) if count == 0)
            for split, counts in self.per_class.items()
        }
        return {split: names for split, names in missing.items() if names}

    def in_order(self, classes: tuple[str, ...]) -> DataInventory:
        """Return the same with the classes in another order."""
        places = [self.classes.index(name) for name in classes]
        counts = {split: tuple(of[place] for place in places) for split, of in self.per_class.items()}
        return replace(self, classes=classes, per_class=counts)


def take_inventory(classes: tuple[str, ...], labels: Mapping[str, np.ndarray]) -> DataInventory:
    """Count the images of every class; `labels` are those of every split, int ``(n,)``."""
    counts = {split: tuple(np.bincount(of, minlength=len(classes)).tolist()) for split, of in labels.items()}
    return DataInventory(classes, counts)
