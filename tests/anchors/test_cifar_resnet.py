"""The CIFAR ResNets: He et al. 2015, tables 6 and section 4.2, and their place in timm."""

from __future__ import annotations

import pytest
import timm
import torch

from restnet_search.anchors.loading.cifar_resnet import CIFAR_RESNET_DEPTHS, BasicBlock, CifarResNet


def parameters(name: str) -> int:
    return sum(parameter.numel() for parameter in timm.create_model(name).parameters())


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_sizes_are_the_published_ones(depth: int, millions: float) -> None:
    assert parameters(f"cifar_resnet{depth}") / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize(("depth", "count"), [(8, 75_290), (20, 269_722), (56, 853_018)])
def test_sizes_are_those_of_the_checkpoints(depth: int, count: int) -> None:
    assert parameters(f"cifar_resnet{depth}") == count


def test_all_depths_are_registered_with_timm() -> None:
    assert timm.list_models("cifar_resnet*") == [f"cifar_resnet{depth}" for depth in CIFAR_RESNET_DEPTHS]


@pytest.mark.parametrize("depth", CIFAR_RESNET_DEPTHS)
def test_depth_counts_the_weighted_layers(depth: int) -> None:
    model = timm.create_model(f"cifar_resnet{depth}")
    weighted = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(weighted) == depth  # option A: shortcuts have no weights


def test_timms_interface() -> None:
    model = timm.create_model("cifar_resnet8", num_classes=7).eval()
    assert isinstance(model, CifarResNet)
    images = torch.randn(2, 3, 32, 32)
    features = model.forward_features(images)
    assert features.shape == (2, 64, 8, 8)
    assert model.forward_head(features, pre_logits=True).shape == (2, 64)
    assert torch.equal(model(images), model.get_classifier()(model.forward_head(features, pre_logits=True)))
    assert model(images).shape == (2, 7)
    model.reset_classifier(4)
    assert model.num_classes == 4 and model(images).shape == (2, 4)
    model.reset_classifier(0)
    assert model(images).shape == (2, 64)
    with pytest.raises(TypeError, match="width"):
        timm.create_model("cifar_resnet8", width=2)


def test_shortcuts_are_option_a() -> None:
    """Where the residual branch is zero, a block subsamples and puts zero channels on either side."""
    model = timm.create_model("cifar_resnet8")
    assert isinstance(model, CifarResNet)
    block = model.layer2[0].eval()
    assert isinstance(block, BasicBlock)
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.rand(2, 16, 8, 8)
    out = block(x)
    assert out.shape == (2, 32, 4, 4)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert out[:, :8].count_nonzero() == out[:, 24:].count_nonzero() == 0
