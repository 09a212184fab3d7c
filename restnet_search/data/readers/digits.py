"""The embedded data set: digits, shifted and with noise.

scikit-learn's copy of the UCI "Optical Recognition of Handwritten Digits" test set (1,797 grey 8 x 8 images, no
download), made harder on purpose so that small networks differ: each digit is enlarged to 22..28 pixels, put at a
random place on a 32 x 32 canvas, and covered with Gaussian noise. All of it comes from one fixed seed, so every
machine sees the same images.

Train holds `TRAIN_VARIANTS` such images of each of its digits; val and test hold one of each, so that their images
are independent and intervals of accuracy stay honest. No digit is in two splits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from restnet_search.data.readers.sources import ArraySource
from restnet_search.data.sampling import stratified_sample
from restnet_search.errors import DataError

__all__ = ["CANVAS", "HELD_OUT", "NOISE", "SIDES", "TRAIN_VARIANTS", "digits_rows", "digits_source"]

CANVAS = 32  # pixels per side
SIDES = (22, 28)  # least and largest side of the enlarged digit, pixels
NOISE = 0.4  # standard deviation of the noise, in the range 0..1 of a pixel
TRAIN_VARIANTS = 4
HELD_OUT = 500  # digits each in val and test
_SEED = 20_240_611


def digits_source() -> ArraySource:
    """Return all variants of all digits: image ``digit * TRAIN_VARIANTS + variant``.

    Raises:
        DataError: If scikit-learn, which holds them, is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "The embedded digits are scikit-learn's copy, and scikit-learn is not installed.",
            hint="pip install 'restnet-search[demo]'",
        ) from error
    digits: Any = load_digits()
    rng = np.random.default_rng(_SEED)
    pixels = np.stack([_disturb(image, rng) for image in digits.images for _ in range(TRAIN_VARIANTS)])
    return ArraySource(pixels, np.repeat(digits.target, TRAIN_VARIANTS), tuple(str(digit) for digit in range(10)))


def digits_rows(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split the images of :func:`digits_source` by digit, stratified.

    Args:
        labels: The source's labels.
        seed: Decides which digits are held out.

    Returns:
        Ascending image indices of train (797 digits, all variants), val and test (500 digits each, one variant).
    """
    rng = np.random.default_rng([seed, _SEED])
    by_digit = labels[::TRAIN_VARIANTS]
    held_out = stratified_sample(by_digit, 2 * HELD_OUT, rng)
    test_positions = stratified_sample(by_digit[held_out], HELD_OUT, rng)
    test = held_out[test_positions]
    val = np.delete(held_out, test_positions)
    train = np.setdiff1d(np.arange(len(by_digit)), held_out)
    variants = train[:, None] * TRAIN_VARIANTS + np.arange(TRAIN_VARIANTS)
    return variants.reshape(-1), val * TRAIN_VARIANTS, test * TRAIN_VARIANTS


def _disturb(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Map one 8 x 8 digit of values 0..16 to uint8 ``(CANVAS, CANVAS)``."""
    side = int(rng.integers(SIDES[0], SIDES[1] + 1))
    ink = Image.fromarray((image * (255 / 16)).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    top, left = rng.integers(0, CANVAS - side + 1, size=2)
    canvas = np.zeros((CANVAS, CANVAS))
    canvas[top : top + side, left : left + side] = np.asarray(ink) / 255
    noisy = canvas + rng.normal(0.0, NOISE, canvas.shape)
    return (noisy.clip(0, 1) * 255).round().astype(np.uint8)
