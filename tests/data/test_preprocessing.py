"""Preprocessing sees what timm's evaluation transform sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform, resolve_model_data_config
from torch import nn
from torchvision.transforms import Compose

from restnet_search.data import Preprocessing, preprocessing_of
from restnet_search.errors import DataError


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "mobilenetv3_small_050", "test_vit"])
@pytest.mark.parametrize("shape", [(300, 200), (64, 64), (40, 500)])
def test_pixels_then_normalise_equals_timms_transform(name: str, shape: tuple[int, int]) -> None:
    model = timm.create_model(name)
    config = resolve_model_data_config(model)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    preprocessing = preprocessing_of(model)
    ours = preprocessing.normalize(preprocessing.pixels_transform()(image)[None])[0]
    theirs = create_transform(**config, is_training=False)
    assert isinstance(theirs, Compose)
    expected = theirs(image)
    assert isinstance(expected, torch.Tensor) and torch.equal(ours, expected)
    assert ours.shape == preprocessing.size == config["input_size"]


def test_view_of_an_own_model_defaults_to_imagenet() -> None:
    preprocessing = preprocessing_of(nn.Conv2d(3, 4, 1))
    assert preprocessing.size == (3, 224, 224)
    assert preprocessing.mean == IMAGENET_DEFAULT_MEAN and preprocessing.std == IMAGENET_DEFAULT_STD


def test_view_of_an_own_model_reads_input_size() -> None:
    model = nn.Conv2d(3, 4, 1)
    model.input_size = [3, 48, 64]  # pyright: ignore[reportArgumentType]
    assert preprocessing_of(model).size == (3, 48, 64)


@pytest.mark.parametrize("size", [48, (1, 28, 28), (48, 48)])
def test_view_of_refuses_inputs_that_are_no_rgb_image(size: object) -> None:
    model = nn.Conv2d(3, 4, 1)
    model.input_size = size  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="size"):
        preprocessing_of(model)


def test_geometry_is_shared_unless_the_pixels_differ(preprocessing: Preprocessing) -> None:
    other_mean = replace(preprocessing, mean=(0.0, 0.0, 0.0))
    assert preprocessing.geometry == other_mean.geometry
    assert preprocessing.geometry != replace(preprocessing, crop_pct=1.0).geometry
    # The border crop paints its border in the mean colour.
    assert replace(preprocessing, crop_mode="border").geometry != replace(other_mean, crop_mode="border").geometry
