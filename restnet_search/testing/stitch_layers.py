"""The suite that every kind of stitch layer passes."""

from __future__ import annotations

import itertools
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restnet_search.costs.count import count_costs
from restnet_search.graph.layout import Layout
from restnet_search.stitching.initialize import fit_stitch
from restnet_search.stitching.kinds import StitchKind
from restnet_search.stitching.layer import Hybrid, StitchLayer
from restnet_search.stitching.plan import StitchPlan
from restnet_search.testing.layouts import GRIDS, PLACES, VECTORS, shape_of

__all__ = ["PAIRS", "StitchLayerSuite", "plan_of"]

PAIRS = (*itertools.product(GRIDS, GRIDS), *itertools.product(VECTORS, VECTORS), *itertools.product(PLACES, PLACES))
"""Layouts that stitch layers join."""

SAME_GRID = (Layout("NCHW", 6, (8, 8)), Layout("NCHW", 5, (8, 8)))


class StitchLayerSuite:
    """Tests of one kind of stitch layer; a subclass says which, and what it does not promise."""

    closed_form: ClassVar[bool] = True
    """Least squares starts it."""

    @pytest.fixture
    def kind(self) -> StitchKind:
        """Return an instance of the kind."""
        raise NotImplementedError

    @pytest.mark.parametrize(("source", "target"), PAIRS, ids=str)
    def test_features_of_the_target_come_out_at_the_stated_cost(
        self, kind: StitchKind, source: Layout, target: Layout
    ) -> None:
        _skip_where_it_joins_nothing(kind, source, target)
        plan = plan_of(kind, source, target)
        stitch = _layer(plan)
        features = torch.randn(3, *shape_of(source), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            made = stitch(features)
            alone = stitch(features[:1])
        assert made.shape == (3, *shape_of(target))
        torch.testing.assert_close(made[:1], alone, rtol=1e-4, atol=1e-5)  # an image knows nothing of the others
        counted = count_costs(stitch, features[:1])
        assert (plan.cost.macs, plan.cost.params) == (counted.macs, counted.params)

    def test_weights_come_from_the_generator_alone(self, kind: StitchKind) -> None:
        plan = plan_of(kind, *SAME_GRID)
        states: list[dict[str, Tensor]] = []
        for seed in (1, 2):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                states.append(_layer(plan).state_dict())
        one, other = states
        assert one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())

    def test_least_squares_explains_what_it_says(self, kind: StitchKind) -> None:
        if not self.closed_form:
            pytest.skip("this kind starts at random")
        x, y = _related(*SAME_GRID)
        stitch = _layer(plan_of(kind, *SAME_GRID))
        before = _explained(stitch, x, y)
        r2 = fit_stitch(stitch, [(x[:100], y[:100]), (x[100:], y[100:])], ridge=1e-6)
        after = _explained(stitch, x, y)
        assert before < after <= 1
        assert after == pytest.approx(r2, abs=1e-3)

    def test_least_squares_gives_the_same_twice(self, kind: StitchKind) -> None:
        x, y = _related(*SAME_GRID)
        one, other = (_layer(plan_of(kind, *SAME_GRID)) for _ in range(2))
        assert fit_stitch(one, [(x, y)], ridge=1e-4) == fit_stitch(other, [(x, y)], ridge=1e-4)
        with torch.no_grad():
            assert torch.equal(one(x), other(x))

    def test_a_state_dict_is_the_whole_layer(self, kind: StitchKind) -> None:
        x, y = _related(*SAME_GRID)
        plan = plan_of(kind, *SAME_GRID)
        fitted, empty = _layer(plan), _layer(plan, seed=9)
        fit_stitch(fitted, [(x, y)], ridge=1e-4)
        empty.load_state_dict(fitted.state_dict())
        with torch.no_grad():
            assert torch.equal(empty(x), fitted(x))

    def test_it_alone_is_trained(self, kind: StitchKind) -> None:
        source, target = SAME_GRID
        front, back = nn.Conv2d(3, source.channels, 1), nn.Conv2d(target.channels, 2, 1)
        hybrid = Hybrid(front, _layer(plan_of(kind, source, target)), back).train()
        hybrid(torch.randn(4, 3, *(source.grid or ()))).square().sum().backward()
        trained = {name for name, parameter in hybrid.named_parameters() if parameter.grad is not None}
        assert trained == {f"stitch.{name}" for name, _ in hybrid.stitch.named_parameters()}
        assert all(
            parameter.grad is not None and parameter.grad.isfinite().all() for parameter in hybrid.stitch.parameters()
        )

    def test_it_can_be_exported(self, kind: StitchKind) -> None:
        stitch = _layer(plan_of(kind, *SAME_GRID))
        features = torch.randn(2, *shape_of(SAME_GRID[0]))
        program = torch.export.export(stitch, (features,))
        with torch.no_grad():
            torch.testing.assert_close(program.module()(features), stitch(features))


def plan_of(kind: StitchKind, source: Layout, target: Layout) -> StitchPlan:
    """Return the plan of a kind that need not be registered."""
    plan = StitchPlan(type(kind).__name__, source, target)
    vars(plan)["definition"] = kind  # what the plan would otherwise look up by name
    return plan


def _skip_where_it_joins_nothing(kind: StitchKind, source: Layout, target: Layout) -> None:
    if reason := kind.why_not(source, target):
        pytest.skip(reason)


def _layer(plan: StitchPlan, seed: int = 0) -> StitchLayer:
    return StitchLayer(plan, torch.Generator().manual_seed(seed)).eval()


def _related(source: Layout, target: Layout) -> tuple[Tensor, Tensor]:
    """Features of 200 images: those of the target are a map of the source's plus noise and an offset."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, *shape_of(source), generator=generator)
    weight = torch.randn(target.channels, source.channels, 1, 1, generator=generator)
    return x, F.conv2d(x, weight) + 0.5 * torch.randn(200, *shape_of(target), generator=generator) + 3


@torch.no_grad()
def _explained(stitch: StitchLayer, x: Tensor, y: Tensor) -> float:
    centered = y - y.mean(dim=(0, 2, 3), keepdim=True)
    return float(1 - (stitch(x) - y).square().sum() / centered.square().sum())
