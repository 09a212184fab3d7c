"""The embedded digits: split by digit, the same everywhere."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

from restnet_search.data import Preprocessing, load_data
from restnet_search.data.readers.digits import CANVAS, HELD_OUT, TRAIN_VARIANTS, digits_rows, digits_source
from restnet_search.errors import DataError
from restnet_search.space.schema import DataSpec

VIEW = Preprocessing((3, 32, 32), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear", 1.0, "center")


def published() -> Bunch:
    digits = load_digits()
    assert isinstance(digits, Bunch)
    return digits


def test_no_digit_is_in_two_splits_and_none_is_lost() -> None:
    labels = digits_source().labels
    train, val, test = (set((rows // TRAIN_VARIANTS).tolist()) for rows in digits_rows(labels, seed=3))
    assert not (train & val or train & test or val & test)
    assert train | val | test == set(range(1797))


def test_sizes_and_stratification() -> None:
    data = load_data(DataSpec(dataset="digits"))
    assert len(data.train) == (1797 - 2 * HELD_OUT) * TRAIN_VARIANTS
    assert len(data.val) == len(data.test) == HELD_OUT
    shares = np.bincount(published().target) / 1797
    for split in (data.train, data.val, data.test):
        drawn = torch.bincount(split.labels).numpy() / len(split)
        assert np.abs(drawn - shares).max() < 0.003
    assert data.classes == tuple("0123456789")


def test_every_load_gives_the_same_images() -> None:
    first, again = (load_data(DataSpec(dataset="digits", seed=5)) for _ in range(2))
    other = load_data(DataSpec(dataset="digits", seed=6))
    for split in ("train", "val", "test"):
        assert getattr(first, split).digest == getattr(again, split).digest != getattr(other, split).digest
    assert torch.equal(first.test.images(VIEW, range(20)), again.test.images(VIEW, range(20)))


def test_variants_differ_and_show_their_digit() -> None:
    """Averaged over all noise and places, what is left correlates best with the plain digits of the same class."""
    source = digits_source()
    assert source.image(0).size == (CANVAS, CANVAS) and source.image(0).mode == "RGB"
    one, two = (np.asarray(source.image(index)) for index in (0, 1))
    assert source.labels[0] == source.labels[1] and not np.array_equal(one, two)
    plain = published()
    ink = np.array([plain.images[plain.target == digit].mean() for digit in range(10)])
    seen = np.array([np.asarray(source.image(index)).mean() for index in range(len(source.labels))])
    brightness = np.array([seen[source.labels == digit].mean() for digit in range(10)])
    assert np.corrcoef(ink, brightness)[0, 1] > 0.9


def test_subsets_apply() -> None:
    data = load_data(DataSpec.model_validate({"dataset": "digits", "subset": {"train": 300, "test": 100}}))
    assert (len(data.train), len(data.val), len(data.test)) == (300, 500, 100)


def test_digits_without_scikit_learn_are_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(DataError, match="scikit-learn is not installed") as raised:
        digits_source()
    assert raised.value.hint == "pip install 'restnet-search[demo]'"
