"""The images that a network classified correctly, as a bitmap: any two networks can be compared image by image."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from restnet_search.plain.bounds import Natural

__all__ = ["Answers", "PairedCounts", "paired_counts"]


@dataclass(frozen=True)
class Answers:
    """The images of a split that a network classified correctly.

    Attributes:
        images: Digest of the split: equal for the same images in the same order.
        n: Number of its images.
        correct: Number of those that were classified correctly.
        bits: Base64 of one bit per image in the order of the split, 1 where it was classified correctly; the first
            image has the highest bit of the first byte, and the last byte is filled up with zeros.
    """

    images: str
    n: Natural
    correct: Natural
    bits: str

    @classmethod
    def of(cls, correct: Sequence[bool], images: str) -> Answers:
        """Pack one truth value per image, in the order of the split whose digest is ``images``."""
        import numpy as np

        flags = np.asarray(correct, dtype=bool)
        return cls(images, len(flags), int(flags.sum()), base64.b64encode(np.packbits(flags).tobytes()).decode("ascii"))

    def contradiction(self) -> str | None:
        """Return what is wrong with the bits in words; None where they hold ``correct`` ones among ``n`` images."""
        try:
            packed = base64.b64decode(self.bits, validate=True)
        except (ValueError, binascii.Error):
            return "they are no base64"
        if len(packed) != (self.n + 7) // 8 or int.from_bytes(packed) % (1 << -self.n % 8):
            return f"they are not those of {self.n:,} images"
        ones = self._as_number().bit_count()
        return None if ones == self.correct else f"{ones:,} of them are 1, not {self.correct:,}"

    def _as_number(self) -> int:
        return int.from_bytes(base64.b64decode(self.bits))


@dataclass(frozen=True)
class PairedCounts:
    """Images by which of two networks classified them correctly: both, only one of them, or neither."""

    both: Natural
    only_first: Natural
    only_second: Natural
    neither: Natural

    @property
    def n(self) -> int:
        """All images."""
        return self.both + self.only_first + self.only_second + self.neither


def paired_counts(first: Answers, second: Answers) -> PairedCounts | None:
    """Compare two networks image by image; None where their answers are to other images, or in another order."""
    if (first.images, first.n) != (second.images, second.n):
        return None
    both = (first._as_number() & second._as_number()).bit_count()
    only_first, only_second = first.correct - both, second.correct - both
    return PairedCounts(both, only_first, only_second, first.n - both - only_first - only_second)
