"""Costs: published totals, and additive costs equal to fvcore on the assembled hybrid."""

from __future__ import annotations

from functools import cache
from itertools import permutations

import pytest
import timm
import torch

from restnet_search.costs.cost_table import AnchorCosts, hybrid_cost, profile_anchor
from restnet_search.costs.count import count_costs, count_parameters, count_with_thop
from restnet_search.graph.anchor_graph import AnchorGraph, cut_model
from restnet_search.search.prepare.hybrids import assemble
from restnet_search.stitching.layer import StitchLayer
from restnet_search.stitching.plan import StitchPlan
from tests.models import IMAGE, build

FAMILIES = ("cifar_resnet8", "resnet", "convnext", "vit", "deit_distilled", "swin")


@cache
def _cut(name: str) -> tuple[AnchorGraph, AnchorCosts]:
    graph = cut_model(build(name), IMAGE)
    return graph, profile_anchor(graph)


@pytest.mark.parametrize(
    ("name", "gmacs"),
    [
        ("deit_tiny_patch16_224", 1.26),
        ("deit_small_patch16_224", 4.61),
        ("deit_base_patch16_224", 17.58),
        ("swin_tiny_patch4_window7_224", 4.5),
        ("resnet18", 1.82),
        ("resnet50", 4.11),
        ("vgg19", 19.6),
    ],
)
def test_published_totals_within_one_percent(name: str, gmacs: float) -> None:
    model = timm.create_model(name).eval()
    assert count_costs(model, torch.randn(1, 3, 224, 224)).macs / 1e9 == pytest.approx(gmacs, rel=0.01)


@pytest.mark.parametrize(("front", "back"), list(permutations(FAMILIES, 2)))
@pytest.mark.parametrize("kind", ["linear", "conv3x3"])
def test_additive_cost_equals_fvcore_on_the_assembled_hybrid(front: str, back: str, kind: str) -> None:
    (front_graph, front_costs), (back_graph, back_costs) = _cut(front), _cut(back)
    points = [(0, len(back_graph.cut_points) - 1), (len(front_graph.cut_points) - 1, 0), (1, 1)]
    for front_cut, back_cut in points:
        source = front_graph.cut_points[front_cut].layout
        target = back_graph.cut_points[back_cut].layout
        plan = StitchPlan(kind, source, target)
        graphs = {"front": front_graph, "back": back_graph}
        hybrid = assemble(graphs, ("front", front_cut), StitchLayer(plan), ("back", back_cut))
        counted = count_costs(hybrid, front_graph.traced.example(1))
        cost = hybrid_cost(front_costs, front_cut, plan.cost, back_costs, back_cut)
        assert (cost.macs, cost.params) == (counted.macs, counted.params), (front_cut, back_cut)


@pytest.mark.parametrize("name", FAMILIES)
def test_front_and_back_add_up_to_the_anchor(name: str) -> None:
    graph, costs = _cut(name)
    whole = count_costs(build(name), graph.traced.example(1))
    assert costs.total.macs == whole.macs
    for front, back in zip(costs.fronts, costs.backs, strict=True):
        assert front.macs + back.macs == whole.macs
        assert front.params + back.params == costs.total.params
    assert costs.total.params == count_parameters(graph.traced.module)
    assert [front.macs for front in costs.fronts] == sorted(front.macs for front in costs.fronts)


def test_uncounted_operations_are_named() -> None:
    count = count_costs(build("vit"), torch.randn(1, *IMAGE))
    names = {one.operator for one in count.uncounted}
    assert "aten::scaled_dot_product_attention" not in names
    assert "aten::gelu" in names


def test_thop_agrees_on_a_convolutional_network_and_leaves_the_model_as_it_was() -> None:
    model = build("cifar_resnet20")
    keys = set(model.state_dict())
    macs, params = count_with_thop(model, torch.randn(1, *IMAGE))
    ours = count_costs(model, torch.randn(1, *IMAGE))
    assert macs == pytest.approx(ours.macs, rel=0.02)
    assert params == ours.params
    assert set(model.state_dict()) == keys


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_of_parts_are_those_of_the_built_parts(name: str) -> None:
    graph, costs = _cut(name)
    for cut in range(len(graph.cut_points)):
        assert costs.fronts[cut].params == count_parameters(graph.front(cut)), cut
        assert costs.backs[cut].params == count_parameters(graph.back(cut)), cut
