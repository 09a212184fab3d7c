"""Fitting raises accuracy, is kept by content, and leaves alone what it should."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from restnet_search.anchors import default_cache_dir, fit_anchor, head_matches, prepare_anchors
from restnet_search.anchors.classifier import classifiers
from restnet_search.anchors.fitting.train import top1
from restnet_search.data import DataSplits, load_data
from restnet_search.errors import AnchorError
from restnet_search.progress import SilentProgress
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import DataSpec, FitSpec, SearchSpace

from .conftest import TINY, Load, Messages

QUICK = FitSpec(tune="full", epochs=3, lr=5e-3, batch_size=32)


def test_all_layers_learn_the_digits(load: Load, digits: DataSplits, tmp_path: Path) -> None:
    anchor = load(model="resnet10t", pretrained=False, kwargs=TINY)
    before = {name: value.clone() for name, value in anchor.model.state_dict().items()}
    assert top1(anchor.model, digits.test, anchor.preprocessing) < 0.25
    messages = Messages()
    fitted = fit_anchor(anchor, digits, QUICK, cache_dir=tmp_path, seed=0, progress=messages)
    assert top1(fitted.model, digits.test, fitted.preprocessing) > 0.5
    assert fitted.weights.fitted and head_matches(fitted, 10) and fitted.digest != anchor.digest
    assert not any(parameter.requires_grad for parameter in fitted.model.parameters()) and not fitted.model.training
    state = anchor.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in before.items())  # the given anchor is as it was
    # What is reported is what the kept weights reach.
    assert f"{top1(fitted.model, digits.val, fitted.preprocessing):.3f}" in messages.lines[-1]


def test_the_head_alone_learns_and_nothing_else_changes(load: Load, shared: Path, tmp_path: Path) -> None:
    """A new head on the real features is as good as the one taken off; all below it stays bit-identical."""
    spec = DataSpec.model_validate({"subset": {"train": 2000, "val": 500, "test": 1000}})
    data = load_data(spec, root=shared / "data" / "cifar10")
    anchor = load(model="cifar_resnet8", weights_dir=shared / "weights", kwargs={"num_classes": 5})
    fitted = fit_anchor(anchor, data, FitSpec(epochs=8, lr=1e-2), cache_dir=tmp_path, seed=0, progress=SilentProgress())
    original = load(model="cifar_resnet8", weights_dir=shared / "weights")
    reached, reference = (top1(one.model, data.test, one.preprocessing) for one in (fitted, original))
    assert reference > 0.75 and reached > reference - 0.04
    before, after = anchor.model.state_dict(), fitted.model.state_dict()
    body = [name for name in after if not name.startswith("linear.")]
    assert len(body) == len(after) - 2 and all(torch.equal(before[name], after[name]) for name in body)
    assert after["linear.weight"].shape == (10, 64)


def test_the_standardised_probe_is_folded_exactly(load: Load, digits: DataSplits, shared: Path, tmp_path: Path) -> None:
    anchor = load(model="cifar_resnet8", weights_dir=shared / "weights", kwargs={"num_classes": 5})
    messages = Messages()
    fitted = fit_anchor(anchor, digits, FitSpec(epochs=2, lr=1e-2), cache_dir=tmp_path, seed=0, progress=messages)
    said = float(messages.lines[-1].rpartition(" ")[2])
    assert top1(fitted.model, digits.val, fitted.preprocessing) == pytest.approx(
        said, abs=0.006
    )  # one of 200 images may tip


class TwoHeads(nn.Module):
    """Logits are the mean of two heads, as in distilled ViTs: no single linear layer gives them."""

    input_size = (3, 16, 16)

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU()
        )
        self.reset_classifier(classes)

    def get_classifier(self) -> tuple[nn.Module, nn.Module]:
        return self.one, self.two

    def reset_classifier(self, classes: int) -> None:
        self.num_classes = classes
        self.one, self.two = nn.Linear(32, classes), nn.Linear(32, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x).amax((2, 3))
        return (self.one(x) + self.two(x)) / 2


def test_heads_that_are_no_linear_layer_train_too(load: Load, digits: DataSplits, tmp_path: Path) -> None:
    anchor = load(factory=f"{__name__}:TwoHeads", trust_code=True)
    spec = FitSpec(epochs=2, lr=1e-2, batch_size=32)
    fitted = fit_anchor(anchor, digits, spec, cache_dir=tmp_path, seed=0, progress=SilentProgress())
    assert top1(fitted.model, digits.test, fitted.preprocessing) > 0.14
    before, after = anchor.model.state_dict(), fitted.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in after if name.startswith("body"))
    assert set(classifiers(fitted.model)) == {"one", "two"} and after["two.weight"].shape == (10, 32)


def test_own_models_get_a_new_last_linear_layer(load: Load, digits: DataSplits, tmp_path: Path) -> None:
    anchor = load(factory=f"{__name__}:plain", trust_code=True)
    fitted = fit_anchor(anchor, digits, FitSpec(epochs=1), cache_dir=tmp_path, seed=0, progress=SilentProgress())
    assert fitted.num_classes == 10 and fitted.model(torch.zeros(2, *fitted.preprocessing.size)).shape == (2, 10)


def plain() -> nn.Module:
    model = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(48, 4))
    model.input_size = (3, 16, 16)  # pyright: ignore[reportArgumentType]
    return model


# --- the cache --------------------------------------------------------------------------------------------------------


class NoImages:
    """Data with the right classes and content key, and no image: training on it fails."""

    def __init__(self, split) -> None:
        self.digest, self.labels, self.classes, self.name = split.digest, split.labels, split.classes, split.name

    def __len__(self) -> int:
        return len(self.labels)


def test_the_second_call_loads_and_does_not_train(load: Load, digits: DataSplits, tmp_path: Path) -> None:
    anchor = load(model="resnet10t", pretrained=False, kwargs=TINY)
    spec = QUICK.model_copy(update={"epochs": 1})
    first = fit_anchor(anchor, digits, spec, cache_dir=tmp_path, seed=0, progress=SilentProgress())
    empty = DataSplits(NoImages(digits.train), NoImages(digits.val), digits.test, digits.classes)  # pyright: ignore[reportArgumentType]
    again = fit_anchor(anchor, empty, spec, cache_dir=tmp_path, seed=0, progress=SilentProgress())
    assert first.digest == again.digest
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.model.state_dict().values(), again.model.state_dict().values(), strict=True)
    )
    for changed in ({"seed": 1}, {"spec": spec.model_copy(update={"lr": 1e-3})}):
        with pytest.raises(AttributeError):  # another key: it does try to train
            fit_anchor(
                anchor, empty, **{"spec": spec, "seed": 0, **changed}, cache_dir=tmp_path, progress=SilentProgress()
            )


def test_fitting_is_the_same_every_time(load: Load, digits: DataSplits, tmp_path: Path) -> None:
    anchor = load(model="resnet10t", pretrained=False, kwargs={**TINY, "drop_rate": 0.2})
    spec = QUICK.model_copy(update={"epochs": 1})
    digests = []
    for run in ("a", "b"):
        torch.manual_seed(len(digests))
        fitted = fit_anchor(anchor, digits, spec, cache_dir=tmp_path / run, seed=0, progress=SilentProgress())
        digests.append(fitted.digest)
    assert digests[0] == digests[1]


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_a_damaged_file_is_noticed_and_replaced(load: Load, digits: DataSplits, tmp_path: Path, damage: str) -> None:
    anchor = load(model="resnet10t", pretrained=False, kwargs=TINY)
    spec = QUICK.model_copy(update={"epochs": 1})
    first = fit_anchor(anchor, digits, spec, cache_dir=tmp_path, seed=0, progress=SilentProgress())
    [path] = tmp_path.iterdir()
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 0x40
    path.write_bytes(raw if damage == "flip" else raw[:-50])
    messages = Messages()
    again = fit_anchor(anchor, digits, spec, cache_dir=tmp_path, seed=0, progress=messages)
    assert "damaged" in messages.lines[0] and again.digest == first.digest
    assert [path] == list(tmp_path.iterdir()) and load_file(path)


def test_a_cache_that_cannot_be_written_is_said_before_training(load: Load, digits: DataSplits, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    anchor = load(model="resnet10t", pretrained=False, kwargs=TINY)
    with pytest.raises(AnchorError, match="RESTNET_CACHE"):
        fit_anchor(anchor, digits, QUICK, cache_dir=tmp_path / "file" / "x", seed=0, progress=SilentProgress())


def test_the_environment_moves_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RESTNET_CACHE", str(tmp_path / "mine"))
    assert default_cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("RESTNET_CACHE")
    assert default_cache_dir().name == "restnet-search"


@pytest.mark.skipif(sys.platform != "linux", reason="folders of Linux")
def test_on_linux_the_cache_lies_where_it_always_did(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RESTNET_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "xdg" / "restnet-search"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "restnet-search"


# --- what is refused --------------------------------------------------------------------------------------------------


def test_never_means_an_error(load: Load, digits: DataSplits, tmp_path: Path) -> None:
    anchor = load(model="cifar_resnet8", pretrained=False, classes=7)
    with pytest.raises(AnchorError, match="10 classes"):
        fit_anchor(anchor, digits, FitSpec(tune="never"), cache_dir=tmp_path, seed=0, progress=SilentProgress())
    save_file(timm.create_model("cifar_resnet8").state_dict(), tmp_path / "cifar_resnet8.safetensors")
    matching = load(model="cifar_resnet8", weights_dir=tmp_path)
    same = fit_anchor(matching, digits, FitSpec(tune="never"), cache_dir=tmp_path, seed=0, progress=SilentProgress())
    assert same is matching


def test_divergence_says_what_to_lower(load: Load, digits: DataSplits, tmp_path: Path) -> None:
    anchor = load(model="cifar_resnet8", pretrained=False)
    with torch.no_grad():
        anchor.model.get_parameter("conv1.weight").fill_(float("inf"))
    with pytest.raises(AnchorError, match=r"diverged in epoch 1.*\n.*lower fit\.lr"):
        fit_anchor(anchor, digits, QUICK, cache_dir=tmp_path, seed=0, progress=SilentProgress())
    assert not list(tmp_path.iterdir())


def test_prepare_loads_all_and_fits_what_does_not_match(shared: Path, tmp_path: Path) -> None:
    space = SearchSpace.model_validate(
        {
            "anchors": [
                {"name": "trained", "model": "cifar_resnet8"},
                {"name": "new", "model": "resnet10t", "pretrained": False, "kwargs": TINY},
            ],
            "data": {"subset": {"train": 64, "val": 20, "test": 20}},
            "fit": {"tune": "full", "epochs": 1},
        }
    )
    data = load_data(space.data, root=shared / "data" / "cifar10")
    sources = AnchorSources(shared / "weights", None, False, tmp_path)
    trained, new = prepare_anchors(space, data, sources, SilentProgress())
    assert (trained.name, trained.weights.fitted, new.name, new.weights.fitted) == ("trained", False, "new", True)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_wrong_name_is_found_before_anything_is_fitted(digits: DataSplits, tmp_path: Path) -> None:
    space = SearchSpace.model_validate(
        {
            "anchors": [{"model": "resnet10t", "pretrained": False, "kwargs": TINY}, {"model": "resnet_nope"}],
            "data": {"dataset": "digits"},
        }
    )
    with pytest.raises(AnchorError, match="resnet_nope"):
        prepare_anchors(space, digits, AnchorSources(None, None, False, tmp_path), SilentProgress())
    assert not list(tmp_path.iterdir())
