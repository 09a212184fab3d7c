"""Shifted images: what small images are trained with, against shifts that are cut out one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from restnet_search.data import Preprocessing, Split, load_data
from restnet_search.data.augmentation import AugmentedImages, ShiftedImages, augmented
from restnet_search.space.schema import DataSpec

VIEW = Preprocessing((3, 16, 16), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "bilinear", 1.0, "center")


@pytest.fixture(scope="module")
def digits() -> Split:
    return load_data(DataSpec(dataset="digits")).train.subset(torch.arange(24))


def changed(digits: Split, *, flip: bool) -> Tensor:
    torch.manual_seed(3)
    return ShiftedImages(digits, VIEW, flip=flip)(torch.arange(24))


def all_shifts(image: Tensor, *, flip: bool) -> list[Tensor]:
    """Every cut of 16 x 16 from an image with a border of two pixels of the mean color, and mirrored ones."""
    bordered = torch.zeros(3, 20, 20)
    bordered[:, 2:18, 2:18] = image
    cuts = [bordered[:, top : top + 16, left : left + 16] for top in range(5) for left in range(5)]
    return [*cuts, *(cut.flip(2) for cut in cuts)] if flip else cuts


@pytest.mark.parametrize("flip", [True, False])
def test_every_image_is_one_of_its_shifts_and_mirrored_only_where_asked(digits: Split, flip: bool) -> None:
    originals, images = digits.images(VIEW, torch.arange(24)), changed(digits, flip=flip)
    places = []
    for original, image in zip(originals, images, strict=True):
        equal = [torch.equal(image, cut) for cut in all_shifts(original, flip=flip)]
        assert any(equal)
        places.append(equal.index(True))
    assert len(set(places)) > 8  # not the same for all
    assert any(place >= 25 for place in places) == flip


def test_the_same_seed_gives_the_same_shifts_whatever_the_colors(digits: Split) -> None:
    other = replace(VIEW, mean=(0.1, 0.2, 0.3), std=(0.3, 0.3, 0.2))
    torch.manual_seed(3)
    images = ShiftedImages(digits, other)(torch.arange(24))
    inside = slice(4, 12)  # no border
    assert torch.equal(
        other.pixels(images)[..., inside, inside], VIEW.pixels(changed(digits, flip=True))[..., inside, inside]
    )


def test_large_images_are_cropped_by_timm(digits: Split) -> None:
    assert isinstance(augmented(digits, VIEW), ShiftedImages)
    assert isinstance(augmented(digits, replace(VIEW, size=(3, 96, 96))), AugmentedImages)
