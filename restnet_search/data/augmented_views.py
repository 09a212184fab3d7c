"""A fixed number of augmented views of a split, the same in every pass, so that features of them can be kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from restnet_search.data.augmentation import AugmentedImages
from restnet_search.data.preprocessing import Preprocessing
from restnet_search.data.splits import Split

__all__ = ["AugmentedView", "images_of"]


@dataclass(frozen=True)
class AugmentedView:
    """One changed copy of every image of a split: ``index`` >= 1 numbers the copies, ``seed`` is the search's.

    What happens to an image depends on the seed, the copy's number and the image's place in the split alone.
    """

    index: int
    seed: int

    def batches(self, split: Split, preprocessing: Preprocessing, batch_size: int, indices: Tensor) -> Iterator[Tensor]:
        """Yield the changed images in the order of ``indices``, normalised: float32 ``(B, C, H, W)``.

        Raises:
            DataError: If an image cannot be decoded; names its file.
        """
        images = AugmentedImages(split, preprocessing)
        for chunk in indices.split(batch_size):
            with torch.random.fork_rng(devices=[]):  # not around the yield: it would leak into the caller
                changed = torch.cat([self._image(images, int(row)) for row in chunk])
            yield changed

    def _image(self, images: AugmentedImages, row: int) -> Tensor:
        digest = hashlib.sha256(f"{self.seed} {self.index} {row}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:7], "little"))
        return images(torch.tensor([row]))


def images_of(
    split: Split, preprocessing: Preprocessing, batch_size: int, indices: Tensor, augmented: AugmentedView | None
) -> Iterator[Tensor]:
    """Yield a split's images in the order of ``indices``, normalised, as they are or changed by an augmented view."""
    if augmented is None:
        return split.batches(preprocessing, batch_size, indices)
    return augmented.batches(split, preprocessing, batch_size, indices)
