"""Optimisers, augmentation, early stopping and resuming of fits; old cached weights keep their keys."""

from __future__ import annotations

import pickle
import random
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from restnet_search.anchors import Anchor, fit_anchor
from restnet_search.anchors.fitting.fit import _key
from restnet_search.anchors.fitting.resume import read_epoch
from restnet_search.data import AugmentedImages, DataSplits, Preprocessing, Split
from restnet_search.data.readers.sources import ArraySource
from restnet_search.errors import SpaceError
from restnet_search.progress import SilentProgress
from restnet_search.space import parse_space
from restnet_search.space.schema import FitSpec

from .conftest import TINY, Load, Messages

AUGMENTED = FitSpec(tune="full", epochs=3, lr=5e-3, batch_size=64, augment=True, label_smoothing=0.1)


@pytest.fixture(scope="module")
def few(digits: DataSplits) -> DataSplits:
    return DataSplits(digits.train.subset(range(256)), digits.val.subset(range(100)), digits.test, digits.classes)


def linear() -> nn.Module:
    torch.manual_seed(3)
    model = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(48, 10))
    model.input_size = (3, 16, 16)  # pyright: ignore[reportArgumentType]
    return model


def equal(a: Anchor, b: Anchor) -> bool:
    return a.digest == b.digest


# --- resuming ---------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Nothing catches it, as nothing catches a signal."""


class KilledAfter(SilentProgress):
    """Ends the fit in the middle of an epoch."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    @contextmanager
    def task(self, description: str, total: float):
        yield self

    def advance(self, steps: float = 1.0) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_killed_fit_goes_on_and_ends_as_if_it_had_not_been(
    load: Load, few: DataSplits, tmp_path: Path, optimizer: str
) -> None:
    anchor = load(model="resnet10t", pretrained=False, kwargs={**TINY, "drop_rate": 0.2})
    spec = AUGMENTED.model_copy(update={"optimizer": optimizer})
    whole = fit_anchor(anchor, few, spec, cache_dir=tmp_path / "a", seed=0, progress=SilentProgress())
    for _ in range(2):  # epochs of 4 steps: killed in the second, then in the third
        with pytest.raises(Killed):
            fit_anchor(anchor, few, spec, cache_dir=tmp_path / "b", seed=0, progress=KilledAfter(6))
    messages = Messages()
    resumed = fit_anchor(anchor, few, spec, cache_dir=tmp_path / "b", seed=0, progress=messages)
    assert messages.lines[0] == "resnet10t: goes on after epoch 2 of 3"
    assert equal(resumed, whole)
    assert [path.suffix for path in (tmp_path / "b").iterdir()] == [".safetensors"]


def test_a_damaged_checkpoint_means_to_start_again(load: Load, few: DataSplits, tmp_path: Path) -> None:
    anchor = load(model="resnet10t", pretrained=False, kwargs=TINY)
    whole = fit_anchor(anchor, few, AUGMENTED, cache_dir=tmp_path / "a", seed=0, progress=SilentProgress())
    with pytest.raises(Killed):
        fit_anchor(anchor, few, AUGMENTED, cache_dir=tmp_path / "b", seed=0, progress=KilledAfter(6))
    [kept] = (tmp_path / "b").iterdir()
    assert kept.name.endswith(".epoch.pt")
    kept.write_bytes(kept.read_bytes()[:-1000])
    messages = Messages()
    again = fit_anchor(anchor, few, AUGMENTED, cache_dir=tmp_path / "b", seed=0, progress=messages)
    assert equal(again, whole) and "goes on" not in messages.lines[0]


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"epochs": Payload()}, tmp_path / "x.pt")
    assert read_epoch(tmp_path / "x.pt") is None and not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Payload()))  # it would have run
    assert (tmp_path / "ran").exists()


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_one_step_of_sgd_with_label_smoothing_by_hand(load: Load, few: DataSplits, tmp_path: Path) -> None:
    anchor = load(factory=f"{__name__}:linear", trust_code=True)
    spec = FitSpec(
        tune="full", when="always", epochs=1, lr=0.05, batch_size=256, weight_decay=0.1, optimizer="sgd",
        label_smoothing=0.2,
    )  # fmt: skip
    fitted = fit_anchor(anchor, few, spec, cache_dir=tmp_path, seed=0, progress=SilentProgress())
    reference = linear().requires_grad_(True)
    loss = F.cross_entropy(
        reference(few.train.images(anchor.preprocessing, range(256))), few.train.labels, label_smoothing=0.2
    )
    loss.backward()
    with torch.no_grad():  # the first step of Nesterov momentum: the gradient, and 0.9 times it once more
        for parameter in reference.parameters():
            assert parameter.grad is not None
            parameter.sub_(0.05 * 1.9 * (parameter.grad + 0.1 * parameter))
    for name, value in fitted.model.state_dict().items():
        assert torch.allclose(value, reference.state_dict()[name], atol=1e-6)


def test_patience_stops_where_val_gets_no_better(load: Load, few: DataSplits, tmp_path: Path) -> None:
    anchor = load(factory=f"{__name__}:linear", trust_code=True)
    spec = FitSpec(tune="full", when="always", epochs=50, lr=1e-20, weight_decay=0, patience=2)  # nothing is learnt
    messages = Messages()
    fitted = fit_anchor(anchor, few, spec, cache_dir=tmp_path, seed=0, progress=messages)
    assert messages.lines[0] == f"{anchor.name}: stopped after epoch 3, none better since 1"
    assert all(torch.equal(v, linear().state_dict()[k]) for k, v in fitted.model.state_dict().items())


def test_always_fits_an_anchor_that_matches_and_starts_from_its_head(
    load: Load, few: DataSplits, tmp_path: Path
) -> None:
    anchor = load(factory=f"{__name__}:linear", trust_code=True)
    spec = FitSpec(tune="full", epochs=1, lr=1e-20, weight_decay=0)
    assert fit_anchor(anchor, few, spec, cache_dir=tmp_path, seed=0, progress=SilentProgress()) is anchor
    always = spec.model_copy(update={"when": "always"})
    fitted = fit_anchor(anchor, few, always, cache_dir=tmp_path, seed=0, progress=SilentProgress())
    assert fitted.weights.fitted and torch.equal(
        fitted.model.get_parameter("2.weight"), anchor.model.get_parameter("2.weight")
    )


def test_weights_that_were_cached_before_there_were_options_are_found() -> None:
    """Keys as version 0.1.0 made them."""
    anchor: Any = SimpleNamespace(digest="a")
    data: Any = SimpleNamespace(train=SimpleNamespace(digest="t"), val=SimpleNamespace(digest="v"), classes=("x", "y"))
    assert _key(anchor, data, FitSpec(), 0) == "44f866a862b92d204f1bba70"
    demo = FitSpec(tune="full", epochs=12, lr=2e-3, batch_size=64, weight_decay=0.05)
    assert _key(anchor, data, demo, 3) == "7cab5cc33c9ef83ed974dd14"
    changes = ({"optimizer": "sgd"}, {"label_smoothing": 0.1}, {"augment": True}, {"patience": 3})
    keys = {_key(anchor, data, demo.model_copy(update=change), 3) for change in changes}
    assert len(keys) == 4 and "7cab5cc33c9ef83ed974dd14" not in keys


@pytest.mark.parametrize(
    ("fit", "says"),
    [
        ("{augment: true}", "fit.augment: needs tune: full, not head"),
        ("{tune: never, when: always}", "fit.when: contradicts tune: never"),
        ("{label_smoothing: 1}", "fit.label_smoothing: must be below 1"),
        ("{optimizer: adam}", "fit.optimizer: must be one of adamw, sgd"),
        ("{patience: 0}", "fit.patience: must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(fit: str, says: str) -> None:
    with pytest.raises(SpaceError) as caught:
        parse_space(f"anchors: [{{model: resnet18}}, {{model: resnet34}}]\ndata: {{dataset: digits}}\nfit: {fit}")
    assert says in str(caught.value)


# --- augmentation -----------------------------------------------------------------------------------------------------


def drawn() -> ArraySource:
    """Three images: one colour, a ramp from left to right, and another colour."""
    pixels = np.empty((3, 30, 40, 3), dtype=np.uint8)
    pixels[0], pixels[2] = (200, 100, 50), (200, 100, 52)
    pixels[1] = np.linspace(0, 255, 40, dtype=np.uint8)[:, None]
    return ArraySource(pixels, np.array([0, 1, 0]), ("a", "b"))


def test_crops_and_flips_change_what_is_where_and_no_colour() -> None:
    preprocessing = Preprocessing((3, 16, 16), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear", 1.0, "center")
    split = Split("train", drawn())
    torch.manual_seed(0)
    random.seed(7)
    before = random.getstate()
    augmented = AugmentedImages(split, preprocessing)
    rows = torch.tensor([2, *[1] * 30])
    images = augmented(rows)
    assert random.getstate() == before
    assert images.shape == (31, 3, 16, 16)
    colour = torch.tensor([(200 / 255 - 0.5) / 0.2, (100 / 255 - 0.4) / 0.3, (52 / 255 - 0.3) / 0.4])
    assert torch.allclose(images[0], colour.view(3, 1, 1).expand(3, 16, 16), atol=1e-5)
    rising = images[1:, 0, 8, -1] > images[1:, 0, 8, 0]
    assert 5 < rising.sum() < 25  # about half of 30 are flipped
    spans = (images[1:, 0, 8, -1] - images[1:, 0, 8, 0]).abs()
    assert spans.max() / spans.min() > 1.1  # crops of several widths
    assert not torch.equal(images, augmented(rows))
    torch.manual_seed(0)
    assert torch.equal(images, augmented(rows))
