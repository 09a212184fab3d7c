"""Parts of a cut model at other image sizes: they compute what the whole model does, or refuse with one clear error."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import timm
import torch
from torch import nn

from restnet_search.errors import GraphError
from restnet_search.graph.anchor_graph import AnchorGraph, cut_model
from restnet_search.stitching.layer import Hybrid, StitchLayer
from restnet_search.stitching.plan import StitchPlan
from restnet_search.stitching.tuning import norm_parameters, with_tensors

# name: side, arguments, whether all parts take other sizes
MODELS: dict[str, tuple[int, dict[str, Any], bool]] = {
    "pvt_v2_b0": (64, {"depths": (1, 1, 1, 1)}, False),
    "caformer_s18": (64, {}, False),
    "twins_pcpvt_small": (64, {"img_size": 64, "depths": (1, 1, 1, 1)}, False),
    "xcit_nano_12_p16_224": (64, {"depth": 2}, False),
    "swin_tiny_patch4_window7_224": (112, {"img_size": 112, "depths": (1, 1, 1, 1)}, False),
    "vit_tiny_patch16_224": (64, {"img_size": 64, "depth": 2}, False),
    "resnet10t": (64, {}, True),
    "convnext_atto": (64, {}, True),
}
DYNAMIC = {"img_size": 64, "depth": 2, "dynamic_img_size": True}


@cache
def cut(name: str) -> AnchorGraph:
    side, kwargs, _ = MODELS[name]
    torch.manual_seed(0)
    return cut_model(timm.create_model(name, num_classes=5, **kwargs).eval(), (3, side, side))


def outcome(graph: AnchorGraph, cut_point: int, images: torch.Tensor) -> str:
    """``equal``, ``differs`` or ``refused``; any error but ours passes through."""
    with torch.no_grad():
        try:
            logits = graph.back(cut_point)(graph.front(cut_point)(images))
        except GraphError as error:
            return "refused" if "was cut for images of" in str(error) and "img_size" in str(error) else str(error)
        return "equal" if torch.allclose(logits, graph.traced.model(images), rtol=1e-3, atol=1e-4) else "differs"


@pytest.mark.parametrize("name", MODELS)
def test_at_another_size_parts_are_the_whole_model_or_refuse(name: str) -> None:
    graph, (side, _, any_size) = cut(name), MODELS[name]
    images = torch.randn(2, 3, side + 32, side + 32, generator=torch.Generator().manual_seed(0))
    outcomes = [outcome(graph, point.index, images) for point in graph.cut_points]
    assert set(outcomes) <= {"equal", "refused"}
    assert ("refused" in outcomes) is not any_size
    assert graph.any_size is any_size


def test_images_that_are_no_squares_are_taken_where_any_size_is() -> None:
    graph = cut("resnet10t")
    images = torch.randn(1, 3, 96, 160)
    assert {outcome(graph, point.index, images) for point in graph.cut_points} == {"equal"}


def test_as_many_tokens_of_another_grid_are_refused() -> None:
    """16 x 16 and 8 x 32 places are as many tokens, which the next layer would take for the same grid."""
    graph = cut("vit_tiny_patch16_224")
    with pytest.raises(GraphError, match="was cut for images of 64x64"):
        graph.front(0)(torch.zeros(1, 3, 32, 128))


def test_position_embeddings_that_follow_the_image_let_parts_take_other_sizes() -> None:
    torch.manual_seed(0)
    graph = cut_model(timm.create_model("vit_tiny_patch16_224", num_classes=5, **DYNAMIC).eval(), (3, 64, 64))
    images = torch.randn(2, 3, 96, 96)
    assert graph.any_size
    assert {outcome(graph, point.index, images) for point in graph.cut_points} == {"equal"}


def test_what_a_trace_burns_in_without_an_error_is_found() -> None:
    """A size read off the image by Python becomes a constant of the trace, which then answers otherwise."""

    class Averages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
            self.head = nn.Linear(8, 5)
            self.pixels = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            if x.shape[-1] > 48:  # a branch that torch.fx cannot follow and torch.export decides once
                x = x * 2
            return self.head(x.mean((2, 3)))

    graph = cut_model(Averages().eval(), (3, 32, 32))
    assert not graph.any_size
    with pytest.raises(GraphError, match="was cut for images of 32x32"):
        graph.front(0)(torch.zeros(1, 3, 64, 64))


def test_hybrids_and_tuned_backs_refuse_as_their_parts_do() -> None:
    graph = cut("pvt_v2_b0")
    point = next(p.index for p in graph.cut_points if outcome(graph, p.index, torch.zeros(1, 3, 96, 96)) == "refused")
    layout, back = graph.cut_points[point].layout, graph.back(point)
    own = {name: back.get_parameter(name).detach().clone() for name in norm_parameters(back)}
    for part in (back, with_tensors(back, own)):
        hybrid = Hybrid(graph.front(point), StitchLayer(StitchPlan("linear", layout, layout)), part)
        with torch.no_grad():
            assert hybrid(torch.zeros(3, 3, 64, 64)).shape == (3, 5)
            with pytest.raises(GraphError, match="was cut for images of 64x64"):
                part(graph.front(point)(torch.zeros(1, 3, 96, 96)))


def test_the_check_is_no_part_of_what_is_exported() -> None:
    part = cut("swin_tiny_patch4_window7_224").back(1)
    features = torch.zeros(2, *cut("swin_tiny_patch4_window7_224").cut_points[1].shape)
    program = torch.export.export(part, (features,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with torch.no_grad():
        assert torch.equal(program.module()(features[:1]), part(features[:1]))
    assert copy.deepcopy(part)(features).shape == (2, 5)
