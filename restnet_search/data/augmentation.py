"""Training images, changed a little in every epoch: by timm's transforms, or shifted where they are small."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import cast

import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torch.nn import functional as F

from restnet_search.data.preprocessing import Preprocessing
from restnet_search.data.splits import Split

__all__ = ["AugmentedImages", "ShiftedImages", "augmented"]

# Milder than timm's 0.08..1: fitting starts from trained features and is short.
_SCALE = (0.6, 1.0)
_SMALL = 64  # pixels of a side up to which crops are not resized: that blurs what few pixels there are
_SHIFT = 8  # the part of a side that small images are shifted by at most: 4 pixels of 32


def augmented(split: Split, preprocessing: Preprocessing, *, flip: bool = True) -> Callable[[Tensor], Tensor]:
    """Return changed images of a split as suits their size: rows ``(b,)`` to float32 ``(b, C, H, W)``, normalized.

    All chance comes from torch's global generator.
    """
    if max(preprocessing.size[1:]) <= _SMALL:
        return ShiftedImages(split, preprocessing, flip=flip)
    return AugmentedImages(split, preprocessing, flip=flip)


class ShiftedImages:
    """Shifts by up to an eighth of a side, the border filled with the mean color, and horizontal flips.

    So small images are trained on (He et al. 2015, arXiv 1512.03385, section 4.2). All chance comes from torch's global
    generator, and is the same for every preprocessing of one size.
    """

    def __init__(self, split: Split, preprocessing: Preprocessing, *, flip: bool = True) -> None:
        self._split, self._preprocessing, self._flip = split, preprocessing, flip

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the images at `rows`, changed and normalised: float32 ``(len(rows), C, H, W)``.

        Raises:
            DataError: If an image cannot be decoded; names its file.
        """
        images = self._split.images(self._preprocessing, rows)
        count, channels, height, width = images.shape
        margins = height // _SHIFT, width // _SHIFT
        top, left = (torch.randint(2 * margin + 1, (count, 1)) for margin in margins)
        mirrored = torch.rand(count, 1) < 0.5
        columns = torch.arange(width).expand(count, width)
        columns = torch.where(mirrored & self._flip, columns.flip(1), columns) + left
        lines = torch.arange(height) + top
        padded = F.pad(images, (margins[1], margins[1], margins[0], margins[0]))
        image, channel = torch.arange(count).view(-1, 1, 1, 1), torch.arange(channels).view(1, -1, 1, 1)
        return padded[image, channel, lines.view(count, 1, height, 1), columns.view(count, 1, 1, width)]


class AugmentedImages:
    """Random resized crops and horizontal flips of a split, as timm trains with.

    Images are decoded anew every time. All chance comes from torch's global generator, so that who keeps its state can
    go on from there; Python's `random`, which timm's crops draw from, is left as it was.
    """

    def __init__(self, split: Split, preprocessing: Preprocessing, *, flip: bool = True) -> None:
        self._split, self._preprocessing = split, preprocessing
        transform = create_transform(
            preprocessing.size,
            is_training=True,
            scale=_SCALE,
            hflip=0.5 if flip else 0.0,
            color_jitter=None,  # pyright: ignore[reportArgumentType]  timm takes None for none
            interpolation=preprocessing.interpolation,
            mean=preprocessing.mean,
            std=preprocessing.std,
            normalize=False,
        )
        self._transform = cast("Callable[[Image.Image], Tensor]", transform)

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the images at `rows`, changed and normalised: float32 ``(len(rows), C, H, W)``.

        Raises:
            DataError: If an image cannot be decoded; names its file.
        """
        before = random.getstate()
        random.seed(int(torch.randint(2**62, ())))
        try:
            pixels = torch.stack([self._transform(self._split.image(int(row))) for row in rows])
        finally:
            random.setstate(before)
        return self._preprocessing.normalize(pixels)
