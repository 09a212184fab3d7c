"""Images that splits have in common, and images that a split holds more than once, found by the hash of their bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from restnet_search.data.inventory import Duplicates, Overlap
from restnet_search.data.readers.sources import ImageSource
from restnet_search.data.unreadable import Examiner
from restnet_search.errors import DataError

__all__ = [
    "ImageDigests",
    "duplicates_sentence",
    "find_duplicates",
    "find_overlap",
    "overlap_sentence",
    "refuse_overlap",
]

MOST_SHARED = 0.01
"""Share of val or test that may also be in another split: what the published data sets themselves hold lies below."""


class ImageDigests:
    """Hashes of the images of one source, as far as they are known, by row."""

    def __init__(self, source: ImageSource, split: str) -> None:
        self.source, self.split = source, split
        self._known: dict[int, bytes | None] = {}

    def put(self, rows: np.ndarray, digests: Sequence[bytes | None]) -> None:
        """Keep the hashes of these rows, None for images without content."""
        self._known |= dict(zip(map(int, rows), digests, strict=True))

    def of(self, rows: np.ndarray, examiner: Examiner) -> list[bytes | None]:
        """Return the hashes of these rows; what is not known yet is read."""
        missing = np.array([row for row in map(int, rows) if row not in self._known], dtype=np.int64)
        if len(missing):
            looked = examiner.look(self.source, missing, self.split, decode=False)
            self.put(missing, [one.digest for one in looked])
        return [self._known[int(row)] for row in rows]

    def of_sizes(self, rows: np.ndarray, sizes: set[int], examiner: Examiner) -> dict[bytes, int]:
        """Return hash -> row of images of these sizes in bytes; one of unknown size counts if it was read before."""
        wanted = [row for row in map(int, rows) if self._may_be(row, sizes)]
        digests = self.of(np.array(wanted, dtype=np.int64), examiner)
        return {
            digest: row for digest, row in zip(reversed(digests), reversed(wanted), strict=True) if digest is not None
        }

    def _may_be(self, row: int, sizes: set[int]) -> bool:
        size = self.source.size(row)
        return row in self._known if size is None else size in sizes


def find_overlap(
    one: ImageDigests, rows: np.ndarray, two: ImageDigests, others: np.ndarray, examiner: Examiner
) -> Overlap | None:
    """Find the images of a split that are in an earlier one, too; only files of equal size are read for it.

    Args:
        one: Of the later split.
        rows: Its images that are used.
        two: Of the earlier split.
        others: All images of the earlier split, used or not: what trained an anchor may have seen them.
        examiner: Reads what is not known.
    """
    sizes = {size for row in rows if (size := one.source.size(int(row))) is not None}
    known = two.of_sizes(others, sizes, examiner)
    pairs = [
        (int(row), known[digest])
        for row, digest in zip(rows, one.of(rows, examiner), strict=True)
        if digest is not None and digest in known
    ]
    if not pairs:
        return None
    names = (one.source.classes, two.source.classes)
    relabelled = sum(names[0][one.source.labels[a]] != names[1][two.source.labels[b]] for a, b in pairs)
    first = (one.source.name(pairs[0][0]), two.source.name(pairs[0][1]))
    return Overlap(one.split, two.split, len(pairs), len(rows), relabelled, first)


def find_duplicates(digests: ImageDigests, rows: np.ndarray, examiner: Examiner) -> Duplicates | None:
    """Find the images of a split that repeat an earlier one."""
    first: dict[bytes, int] = {}
    pairs: list[tuple[int, int]] = []
    for row, digest in zip(map(int, rows), digests.of(rows, examiner), strict=True):
        if digest is not None and (before := first.setdefault(digest, row)) != row:
            pairs.append((row, before))
    if not pairs:
        return None
    labels, name = digests.source.labels, digests.source.name
    relabelled = sum(int(labels[a] != labels[b]) for a, b in pairs)
    return Duplicates(len(pairs), relabelled, (name(pairs[0][0]), name(pairs[0][1])))


def refuse_overlap(overlap: Overlap) -> None:
    """Refuse more than one image in a hundred.

    Raises:
        DataError: Names the share and a pair of files.
    """
    if overlap.share > MOST_SHARED:
        raise DataError(
            overlap_sentence(overlap),
            expected=f"at most {100 * MOST_SHARED:g} % of {overlap.split} in {overlap.other}: accuracy on images that"
            " were trained or decided on says little of new ones",
            hint="remove the copies from one of them, or set data.allow_overlap: true to go on all the same",
        )


def overlap_sentence(overlap: Overlap) -> str:
    """Say what two splits share: ``40 of 80 images of val (50 %) are also in train, byte for byte: ...``"""
    other = f" ({overlap.relabelled:,} of them under another class)" if overlap.relabelled else ""
    one, two = overlap.example
    are = "image" if overlap.count == 1 else "images"
    return (
        f"{overlap.count:,} of {overlap.images:,} images of {overlap.split} ({100 * overlap.share:.3g} %) are also in"
        f" {overlap.other}, byte for byte{other}: {one} is {two}"
        + (f", and {overlap.count - 1:,} more {are}." if overlap.count > 1 else ".")
    )


def duplicates_sentence(split: str, duplicates: Duplicates) -> str:
    """Say what a split holds more than once."""
    other = f", {duplicates.relabelled:,} of them under another class" if duplicates.relabelled else ""
    one, two = duplicates.example
    return (
        f"{duplicates.count:,} of the images of {split} repeat another one of it, byte for byte{other}: {one} is {two}."
    )
