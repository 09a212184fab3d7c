"""Two anchors that see an image differently: each is fed its own preprocessing, and the hybrid its front's."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from restnet_search.anchors.anchor import Anchor, ModelRecipe, Weights
from restnet_search.costs.cost_table import hybrid_cost, profile_anchor
from restnet_search.costs.count import count_costs
from restnet_search.data import DataSplits, Preprocessing, load_data
from restnet_search.graph.anchor_graph import cut_model
from restnet_search.progress import SilentProgress
from restnet_search.search.features.store import FeatureStore
from restnet_search.search.points.candidates import Candidate
from restnet_search.search.prepare.cut_anchor import CutAnchor
from restnet_search.search.prepare.hybrids import assemble
from restnet_search.search.ranking import score_pairs
from restnet_search.search.run.records import Direction
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.training.context import TrialContext, TrialImages
from restnet_search.space.schema import DataSpec, RankerSpec, StitchSpec, TrainingSpec
from restnet_search.stitching.layer import StitchLayer
from restnet_search.stitching.plan import StitchPlan
from tests.search.stores import run_trial

VIEW = Preprocessing((3, 64, 64), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "bilinear", 1.0, "center")
OTHER = replace(VIEW, mean=(0.1, 0.2, 0.6), std=(0.5, 0.3, 0.1))


def model(name: str, side: int, **kwargs: Any) -> nn.Module:
    torch.manual_seed(0)
    if name != "test_resnet":
        kwargs["img_size"] = side
    return timm.create_model(name, num_classes=10, **kwargs).eval()


def folded(vit: nn.Module) -> nn.Module:
    """The same function of pixels, for images normalised as OTHER does: x = (y · s' + m' - m) / s."""
    twin = copy.deepcopy(vit)
    conv = twin.get_submodule("patch_embed.proj")
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None and conv.padding == (0, 0)
    mean, std, other_mean, other_std = (torch.tensor(v) for v in (VIEW.mean, VIEW.std, OTHER.mean, OTHER.std))
    with torch.no_grad():
        conv.bias += (conv.weight * ((other_mean - mean) / std)[:, None, None]).sum(dim=(1, 2, 3))
        conv.weight *= (other_std / std)[:, None, None]
    return twin


def cut_anchor(name: str, network: nn.Module, preprocessing: Preprocessing) -> CutAnchor:
    anchor = Anchor(
        name, ModelRecipe(name, {}), network, preprocessing, 10, Weights(name, None, fitted=False, trained=True)
    )
    return CutAnchor(anchor, cut_model(network, preprocessing.size))


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return load_data(DataSpec(dataset="digits"))


@pytest.fixture(scope="module")
def twins() -> dict[str, CutAnchor]:
    vit = model("test_vit", 64)
    return {"a": cut_anchor("a", vit, VIEW), "b": cut_anchor("b", folded(vit), OTHER)}


def test_similarity_gives_each_anchor_its_own_view(twins: dict[str, CutAnchor], digits: DataSplits) -> None:
    spec = RankerSpec(images=64, batch_size=32)
    own = score_pairs(spec, twins, digits.train, seed=0, progress=SilentProgress())["a", "b"]
    np.testing.assert_allclose(np.diagonal(own), 1.0, atol=1e-4)
    wrong = replace(twins["b"], anchor=replace(twins["b"].anchor, preprocessing=VIEW))
    shared = score_pairs(spec, twins | {"b": wrong}, digits.train, seed=0, progress=SilentProgress())["a", "b"]
    assert np.diagonal(shared).min() < 0.999  # so the test would see it


@pytest.mark.parametrize(("front", "back"), [("a", "b"), ("b", "a")])
def test_the_closed_form_start_between_views_restores_the_anchor(
    twins: dict[str, CutAnchor], digits: DataSplits, front: str, back: str
) -> None:
    graphs = {name: cut.graph for name, cut in twins.items()}
    fit = digits.train.subset(torch.arange(96))
    val = digits.val.subset(torch.arange(32))
    context = TrialContext(
        graphs=graphs,
        store=FeatureStore(twins, 2**28),
        images=TrialImages(fit, fit, val),
        stitch=StitchSpec(kind=["linear"], init="lstsq", ridge=1e-10),
        training=TrainingSpec(batch_size=32),
        seed=0,
    )
    cut = 3
    layout = graphs[front].cut_points[cut].layout
    plan = StitchPlan("linear", layout, layout)
    candidate = Candidate(Direction(front, back, "large_to_small"), cut, cut, plan, plan.cost, 0.0, 0)
    outcome = run_trial(candidate, TrainingChoices(lr=1e-3, epochs=0), context)
    assert outcome.r2 == pytest.approx(1.0, abs=1e-4)
    hybrid = assemble(graphs, (front, cut), outcome.stitch, (back, cut))
    with torch.no_grad():  # the hybrid sees what its front sees
        came = hybrid(val.images(twins[front].anchor.preprocessing, torch.arange(32)))
        wanted = twins[back].anchor.model(val.images(twins[back].anchor.preprocessing, torch.arange(32)))
    torch.testing.assert_close(came, wanted, rtol=1e-2, atol=1e-2 * float(wanted.std()))
    assert outcome.correct == int((wanted.argmax(1) == val.labels).sum())


SIDES = {
    "resnet": ("test_resnet", {}),
    "vit": ("test_vit", {}),
    "deit": ("deit_tiny_distilled_patch16_224", {"embed_dim": 48, "depth": 2}),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"window_size": 5, "embed_dim": 24, "depths": (1, 1, 1), "num_heads": (2, 2, 4)},
    ),
}


@pytest.mark.parametrize(
    ("front", "back"),
    [("resnet", "vit"), ("vit", "resnet"), ("vit", "swin"), ("swin", "vit"), ("deit", "swin"), ("swin", "deit")],
)
@pytest.mark.parametrize("sides", [(64, 80), (80, 64)])
def test_a_back_keeps_its_own_resolution_and_costs(front: str, back: str, sides: tuple[int, int]) -> None:
    graphs = {
        which: cut_model(model(SIDES[name][0], side, **SIDES[name][1]), (3, side, side))
        for which, name, side in (("front", front, sides[0]), ("back", back, sides[1]))
    }
    costs = {which: profile_anchor(graph) for which, graph in graphs.items()}
    for front_cut, back_cut in ((1, 1), (2, 0), (0, 2)):
        plan = StitchPlan(
            "linear", graphs["front"].cut_points[front_cut].layout, graphs["back"].cut_points[back_cut].layout
        )
        stitch = StitchLayer(plan, torch.Generator().manual_seed(0))
        hybrid = assemble(graphs, ("front", front_cut), stitch, ("back", back_cut))
        image, features = torch.randn(1, 3, sides[0], sides[0]), torch.randn(1, 3, sides[1], sides[1])
        with torch.no_grad():
            expected = graphs["back"].front(back_cut)(features)
            assert hybrid.stitch(hybrid.front(image)).shape == expected.shape
            assert hybrid(torch.cat([image] * 3)).shape == (3, 10)
        counted = count_costs(hybrid, image)
        cost = hybrid_cost(costs["front"], front_cut, plan.cost, costs["back"], back_cut)
        assert (cost.macs, cost.params) == (counted.macs, counted.params)
        parts = count_costs(hybrid.front, image).macs + plan.cost.macs + count_costs(hybrid.back, expected).macs
        assert cost.macs == parts
