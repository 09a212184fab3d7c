"""Preprocessing of a model: from an image to its input by size, resampling, crop and normalisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn

from restnet_search.errors import DataError

__all__ = ["Geometry", "Preprocessing", "preprocessing_of"]

Geometry = tuple[object, ...]


@dataclass(frozen=True)
class Preprocessing:
    """The steps from an image to an anchor's input, as timm evaluates with.

    Attributes:
        size: ``(C, H, W)`` of the model's input; C is 3, images are converted to RGB.
        mean, std: Per channel, of pixels scaled to 0..1.
        interpolation: ``bicubic``, ``bilinear``, ... as timm names them.
        crop_pct: Side of the crop over the side that the image is resized to.
        crop_mode: ``center``, ``squash`` or ``border`` (timm's names).
    """

    size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str

    @property
    def geometry(self) -> Geometry:
        """Return what decides the uint8 pixels: preprocessings that differ only in mean and std share it.

        The ``border`` crop pads with the mean colour, so there the mean belongs to it.
        """
        shared = (self.size, self.interpolation, self.crop_pct, self.crop_mode)
        return (*shared, self.mean) if self.crop_mode == "border" else shared

    def pixels_transform(self) -> Callable[[Image.Image], Tensor]:
        """Return timm's evaluation transform up to, not including, normalisation: RGB image -> uint8 ``(3, H, W)``."""
        transform = create_transform(
            self.size,
            is_training=False,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            normalize=False,
        )
        return cast("Callable[[Image.Image], Tensor]", transform)  # what timm gives for evaluation

    def normalize(self, pixels: Tensor) -> Tensor:
        """Map uint8 pixels ``(B, C, H, W)`` to float32 images, with the operations of torchvision's Normalize."""
        mean = torch.tensor(self.mean, device=pixels.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(-1, 1, 1)
        return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)

    def pixels(self, images: Tensor) -> Tensor:
        """Return the uint8 pixels that :meth:`normalize` made these images of; its exact inverse."""
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        return images.mul(std).add_(mean).mul_(255).round_().clamp_(0, 255).to(torch.uint8)


def preprocessing_of(model: nn.Module) -> Preprocessing:
    """Read the preprocessing from the model's ``pretrained_cfg``, as timm resolves it for evaluation.

    A model without one may say ``input_size = (3, H, W)``; else it sees 224 x 224 with ImageNet's mean and std.

    Raises:
        DataError: If the input size is no ``(3, H, W)``.
    """
    args = {}
    declared = getattr(model, "input_size", None)
    if not getattr(model, "pretrained_cfg", None) and declared is not None:
        if not isinstance(declared, tuple | list) or len(declared) != 3:
            raise DataError(f"The model's input_size is {declared!r}.", expected="input_size = (3, height, width)")
        args["input_size"] = tuple(declared)
    config = resolve_model_data_config(model, args=args)
    size = tuple(int(side) for side in config["input_size"])
    if len(size) != 3 or size[0] != 3 or min(size) < 1:
        raise DataError(
            f"{type(model).__name__} sees inputs of size {size}.", expected="RGB images, (3, height, width)"
        )
    return Preprocessing(
        size=size,
        mean=tuple(float(value) for value in config["mean"]),
        std=tuple(float(value) for value in config["std"]),
        interpolation=str(config["interpolation"]),
        crop_pct=float(config["crop_pct"]),
        crop_mode=str(config["crop_mode"]),
    )
