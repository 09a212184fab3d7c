"""Training images, changed a little in every epoch by timm's transforms."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import cast

import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from restnet_search.data.preprocessing import Preprocessing
from restnet_search.data.splits import Split

__all__ = ["AugmentedImages"]

# Milder than timm's 0.08..1: fitting starts from trained features and is short.
_SCALE = (0.6, 1.0)


class AugmentedImages:
    """Random resized crops and horizontal flips of a split, as timm trains with.

    Images are decoded anew every time. All chance comes from torch's global generator, so that who keeps its state can
    go on from there; Python's `random`, which timm's crops draw from, is left as it was.
    """

    def __init__(self, split: Split, preprocessing: Preprocessing) -> None:
        self._split, self._preprocessing = split, preprocessing
        transform = create_transform(
            preprocessing.size,
            is_training=True,
            scale=_SCALE,
            color_jitter=None,  # type: ignore[arg-type]  timm takes None for none
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
