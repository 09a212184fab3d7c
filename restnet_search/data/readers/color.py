"""Any image to RGB, as pre-trained models were fed, with the depths that Pillow would clip brought to eight bits."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["to_rgb"]


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image in RGB.

    Grey is repeated, palettes are looked up, CMYK is converted, transparency is dropped (timm and torchvision do so,
    too). 16-bit grey is scaled to eight bits: Pillow alone would clip all but its darkest values to white.

    Raises:
        ValueError: If the pixels are 32-bit integers above 65,535 or below 0, or floats: nobody knows their white.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        image = _eight_bits(image)
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # else Pillow warns
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65_535:
        kind = "floats" if image.mode == "F" else "32-bit integers"
        raise ValueError(f"its pixels are {kind}, and what is white is not known; save it with 8 or 16 bits")
    return Image.fromarray(((values.astype(np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8))
