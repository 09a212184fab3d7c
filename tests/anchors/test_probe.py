"""Head-only fits: what enters the head is kept, a kill costs little, and auxiliary heads stay out of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from restnet_search.anchors import fit_anchor
from restnet_search.anchors.classifier import classifiers
from restnet_search.anchors.fitting import probe
from restnet_search.anchors.fitting.mixed_precision import MixedPrecision
from restnet_search.anchors.fitting.train import top1
from restnet_search.data import DataSplits
from restnet_search.errors import AnchorError
from restnet_search.progress import SilentProgress, Task
from restnet_search.space.schema import FitSpec

from .conftest import TINY, Load


class Killed(BaseException):
    """Ends a fit as a kill would: nothing catches it."""


class Counting:
    """Stands before a model: counts the images that pass, and is killed after so many."""

    def __init__(self, model: nn.Module, limit: int | None = None) -> None:
        self.images, self._limit = 0, limit
        self._hook = model.register_forward_pre_hook(self._count)

    def _count(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.images += len(inputs[0])
        if self._limit is not None and self.images > self._limit:
            raise Killed

    def __deepcopy__(self, memo: object) -> Counting:
        return self  # fits work on a copy of the model; it counts here


def test_a_killed_head_fit_does_not_see_its_images_again(
    load: Load, digits: DataSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_KEPT_BATCHES", 1)
    spec = FitSpec(epochs=2, lr=1e-2)
    anchor = load(model="resnet10t", pretrained=False, kwargs=TINY)
    plain = fit_anchor(anchor, digits, spec, cache_dir=tmp_path / "a", seed=0, progress=SilentProgress())

    killed = load(model="resnet10t", pretrained=False, kwargs=TINY)
    counting = Counting(killed.model, limit=4 * 256 + 2)  # in the fifth batch of train's 1,200 images
    with pytest.raises(Killed):
        fit_anchor(killed, digits, spec, cache_dir=tmp_path / "b", seed=0, progress=SilentProgress())
    assert len(list((tmp_path / "b").glob("*.features/*"))) == 4
    counting._limit, counting.images = None, 0
    resumed = fit_anchor(killed, digits, spec, cache_dir=tmp_path / "b", seed=0, progress=SilentProgress())
    assert counting.images == 2 + (1200 - 4 * 256) + 200  # a look at the head, the rest of train, val
    assert resumed.digest == plain.digest
    assert [path.suffix for path in (tmp_path / "b").iterdir()] == [".safetensors"]


def test_a_kill_between_epochs_of_the_head_ends_as_if_it_had_not_been(
    load: Load, digits: DataSplits, tmp_path: Path
) -> None:
    class KilledInEpoch(SilentProgress):
        """The probe's task advances once a batch of features, then once an epoch."""

        def __init__(self, steps: float) -> None:
            self.left = steps

        @contextmanager
        def task(self, description: str, total: float) -> Iterator[Task]:
            yield self

        def advance(self, steps: float = 1.0) -> None:
            self.left -= steps
            if self.left < 0:
                raise Killed

    anchor = load(model="resnet10t", pretrained=False, kwargs=TINY)
    spec = FitSpec(epochs=5, lr=1e-2)
    plain = fit_anchor(anchor, digits, spec, cache_dir=tmp_path / "a", seed=0, progress=SilentProgress())
    with pytest.raises(Killed):  # 5 + 1 batches of features, then in the fourth epoch
        fit_anchor(anchor, digits, spec, cache_dir=tmp_path / "b", seed=0, progress=KilledInEpoch(6 + 3))
    resumed = fit_anchor(anchor, digits, spec, cache_dir=tmp_path / "b", seed=0, progress=KilledInEpoch(6 + 2))
    assert resumed.digest == plain.digest


# --- auxiliary heads --------------------------------------------------------------------------------------------------


def googlenet(size: int = 64) -> nn.Module:
    """torchvision's GoogLeNet with its two auxiliary heads, for 7 classes."""
    from torchvision.models import googlenet as build

    torch.manual_seed(0)
    model = build(num_classes=7, aux_logits=True, init_weights=False)
    model.input_size = (3, size, size)  # pyright: ignore[reportArgumentType]
    return model


def inception(size: int = 96) -> nn.Module:
    """torchvision's Inception v3 with its auxiliary head, which cannot be run on images this small."""
    from torchvision.models import inception_v3 as build

    torch.manual_seed(0)
    model = build(num_classes=7, aux_logits=True, init_weights=False)
    model.input_size = (3, size, size)  # pyright: ignore[reportArgumentType]
    return model


def few(digits: DataSplits, count: int = 16) -> DataSplits:
    train, val, test = (part.subset(range(count)) for part in (digits.train, digits.val, digits.test))
    return DataSplits(train, val, test, digits.classes)


@pytest.mark.parametrize("tune", ["head", "full"])
def test_auxiliary_heads_are_left_as_they_were(load: Load, digits: DataSplits, tmp_path: Path, tune: str) -> None:
    anchor = load(factory=f"{__name__}:googlenet", trust_code=True)
    assert list(classifiers(anchor.model)) == ["fc"] and anchor.num_classes == 7
    data = few(digits)
    spec = FitSpec.model_validate({"tune": tune, "epochs": 1, "batch_size": 8})
    fitted = fit_anchor(anchor, data, spec, cache_dir=tmp_path, seed=0, progress=SilentProgress())
    before, after = anchor.model.state_dict(), fitted.model.state_dict()
    weights = [name for name in before if name.startswith("aux") and "running" not in name and "num_b" not in name]
    assert weights and all(torch.equal(before[name], after[name]) for name in weights)
    assert torch.equal(before["conv1.conv.weight"], after["conv1.conv.weight"]) == (tune == "head")
    assert after["fc.weight"].shape == (10, 1024) and after["aux1.fc2.weight"].shape == (7, 1024)
    with torch.no_grad():
        assert fitted.model(torch.zeros(2, 3, 64, 64)).shape == (2, 10)
    assert 0 <= top1(fitted.model, data.val, fitted.preprocessing) <= 1


def test_an_auxiliary_head_that_refuses_the_size_is_named(load: Load, digits: DataSplits, tmp_path: Path) -> None:
    anchor = load(factory=f"{__name__}:inception", trust_code=True)
    spec = FitSpec(tune="full", epochs=1, batch_size=4)
    with pytest.raises(AnchorError, match=r"cannot be trained on images \(3, 96, 96\)") as caught:
        fit_anchor(anchor, few(digits, 8), spec, cache_dir=tmp_path, seed=0, progress=SilentProgress())
    assert "aux_logits" in str(caught.value) and not list(tmp_path.iterdir())


# --- mixed precision --------------------------------------------------------------------------------------------------


def test_the_cpu_trains_in_float32() -> None:
    precision = MixedPrecision("cpu")
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    with precision.autocast():
        output = layer(torch.ones(4, 3))
    assert output.dtype == torch.float32
    precision.step(output.sum(), optimizer)
    assert torch.allclose(layer.weight, before - 0.5 * 4)  # the gradient of the sum is 4 everywhere


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_casts_the_forward_pass_and_keeps_weights_in_float32() -> None:
    precision = MixedPrecision()
    layer = nn.Linear(3, 2).to(precision.device)
    with precision.autocast():
        output = layer(torch.ones(4, 3, device=precision.device))
    assert output.dtype in (torch.bfloat16, torch.float16)
    precision.step(output.float().sum(), torch.optim.SGD(layer.parameters(), lr=0.1))
    assert layer.weight.dtype == torch.float32
