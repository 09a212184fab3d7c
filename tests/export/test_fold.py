"""Folded networks compute what the unfolded ones compute, with fewer layers and bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import timm
import torch
from torch import Tensor, fx, nn

from restnet_search.export.folding.fold_network import flatten_hybrid, fold_network
from restnet_search.graph.anchor_graph import AnchorGraph, cut_model
from restnet_search.graph.layout import Layout
from restnet_search.graph.trace import trace_model
from restnet_search.stitching.layer import Hybrid, StitchLayer
from restnet_search.stitching.plan import StitchPlan
from tests.export.networks import HYBRIDS, NAMES, SIZE, source
from tests.models import build


def _norms(module: nn.Module) -> int:
    assert isinstance(module, fx.GraphModule)
    kinds = [module.get_submodule(str(node.target)) for node in module.graph.nodes if node.op == "call_module"]
    return sum(isinstance(kind, nn.modules.batchnorm._BatchNorm) for kind in kinds)


def _values(module: nn.Module) -> int:
    return sum(tensor.numel() for tensor in (*module.parameters(), *module.buffers()))


def _assert_close(came: Tensor, expected: Tensor) -> None:
    assert expected.std() > 1e-3
    torch.testing.assert_close(came, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(HYBRIDS))
def test_a_flat_hybrid_is_the_hybrid_to_the_last_bit(name: str, images: Tensor) -> None:
    hybrid = source(name).network
    assert isinstance(hybrid, Hybrid)
    flat = flatten_hybrid(hybrid)
    for batch in (1, 3):
        assert torch.equal(flat(images[:batch]), hybrid(images[:batch]))
    assert dict(flat.named_parameters()).keys() == dict(hybrid.named_parameters()).keys()
    assert all(parameter is hybrid.get_parameter(key) for key, parameter in flat.named_parameters())


@pytest.mark.parametrize("name", NAMES)
def test_logits_stay_and_batch_norms_go(name: str, images: Tensor) -> None:
    network = source(name).network
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    folded = fold_network(network, SIZE)
    with torch.no_grad():
        _assert_close(folded.module(images), network(images))
    assert _norms(folded.module) == 0
    assert (folded.batch_norms > 0) == any("running_mean" in key for key in before)
    assert (_values(folded.module) < _values(network)) == (folded.batch_norms > 0)
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", ["mobilenetv2", "resnet", "vgg", "convnext", "swin"])
def test_families(name: str) -> None:
    """BatchNormAct2d keeps its activation (MobileNetV2); networks without batch-norms stay as they are."""
    traced = trace_model(build(name), SIZE)
    images = torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(1))
    folded = fold_network(traced.module, SIZE)
    with torch.no_grad():
        _assert_close(folded.module(images), traced.module(images))
    assert folded.batch_norms == _norms(traced.module) and _norms(folded.module) == 0


def test_tensorflow_padding_and_shared_convolutions() -> None:
    """A convolution that pads itself folds; one that two norms share folds into two of its own."""
    torch.manual_seed(0)
    convolution, first, second = timm.layers.create_conv2d(3, 6, 3, stride=2, padding="same"), *_two_norms()

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.first, self.second = convolution, first, second

        def forward(self, x: Tensor) -> Tensor:
            return (self.first(self.convolution(x)) * self.second(self.convolution(x))).mean((2, 3))

    model, images = Twice().eval(), torch.randn(2, 3, 9, 9)
    folded = fold_network(trace_model(model, (3, 9, 9)).module, (3, 9, 9))
    with torch.no_grad():
        _assert_close(folded.module(images), model(images))
    assert folded.batch_norms == 2


def _two_norms() -> tuple[nn.BatchNorm2d, nn.BatchNorm2d]:
    norms = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
    for norm in norms:
        for tensor in (norm.weight, norm.bias, norm.running_var):
            nn.init.uniform_(tensor, 0.5, 2)  # pyright: ignore[reportArgumentType]
    return norms


def test_a_convolution_that_is_read_twice_keeps_its_batch_norm() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, (self.norm, _) = nn.Conv2d(3, 6, 3), _two_norms()

        def forward(self, x: Tensor) -> Tensor:
            y = self.convolution(x)
            return (y + self.norm(y)).mean((2, 3))

    torch.manual_seed(0)
    folded = fold_network(trace_model(Residual().eval(), SIZE).module, SIZE)
    assert folded.batch_norms == 0 and _norms(folded.module) == 1


def _hybrid(front: AnchorGraph, front_cut: int, back: AnchorGraph, back_cut: int) -> Hybrid:
    plan = StitchPlan("linear", front.cut_points[front_cut].layout, back.cut_points[back_cut].layout)
    stitch = StitchLayer(plan, torch.Generator().manual_seed(3))
    return Hybrid(front.front(front_cut), stitch, back.back(back_cut))


def test_the_stitch_layer_folds_where_only_a_1x1_convolution_reads_it() -> None:
    """MobileNetV2: a stage starts without a residual; inside a stage the residual reads the stitch layer, too."""
    graph = cut_model(build("mobilenetv2"), SIZE)
    images = torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(1))
    seen: set[bool] = set()
    for cut in graph.cut_points:
        hybrid = _hybrid(graph, cut.index, graph, cut.index)
        folded = fold_network(hybrid, SIZE)
        with torch.no_grad():
            _assert_close(folded.module(images), hybrid(images))
        assert isinstance(hybrid.back, fx.GraphModule)
        features = next(node for node in hybrid.back.graph.nodes if node.op == "placeholder")
        reader, alone = next(iter(features.users)), len(features.users) == 1
        if "conv_pw" in str(reader.target) and alone:
            assert folded.stitch_into and not any("stitch" in key for key, _ in folded.module.named_parameters())
            assert "the stitch layer folded into" in str(folded)
        elif "conv_dw" in str(reader.target) or not alone:
            assert folded.stitch_into == ()
        seen.add(bool(folded.stitch_into))
    assert seen == {True, False}


def _plain_back(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("back", "folds"),
    [
        (_plain_back(nn.Conv2d(8, 2, 3, stride=2, bias=False), nn.ReLU()), True),
        (_plain_back(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()), False),  # zeros at the border know nothing of the bias
        (_plain_back(nn.Conv2d(8, 8, 1, groups=2), nn.ReLU()), False),
        (_plain_back(nn.ReLU(), nn.Conv2d(8, 8, 1)), False),
        (_plain_back(nn.AvgPool2d(2), nn.Conv2d(8, 8, 1)), True),
        (_plain_back(nn.AvgPool2d(3, padding=1), nn.Conv2d(8, 8, 1)), False),
        (_plain_back(nn.MaxPool2d(2), nn.Conv2d(8, 8, 1)), False),
        (_plain_back(nn.Conv2d(8, 40, 3), nn.ReLU()), False),  # the front is wider: it would cost more
    ],
)
def test_the_stitch_layer_folds_where_it_is_exact_and_free(back: Callable[[], nn.Module], folds: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(back(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(10)).eval()
    model(torch.zeros(2, 8, 10, 10))
    layout = Layout("NCHW", 12, (10, 10))
    stitch = StitchLayer(StitchPlan("linear", layout, replace(layout, channels=8)), torch.Generator().manual_seed(1))
    hybrid = Hybrid(fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 12, 1), nn.Tanh())), stitch, fx.symbolic_trace(model))
    images = torch.randn(3, 3, 10, 10)
    folded = fold_network(hybrid, (3, 10, 10))
    with torch.no_grad():
        _assert_close(folded.module(images), hybrid(images))
    assert bool(folded.stitch_into) is folds


@pytest.mark.parametrize("grid", [(4, 4), (7, 5), (20, 20)])
def test_resampled_and_pooled_stitches_fold_into_the_head(grid: tuple[int, int]) -> None:
    """The head reads the stitch layer through averages alone: bilinear, then the mean over all places."""

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(30, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.mean((2, 3)))

    torch.manual_seed(0)
    plan = StitchPlan("linear", Layout("NCHW", 12, (10, 10)), Layout("NCHW", 30, grid))
    front = fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 12, 1), nn.Tanh()))
    hybrid = Hybrid(front, StitchLayer(plan), fx.symbolic_trace(Head()))
    images = torch.randn(3, 3, 10, 10)
    folded = fold_network(hybrid, (3, 10, 10))
    with torch.no_grad():
        _assert_close(folded.module(images), hybrid(images))
    assert folded.stitch_into == ("back.head",)
    assert _values(folded.module) == _values(hybrid.front) + 12 * 10 + 10


def test_other_modules_are_left_alone() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    folded = fold_network(model, (3, 2, 2))
    assert folded.module is model and str(folded) == ""
