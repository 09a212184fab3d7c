"""Cutting: front + back is the whole model, for every cut point, family and batch size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from restnet_search.errors import GraphError
from restnet_search.graph.anchor_graph import cut_model
from tests.models import IMAGE, MODELS, build


@pytest.mark.parametrize("granularity", ["block", "all"])
@pytest.mark.parametrize("name", MODELS)
def test_front_and_back_compose_to_the_whole_model(name: str, granularity: str) -> None:
    model = build(name)
    graph = cut_model(model, IMAGE, granularity)
    assert graph.cut_points
    for batch in (1, 3):  # neither is the batch size of the trace
        images = torch.randn(batch, *IMAGE)
        with torch.no_grad():
            whole = model(images)
            for cut in graph.cut_points:
                features = graph.front(cut.index)(images)
                assert tuple(features.shape) == (batch, *cut.shape)
                assert torch.equal(graph.back(cut.index)(features), whole), cut


@pytest.mark.parametrize("name", ["cifar_resnet8", "vit", "swin"])
def test_all_cut_points_from_one_pass_equal_the_single_fronts(name: str) -> None:
    graph = cut_model(build(name), IMAGE, "all")
    images = torch.randn(2, *IMAGE)
    with torch.no_grad():
        at_once = graph.between(None, range(len(graph.cut_points)))(images)
        for cut, features in zip(graph.cut_points, at_once, strict=True):
            assert torch.equal(features, graph.front(cut.index)(images)), cut


def test_segments_between_cut_points_compose() -> None:
    graph = cut_model(build("cifar_resnet20"), IMAGE)
    images = torch.randn(2, *IMAGE)
    with torch.no_grad():
        features = graph.front(2)(images)
        later = graph.between(2, [4, 7])(features)
        assert torch.equal(later[0], graph.front(4)(images))
        assert torch.equal(later[1], graph.front(7)(images))


def test_slices_share_the_parameters_of_the_model() -> None:
    model = build("cifar_resnet8")
    graph = cut_model(model, IMAGE)
    own = {id(parameter) for parameter in model.parameters()}
    for cut in graph.cut_points:
        assert {id(p) for p in graph.front(cut.index).parameters()} <= own
        assert {id(p) for p in graph.back(cut.index).parameters()} <= own


def test_block_granularity_of_a_cifar_resnet_is_its_stem_and_blocks() -> None:
    graph = cut_model(build("cifar_resnet20"), IMAGE)
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)]
    assert [cut.path for cut in graph.cut_points] == ["bn1", *blocks]
    assert [cut.index for cut in graph.cut_points] == list(range(10))


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        # at 32 pixels layer4 is a 1x1 grid: a vector, which block granularity leaves out
        ("resnet", ["maxpool", "layer1.0", "layer2.0", "layer3.0"]),
        ("vit", ["patch_embed", "blocks.0", "blocks.1", "blocks.2"]),
        ("swin", ["patch_embed", "layers.0.blocks.0", "layers.1.blocks.0", "layers.2.blocks.0", "layers.2.blocks.1"]),
    ],
)
def test_block_boundaries_are_the_blocks_that_an_engineer_would_name(name: str, paths: list[str]) -> None:
    assert [cut.path for cut in cut_model(build(name), IMAGE).cut_points] == paths


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("cifar_resnet8", ("NCHW", 64, (8, 8), 0)),
        ("vit", ("tokens", 48, (8, 8), 1)),
        ("deit_distilled", ("tokens", 32, (4, 4), 2)),
        ("swin", ("NHWC", 96, (4, 4), 0)),
    ],
)
def test_layouts(name: str, last: tuple[str, int, tuple[int, int], int]) -> None:
    cut = cut_model(build(name), IMAGE, "block").cut_points[-1]
    assert (cut.layout.kind, cut.layout.channels, cut.layout.grid, cut.layout.prefix) == last


def test_every_rejected_node_has_a_reason() -> None:
    graph = cut_model(build("vit"), IMAGE)
    reasons = {rejection.node: rejection.reason for rejection in graph.table.rejected}
    assert any("tensors cross here" in reason for reason in reasons.values())
    assert any("not at a block boundary" in reason for reason in reasons.values())
    assert any("output" in reason for reason in reasons.values())
    kept = {cut.node for cut in graph.cut_points}
    assert not kept & reasons.keys()


class _SizeAcrossTheCut(nn.Module):
    """Reads the image's size once and uses it in the last layer, so that a shape, not a tensor, crosses every cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, _, height, width = x.shape
        x = self.second(self.first(x))
        x = x.reshape(batch, 4, height * width).mean(-1)
        return self.head(x)


def test_sizes_that_cross_the_cut_follow_the_batch() -> None:
    model = _SizeAcrossTheCut().eval()
    graph = cut_model(model, (3, 8, 8))
    assert [cut.path for cut in graph.cut_points] == ["first", "second"]
    for batch in (1, 5):
        images = torch.randn(batch, 3, 8, 8)
        for cut in graph.cut_points:
            assert torch.equal(graph.back(cut.index)(graph.front(cut.index)(images)), model(images))


class _InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.first(x))
        return self.head(self.second(x).mean((2, 3)))


def test_kept_features_are_not_overwritten_by_later_operations() -> None:
    graph = cut_model(_InPlace().eval(), (3, 8, 8), "all")
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        before = graph.front(0)(images)
        kept = graph.between(None, range(len(graph.cut_points)))(images)[0]
    assert before.min() < 0
    assert torch.equal(kept, before)


class _Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


class _Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.layer(x.flatten(1))
        return y, y


@pytest.mark.parametrize(("model", "says"), [(_Branches(), "cannot be traced"), (_Pair(), "returns tuple")])
def test_models_that_cannot_be_cut_are_refused_with_the_reason(model: nn.Module, says: str) -> None:
    with pytest.raises(GraphError, match=says):
        cut_model(model, (3, 8, 8))


def test_an_input_size_that_the_model_refuses_is_named() -> None:
    with pytest.raises(GraphError, match="3x48x48"):
        cut_model(build("vit"), (3, 48, 48))
