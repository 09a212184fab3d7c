"""Re-parameterisation: what is searched is the network that is deployed, and it answers as the trained one does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from restnet_search.anchors import fit_anchor
from restnet_search.anchors.reparameterize import fuse_branches, fusion_of
from restnet_search.costs.count import count_costs
from restnet_search.data import load_data
from restnet_search.progress import SilentProgress
from restnet_search.space.schema import DataSpec, FitSpec

from .conftest import Load

SIZE = (3, 64, 64)
SMALL = {"pretrained_cfg_overlay": {"input_size": list(SIZE)}}


def with_statistics(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch-norms statistics and weights as training leaves them: not 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for value in (module.running_mean, module.bias):
                assert value is not None
                value.data.normal_(std=0.2, generator=generator)
            for value in (module.running_var, module.weight):
                assert value is not None
                value.data.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def distance(one: nn.Module, other: nn.Module, size: tuple[int, ...] = SIZE) -> float:
    """The largest difference of logits, relative to the largest logit."""
    images = torch.randn(3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, came = one(images), other(images)
    return ((came - expected).abs().max() / expected.abs().max()).item()


# at 224; as the authors publish MobileOne-S0 (0.275 G) and RepVGG-A0 (1.4 G) for inference, GhostNetV3 1.6x (0.41 G)
@pytest.mark.parametrize(
    ("name", "deployed", "trained"),
    [("mobileone_s0", 0.28, 1.089), ("ghostnetv3_160", 0.41, 1.017), ("repvgg_a0", 1.4, 1.52)],
)
def test_a_loaded_anchor_costs_what_is_published_of_the_deployed_network(
    load: Load, name: str, deployed: float, trained: float
) -> None:
    anchor = load(model=name, pretrained=False)
    image = torch.zeros(1, 3, 224, 224)
    assert count_costs(anchor.model, image).macs / 1e9 == pytest.approx(deployed, rel=0.035)
    assert anchor.reparameterized and anchor.as_trained is not None
    assert count_costs(anchor.as_trained, image).macs / 1e9 == pytest.approx(trained, rel=0.005)


@pytest.mark.parametrize(
    "name", ["mobileone_s0", "ghostnetv3_050", "repvgg_a0", "fastvit_t8", "repvit_m0_9", "shvit_s1"]
)
def test_fused_and_trained_network_answer_alike_whichever_of_them_was_saved(
    load: Load, tmp_path: Path, name: str
) -> None:
    model = with_statistics(timm.create_model(name, num_classes=7))
    save_file(model.state_dict(), tmp_path / "trained.safetensors")
    anchor = load(model=name, classes=7, weights=str(tmp_path / "trained.safetensors"), kwargs=SMALL)
    assert distance(model, anchor.model) < 1e-5
    assert len(list(anchor.model.parameters())) < len(list(model.parameters()))
    assert anchor.as_trained is not None and distance(model, anchor.as_trained) == 0
    assert anchor.num_classes == 7 and not any(one.requires_grad for one in anchor.model.parameters())

    save_file(anchor.model.state_dict(), tmp_path / "fused.safetensors")
    again = load(model=name, classes=7, weights=str(tmp_path / "fused.safetensors"), kwargs=SMALL)
    assert again.reparameterized and again.as_trained is None
    assert distance(anchor.model, again.model) == 0


def test_a_model_without_such_branches_stays_as_it_is(load: Load) -> None:
    # the last two know how to fuse, and have nothing to
    for name in ("cifar_resnet8", "ghostnetv2_100", "test_byobnet"):
        anchor = load(model=name, pretrained=False)
        assert (anchor.reparameterized, anchor.as_trained, anchor.kept_branches) == (False, None, "")


def test_a_fit_trains_the_branches_and_fuses_them_then(load: Load, tmp_path: Path) -> None:
    digits = load_data(DataSpec.model_validate({"dataset": "digits", "subset": {"train": 64, "val": 20, "test": 20}}))
    anchor = load(model="repghostnet_050", pretrained=False, classes=5, kwargs=SMALL)
    assert anchor.as_trained is not None
    spec = FitSpec(tune="full", epochs=1, lr=1e-3, batch_size=32)
    fitted = fit_anchor(anchor, digits, spec, cache_dir=tmp_path, seed=0, progress=SilentProgress())
    (kept,) = tmp_path.glob("*.safetensors")
    assert load_file(kept).keys() == anchor.as_trained.state_dict().keys()
    assert fitted.reparameterized and fitted.as_trained is not None and fitted.num_classes == 10
    assert distance(fitted.as_trained, fitted.model) < 1e-4
    kwargs = anchor.recipe.kwargs
    assert distance(fitted.model, load(model="repghostnet_050", weights=str(kept), kwargs=dict(kwargs)).model) == 0
    cached = fit_anchor(anchor, digits, spec, cache_dir=tmp_path, seed=0, progress=SilentProgress())
    assert cached.digest == fitted.digest and distance(fitted.model, cached.model) == 0


# --- models of one's own ----------------------------------------------------------------------------------------------


class Branches(nn.Module):
    """A 3x3 and a 1x1 convolution side by side: ``(B, 3, H, W) -> (B, 4, H, W)``."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.wide(x) + (self.narrow(x) if hasattr(self, "narrow") else 0)

    def merged(self, scale: float = 1.0) -> None:
        with torch.no_grad():
            self.wide.weight[:, :, 1:2, 1:2] += scale * self.narrow.weight
            assert self.wide.bias is not None and self.narrow.bias is not None
            self.wide.bias += self.narrow.bias
        del self.narrow


class Deployable(Branches):
    def switch_to_deploy(self) -> None:
        self.merged()


class Wrong(Branches):
    def reparameterize(self) -> None:
        self.merged(scale=2.0)


class FusesFeatures(Branches):
    def fuse(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right


class NamedOtherwise(Branches):
    def merge_kernel(self) -> None:
        self.merged()


class HasAPartCalledFuse(Branches):
    def __init__(self) -> None:
        super().__init__()
        self.fuse = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(super().forward(x))


def around(part: nn.Module) -> nn.Module:
    return nn.Sequential(part, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()


def test_own_modules_that_follow_timms_protocol_are_fused() -> None:
    model = around(Deployable())
    fusion = fusion_of(model, SIZE)
    assert fusion.fused is not None and fusion.kept == ""
    assert distance(model, fusion.fused) < 1e-5
    assert count_costs(fusion.fused, torch.zeros(1, *SIZE)).products == 64 * 64 * 9 * 3 * 4 + 20
    assert count_costs(model, torch.zeros(1, *SIZE)).products == 64 * 64 * 10 * 3 * 4 + 20  # it was not changed
    assert fuse_branches(fusion.fused) is None


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (around(Wrong()), "fused, its logits differ by up to"),
        (around(FusesFeatures()), "its modules cannot be fused: TypeError"),
        (around(NamedOtherwise()), r"merge_kernel\(\) is not called"),
        (around(HasAPartCalledFuse()), "^$"),
    ],
)
def test_what_cannot_be_fused_stays_and_says_why(model: nn.Module, reason: str) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fusion = fusion_of(model, SIZE)
    assert fusion.fused is None
    assert re.search(reason, fusion.kept)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_whole_model_that_is_switched_by_its_own_method_says_so() -> None:
    class Whole(Deployable):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).mean((2, 3))

    assert "switch_to_deploy() is not called" in fusion_of(Whole().eval(), SIZE).kept
