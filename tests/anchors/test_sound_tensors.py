"""Weights that no network can compute with are named, wherever they come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from restnet_search.anchors import fit_anchor
from restnet_search.anchors.checks.tensors import require_sound_tensors, standardize
from restnet_search.data import DataSplits
from restnet_search.errors import AnchorError
from restnet_search.progress import SilentProgress
from restnet_search.space.schema import FitSpec

from .conftest import Load

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("layer3.0.conv1.weight", NAN, "the weights hold NaN: layer3.0.conv1.weight"),
        ("linear.bias", -INF, "the weights hold an infinity: linear.bias"),
        ("bn1.running_mean", INF, "the weights hold an infinity: bn1.running_mean"),
        ("bn1.running_var", NAN, "the weights hold NaN: bn1.running_var"),
        ("layer2.0.bn2.running_var", -1e-3, "the weights hold a negative variance: layer2.0.bn2.running_var"),
    ],
)
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_checkpoint_with_spoilt_tensors_is_refused_by_their_name(
    load: Load, tmp_path: Path, key: str, value: float, message: str, suffix: str
) -> None:
    torch.manual_seed(0)
    state = timm.create_model("cifar_resnet8").state_dict()
    state[key].view(-1)[0] = value
    path = tmp_path / f"cifar_resnet8.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    with pytest.raises(AnchorError, match=message.replace(".", r"\.")):
        load(model="cifar_resnet8", weights_dir=tmp_path)


def test_a_factorys_spoilt_weights_are_refused(load: Load, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))\n"
        "    nn.init.constant_(model[3].bias, float('nan'))\n"
        "    return model\n"
    )
    with pytest.raises(AnchorError, match=r"hold NaN: 3\.bias"):
        load(factory="mine.py:build", base_dir=tmp_path, trust_code=True)


def test_spoilt_weights_in_the_cache_of_fits_are_fitted_anew(load: Load, digits: DataSplits, tmp_path: Path) -> None:
    """Its checksum is right: a version without this check may have written the file."""
    from restnet_search.anchors.fitting.fit_cache import read_fitted, write_fitted

    torch.manual_seed(0)
    save_file(timm.create_model("cifar_resnet8", num_classes=7).state_dict(), tmp_path / "cifar_resnet8.safetensors")
    anchor = load(model="cifar_resnet8", weights_dir=tmp_path)
    spec, cache = FitSpec(epochs=1), tmp_path / "cache"
    first = fit_anchor(anchor, digits, spec, cache_dir=cache, seed=0, progress=SilentProgress())
    (kept,) = cache.glob("*.safetensors")
    tensors, facts = read_fitted(kept) or ({}, {})
    tensors["linear.weight"][0, 0] = NAN
    write_fitted(kept, tensors, facts)
    again = fit_anchor(anchor, digits, spec, cache_dir=cache, seed=0, progress=SilentProgress())
    assert again.digest == first.digest
    assert all(bool(value.isfinite().all()) for value in load_file(kept).values())


class Masked(nn.Module):
    """Attention's mask holds minus infinity, and the network computes with it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, 4)
        self.register_buffer("mask", torch.tensor([0.0, 0.0, 0.0, -INF]))

    def forward(self, x: Tensor) -> Tensor:
        return (self.fc(x.flatten(1)) + self.mask).softmax(1)


def test_infinities_in_masks_are_no_fault() -> None:
    require_sound_tensors("masked", Masked())


class Integers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("index", torch.arange(4))


def test_counters_and_indices_are_no_weights() -> None:
    require_sound_tensors("indexed", Integers())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_factorys_precision_is_brought_to_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).to(dtype).train()
    linear = model[1]
    assert isinstance(linear, nn.Linear)
    before = linear.weight.detach().clone()
    standard = standardize("half", model)
    assert linear.weight.dtype == torch.float32 and torch.equal(linear.weight, before.float())
    assert not standard.training and not any(parameter.requires_grad for parameter in standard.parameters())


def test_a_model_without_values_is_refused() -> None:
    with torch.device("meta"):
        model = nn.Linear(3, 4)
    with pytest.raises(AnchorError, match="have no values: weight, bias"):
        standardize("empty", model)


class Stubborn(nn.Sequential):
    def train(self, mode: bool = True) -> Stubborn:
        return super().train(True)


def test_a_model_that_stays_in_training_is_refused() -> None:
    with pytest.raises(AnchorError, match=r"stays in training mode after eval\(\)"):
        standardize("stubborn", Stubborn(nn.Conv2d(3, 4, 1), nn.Dropout()))
