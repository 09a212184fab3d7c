"""Stitch layers: layouts, resampling, prefix tokens, and their closed-form start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from restnet_search.costs.count import count_costs
from restnet_search.graph.anchor_graph import cut_model
from restnet_search.graph.layout import Layout
from restnet_search.stitching.initialize import fit_stitch
from restnet_search.stitching.kinds import LowRank, StitchKind, stitch_kind
from restnet_search.stitching.layer import Hybrid, StitchLayer
from restnet_search.stitching.plan import StitchPlan, why_not_stitchable
from restnet_search.testing.layouts import GRIDS
from restnet_search.testing.stitch_layers import StitchLayerSuite
from tests.models import IMAGE, build


class TestLinear(StitchLayerSuite):
    @pytest.fixture
    def kind(self) -> StitchKind:
        return stitch_kind("linear")


class TestConv3x3(StitchLayerSuite):
    @pytest.fixture
    def kind(self) -> StitchKind:
        return stitch_kind("conv3x3")


class TestLowRank(StitchLayerSuite):
    @pytest.fixture
    def kind(self) -> StitchKind:
        return stitch_kind("lowrank")


class TestPerceptron(StitchLayerSuite):
    @pytest.fixture
    def kind(self) -> StitchKind:
        return stitch_kind("mlp")


class TestBlock(StitchLayerSuite):
    @pytest.fixture
    def kind(self) -> StitchKind:
        return stitch_kind("block")


def test_grids_round_trip_through_every_layout() -> None:
    for layout in GRIDS:
        assert layout.grid is not None
        grid = torch.randn(2, layout.channels, *layout.grid)
        features = layout.from_grid(grid)
        if layout.prefix:
            features = torch.cat([torch.zeros(2, layout.prefix, layout.channels), features], dim=1)
        assert torch.equal(layout.to_grid(features), grid)


def test_unknown_layouts_and_vectors_are_refused_with_a_reason() -> None:
    grid, vector, unknown = Layout("NCHW", 4, (4, 4)), Layout("vector", 4), Layout("unknown")
    assert why_not_stitchable(grid, grid) is None
    assert why_not_stitchable(vector, vector) is None
    assert "unknown" in (why_not_stitchable(grid, unknown) or "")
    assert "vector" in (why_not_stitchable(grid, vector) or "")


@pytest.mark.parametrize("name", ["cifar_resnet8", "vit", "deit_distilled", "swin"])
def test_closed_form_stitch_of_an_anchor_to_itself_restores_the_anchor(name: str) -> None:
    graph = cut_model(build(name), IMAGE)
    images = torch.randn(200, *IMAGE, generator=torch.Generator().manual_seed(1))
    for cut in graph.cut_points[1:-1]:
        stitch = StitchLayer(StitchPlan("linear", cut.layout, cut.layout))
        with torch.no_grad():
            features = graph.front(cut.index)(images)
        r2 = fit_stitch(stitch, [(half, half) for half in features.split(100)], ridge=1e-12)
        assert r2 == pytest.approx(1.0, abs=1e-6)
        hybrid = Hybrid(graph.front(cut.index), stitch, graph.back(cut.index))
        with torch.no_grad():
            torch.testing.assert_close(hybrid(images[:8]), build(name)(images[:8]), rtol=1e-3, atol=1e-3)


def test_closed_form_map_equals_numpy_least_squares_with_downsampling() -> None:
    source, target = Layout("NCHW", 5, (8, 8)), Layout("tokens", 3, (4, 4), 1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 5, 8, 8, generator=generator)
    y = torch.randn(64, 17, 3, generator=generator)
    stitch = StitchLayer(StitchPlan("linear", source, target))
    fit_stitch(stitch, [(x[:40], y[:40]), (x[40:], y[40:])], ridge=0.0)
    rows = F.avg_pool2d(x, 2).permute(0, 2, 3, 1).reshape(-1, 5).double().numpy()
    rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    wanted = np.linalg.lstsq(rows, y[:, 1:].reshape(-1, 3).double().numpy(), rcond=None)[0]
    np.testing.assert_allclose(
        stitch.branches["map"].get_parameter("weight")[:, :, 0, 0].detach().numpy().T, wanted[:-1], atol=1e-6
    )
    np.testing.assert_allclose(stitch.branches["map"].get_parameter("bias").detach().numpy(), wanted[-1], atol=1e-6)
    # the source has no prefix token: the target's starts as the back anchor's mean
    torch.testing.assert_close(stitch.prefix.detach()[0], y[:, 0].mean(0))


def test_closed_form_on_a_larger_grid_beats_any_small_change_of_it() -> None:
    source, target = Layout("NCHW", 4, (4, 4)), Layout("NCHW", 3, (8, 8))
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(32, 4, 4, 4, generator=generator), torch.randn(32, 3, 8, 8, generator=generator)
    stitch = StitchLayer(StitchPlan("linear", source, target))
    fit_stitch(stitch, [(x, y)], ridge=0.0)
    with torch.no_grad():
        best = F.mse_loss(stitch(x), y).item()
        weight = stitch.branches["map"].get_parameter("weight")
        for _ in range(20):
            noise = 1e-2 * torch.randn(weight.shape, generator=generator)
            weight += noise
            assert F.mse_loss(stitch(x), y).item() > best
            weight -= noise


def test_training_mode_leaves_batch_norm_of_front_and_back_frozen() -> None:
    graph = cut_model(build("cifar_resnet8"), IMAGE)
    plan = StitchPlan("linear", graph.cut_points[1].layout, graph.cut_points[1].layout)
    hybrid = Hybrid(graph.front(1), StitchLayer(plan), graph.back(1)).train()
    before = {key: value.clone() for key, value in hybrid.state_dict().items()}
    hybrid(torch.randn(4, *IMAGE)).sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in hybrid.state_dict().items())
    assert {name for name, p in hybrid.named_parameters() if p.grad is not None} == {
        "stitch.map.weight",
        "stitch.map.bias",
    }


def test_lowrank_costs_half_of_linear_and_mlp_twice() -> None:
    source, target = Layout("NCHW", 96, (8, 8)), Layout("NCHW", 160, (8, 8))
    linear, lowrank, mlp = (StitchPlan(kind, source, target).cost.macs for kind in ("linear", "lowrank", "mlp"))
    assert lowrank == pytest.approx(linear / 2, rel=0.02)
    assert mlp == pytest.approx(2 * linear, rel=0.02)


@pytest.mark.parametrize(("kind", "like"), [("mlp", "linear"), ("block", "conv3x3")])
def test_a_stitch_with_a_hidden_layer_starts_as_the_one_without(kind: str, like: str) -> None:
    source, target = Layout("NCHW", 6, (8, 8)), Layout("tokens", 7, (4, 4), 1)
    pairs = [(torch.randn(20, 6, 8, 8), torch.randn(20, 17, 7))]
    plain, hidden = (StitchLayer(StitchPlan(name, source, target)) for name in (like, kind))
    assert fit_stitch(plain, pairs, ridge=1e-6) == fit_stitch(hidden, pairs, ridge=1e-6)
    with torch.no_grad():
        assert torch.equal(plain(pairs[0][0]), hidden(pairs[0][0]))


def test_a_lowrank_stitch_starts_as_the_best_of_its_rank() -> None:
    source, target = Layout("NCHW", 6, (4, 4)), Layout("NCHW", 8, (4, 4))
    x = torch.randn(50, 6, 4, 4)
    mixed = torch.einsum("oc,bchw->bohw", torch.randn(8, 6), x)
    stitch = StitchLayer(StitchPlan("lowrank", source, target))
    r2 = fit_stitch(stitch, [(x, mixed + 0.1 * torch.randn_like(mixed))], ridge=0.0)
    with torch.no_grad():
        left = (mixed - stitch(x)).square().mean() / mixed.var()
    inner, outer = stitch.branches["map"].children()
    weight = outer.get_parameter("weight").flatten(1) @ inner.get_parameter("weight").flatten(1)
    assert torch.linalg.matrix_rank(weight) == LowRank.width(stitch.plan.shape) == 1
    assert 0 < r2 < 1 and left == pytest.approx(1 - r2, abs=0.03)


class TestUnknownLayouts:
    """Nobody knows what lies where, but it is the same in two models of one family."""

    SOURCE = Layout("unknown", 4, places=(2, 9), family="a.family")

    def test_they_are_stitched_within_their_family_only(self) -> None:
        twin = Layout("unknown", 6, places=(2, 9), family="a.family")
        assert why_not_stitchable(self.SOURCE, twin) is None
        for other in (
            Layout("unknown", 6, places=(2, 9), family="another.family"),
            Layout("unknown", 6, places=(18,), family="a.family"),
            Layout("unknown"),
            Layout("NHWC", 6, (2, 9)),
            Layout("tokens", 6, (2, 9)),
        ):
            assert "unknown" in (why_not_stitchable(self.SOURCE, other) or "")
            assert "unknown" in (why_not_stitchable(other, self.SOURCE) or "")
        assert "unknown" in (why_not_stitchable(Layout("unknown"), Layout("unknown")) or "")

    @pytest.mark.parametrize("kind", ["linear", "conv3x3"])
    def test_they_are_mapped_place_by_place_at_the_stated_cost(self, kind: str) -> None:
        plan = StitchPlan(kind, self.SOURCE, Layout("unknown", 6, places=(2, 9), family="a.family"))
        stitch = StitchLayer(plan, torch.Generator().manual_seed(0)).eval()
        features = torch.randn(3, 2, 9, 4)
        weight, bias = (stitch.branches["map"].get_parameter(name) for name in ("weight", "bias"))
        expected = F.linear(features, weight[:, :, 0, 0], bias)
        torch.testing.assert_close(stitch(features), expected)
        counted = count_costs(stitch, features[:1])
        assert (plan.cost.macs, plan.cost.params) == (counted.macs, counted.params)

    def test_the_closed_form_restores_a_map_between_them(self) -> None:
        plan = StitchPlan("linear", self.SOURCE, Layout("unknown", 6, places=(2, 9), family="a.family"))
        generator = torch.Generator().manual_seed(0)
        x, weight = torch.randn(20, 2, 9, 4, generator=generator), torch.randn(6, 4, generator=generator)
        stitch = StitchLayer(plan)
        assert fit_stitch(stitch, [(x, F.linear(x, weight))], ridge=0.0) == pytest.approx(1.0)
        torch.testing.assert_close(stitch(x), F.linear(x, weight))
