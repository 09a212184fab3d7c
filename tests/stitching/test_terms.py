"""What stitch layers have beside their map where a transformer is stitched: positions, prefix, scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from restnet_search.costs.count import count_costs
from restnet_search.graph.anchor_graph import cut_model
from restnet_search.graph.layout import Layout
from restnet_search.space.schema import STITCH_TERMS, StitchTerm
from restnet_search.stitching.initialize import SharedFit, fit_stitch
from restnet_search.stitching.layer import Hybrid, StitchLayer, terms_of
from restnet_search.stitching.plan import StitchPlan, plans_between, terms_between
from restnet_search.testing.layouts import GRIDS, shape_of
from tests.models import IMAGE, build

CNN, TOKENS, WINDOWS = Layout("NCHW", 5, (8, 8)), Layout("tokens", 3, (4, 4), 1), Layout("NHWC", 4, (4, 4))
KINDS = ("linear", "conv3x3", "lowrank", "mlp")


def layer(
    source: Layout, target: Layout, terms: Sequence[StitchTerm] = STITCH_TERMS, kind: str = "linear"
) -> StitchLayer:
    """A stitch layer with those of the terms that mean something between the layouts."""
    (plan,) = plans_between([kind], source, target, terms)
    return StitchLayer(plan, torch.Generator().manual_seed(0)).eval()


def features(source: Layout = CNN, target: Layout = TOKENS, images: int = 60) -> tuple[Tensor, Tensor]:
    """Features whose tokens are a noisy map of the front's, with a mean of their own at every place."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(images, *shape_of(source), generator=draw) + torch.randn(shape_of(source), generator=draw)
    y = 0.5 * torch.randn(images, *shape_of(target), generator=draw)
    pooled = F.adaptive_avg_pool2d(source.to_grid(x), target.grid or (1, 1))
    weight = torch.randn(target.channels, source.channels, 1, 1, generator=draw)
    mapped = target.from_grid(F.conv2d(pooled, weight))
    y[:, target.prefix :] += mapped + 3 * torch.randn(mapped.shape[1:], generator=draw)
    return x, y


@torch.no_grad()
def grids(stitch: StitchLayer, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """What the layer makes of ``x``, and what the back expects, on the target's grid."""
    return stitch.plan.target.to_grid(stitch(x)), stitch.plan.target.to_grid(y)


def test_terms_stand_where_they_mean_something_and_never_between_cnns() -> None:
    assert terms_between(STITCH_TERMS, CNN, Layout("NCHW", 9, (4, 4))) == ()
    assert terms_between(reversed(STITCH_TERMS), CNN, TOKENS) == ("positions", "prefix", "scale")
    assert terms_between(STITCH_TERMS, TOKENS, TOKENS) == ("positions", "scale")  # there is a class token to map
    assert terms_between(STITCH_TERMS, TOKENS, CNN) == terms_between(STITCH_TERMS, CNN, WINDOWS) == ("scale",)
    assert terms_between(STITCH_TERMS, Layout("vector", 4), Layout("vector", 9)) == ()
    assert terms_between([], CNN, TOKENS) == ()


def test_layers_with_terms_give_the_targets_features_at_the_stated_cost() -> None:
    for source in GRIDS:
        for target in GRIDS:
            stitch = layer(source, target)
            x = torch.randn(2, *shape_of(source))
            with torch.no_grad():
                assert stitch(x).shape == (2, *shape_of(target))
                torch.testing.assert_close(stitch(x)[:1], stitch(x[:1]), rtol=1e-4, atol=1e-5)
            counted = count_costs(stitch, x[:1])
            assert (stitch.plan.cost.macs, stitch.plan.cost.params) == (counted.macs, counted.params), stitch.plan


def test_positions_equal_numpy_least_squares_with_a_column_for_every_place() -> None:
    x, y = features()
    stitch = layer(CNN, TOKENS, ["positions"])
    (plan,) = plans_between(["linear"], CNN, TOKENS, ["positions"])
    r2 = fit_stitch(stitch, [(x[:25], y[:25]), (x[25:], y[25:])], ridge=0.0)
    rows = F.avg_pool2d(x, 2).permute(0, 2, 3, 1).reshape(-1, 5).double().numpy()
    design = np.concatenate([rows, np.tile(np.eye(16), (len(x), 1))], axis=1)
    wanted = y[:, 1:].reshape(-1, 3).double().numpy()
    solution = np.linalg.lstsq(design, wanted, rcond=None)[0]
    weight, bias = (stitch.branches["map"].get_parameter(name).detach() for name in ("weight", "bias"))
    np.testing.assert_allclose(weight.flatten(1).T, solution[:5], atol=1e-5)
    np.testing.assert_allclose((stitch.positions.detach().flatten(1) + bias[:, None]).T, solution[5:], atol=1e-5)
    errors = ((wanted - design @ solution) ** 2).sum() / ((wanted - wanted.mean(axis=0)) ** 2).sum()
    assert r2 == pytest.approx(1 - errors, abs=1e-6)
    assert plan.cost.macs == StitchPlan("linear", CNN, TOKENS).cost.macs  # they are free


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", [CNN, Layout("NCHW", 5, (2, 2)), Layout("tokens", 6, (4, 4), 1)], ids=str)
def test_every_place_and_channel_starts_with_the_mean_and_the_spread_that_the_back_expects(
    kind: str, source: Layout
) -> None:
    x, y = features(source)
    stitch = layer(source, TOKENS, kind=kind)
    fit_stitch(stitch, [(x, y)], ridge=1e-6)
    made, wanted = grids(stitch, x, y)
    torch.testing.assert_close(made.mean(0), wanted.mean(0), rtol=1e-3, atol=1e-3)
    spread = [(values - values.mean(0)).square().mean((0, 2, 3)).sqrt() for values in (made, wanted)]
    torch.testing.assert_close(*spread, rtol=1e-3, atol=1e-3)


def test_scale_changes_lengths_alone() -> None:
    x, y = features(CNN, WINDOWS)
    plain, scaled = layer(CNN, WINDOWS, []), layer(CNN, WINDOWS)
    assert fit_stitch(plain, [(x, y)], ridge=1e-4) == fit_stitch(scaled, [(x, y)], ridge=1e-4)
    before, after = (one.branches["map"].get_parameter("weight").detach().flatten(1) for one in (plain, scaled))
    torch.testing.assert_close(F.normalize(before), F.normalize(after))
    assert bool((after.norm(dim=1) > before.norm(dim=1)).all())  # least squares shrinks
    for one in (plain, scaled):
        made, wanted = grids(one, x, y)
        torch.testing.assert_close(made.mean((0, 2, 3)), wanted.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)


def test_an_output_that_nothing_explains_is_not_scaled() -> None:
    x, y = torch.zeros(20, *shape_of(CNN)), torch.randn(20, *shape_of(TOKENS))
    stitch = layer(CNN, TOKENS)
    assert fit_stitch(stitch, [(x, y)], ridge=1e-4) < 0.2
    assert all(bool(tensor.isfinite().all()) for tensor in stitch.state_dict().values())


def test_the_class_token_starts_from_the_mean_feature_by_ridge_regression() -> None:
    x, y = features(images=40)
    y[:, 0] += x.mean((2, 3)) @ torch.randn(5, 3, generator=torch.Generator().manual_seed(2)) * 9
    stitch = layer(CNN, TOKENS, ["prefix"])
    fit_stitch(stitch, [(x[:30], y[:30]), (x[30:], y[30:])], ridge=1e-4)
    pooled, wanted = x.mean((2, 3)).double().numpy(), y[:, 0].double().numpy()
    centered = pooled - pooled.mean(0)
    gram = centered.T @ centered
    # five inputs, forty images: the penalty is 5 / 40 of the mean diagonal
    penalty = 5 / 40 * np.trace(gram) / 5 * np.eye(5)
    weight = np.linalg.solve(gram + penalty, centered.T @ (wanted - wanted.mean(0)))
    with torch.no_grad():
        np.testing.assert_allclose(stitch(x)[:, 0], wanted.mean(0) + centered @ weight, rtol=1e-4, atol=1e-4)


def test_layers_that_share_a_fit_are_what_each_is_alone() -> None:
    targets = [TOKENS, Layout("tokens", 2, (4, 4), 2), Layout("tokens", 4, (4, 4))]
    x = features()[0]
    wanted = [features(CNN, target)[1] for target in targets]
    together = [layer(CNN, target) for target in targets]
    shared = SharedFit(together, 1e-4)
    for rows in torch.arange(len(x)).split(25):
        shared.update(x[rows], [y[rows] for y in wanted])
    for one, y, target, r2 in zip(together, wanted, targets, shared.solve(), strict=True):
        alone = layer(CNN, target)
        assert fit_stitch(alone, [(x, y)], ridge=1e-4) == pytest.approx(r2, abs=1e-9)
        with torch.no_grad():
            torch.testing.assert_close(one(x), alone(x), rtol=1e-4, atol=1e-5)


def test_a_state_dict_says_which_terms_its_layer_has() -> None:
    structural: list[tuple[StitchTerm, ...]] = [(), ("positions",), ("prefix",), ("positions", "prefix")]
    for terms in structural:
        state = layer(CNN, TOKENS, terms).state_dict()
        assert terms_of(state) == terms
        StitchLayer(StitchPlan("linear", CNN, TOKENS, terms_of(state))).load_state_dict(state)
    both_tokens = layer(Layout("tokens", 6, (4, 4), 1), TOKENS, []).state_dict()
    assert terms_of(both_tokens) == ()  # a class token mapped from a class token is no term


def test_a_transformer_stitched_to_itself_stays_itself() -> None:
    graph = cut_model(build("vit"), IMAGE)
    images = torch.randn(150, *IMAGE, generator=torch.Generator().manual_seed(1))
    cut = graph.cut_points[2]
    stitch = layer(cut.layout, cut.layout)
    with torch.no_grad():
        own = graph.front(cut.index)(images)
        assert fit_stitch(stitch, [(own, own)], ridge=1e-12) == pytest.approx(1.0, abs=1e-6)
        hybrid = Hybrid(graph.front(cut.index), stitch, graph.back(cut.index))
        torch.testing.assert_close(hybrid(images[:8]), build("vit")(images[:8]), rtol=1e-3, atol=1e-3)


def test_inputs_that_never_change_at_their_place_explain_nothing() -> None:
    """Position embeddings of a front: as large as they are, the offsets hold what they say."""
    source = Layout("tokens", 300, (4, 4))  # wide enough for float32 products
    x, y = features(source, images=40)
    x[..., :100] = 1e3 * torch.randn(16, 100, generator=torch.Generator().manual_seed(3))
    stitch = layer(source, TOKENS)
    r2 = fit_stitch(stitch, [(x, y)], ridge=1e-4)
    assert bool((stitch.branches["map"].get_parameter("weight")[:, :100] == 0).all())
    assert 0 < r2 < 1
    without, other = layer(Layout("tokens", 200, (4, 4)), TOKENS), x[..., 100:]
    fit_stitch(without, [(other, y)], ridge=1.5e-4)  # the same penalty: the mean diagonal is over two thirds
    with torch.no_grad():
        torch.testing.assert_close(stitch(x)[:, 1:], without(other)[:, 1:], rtol=1e-2, atol=1e-2)
