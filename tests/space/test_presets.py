"""The shipped pairs of timm models: published weights, licences said, something to stitch within every budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from timm.models import get_pretrained_cfg, get_pretrained_cfg_value

from restnet_search.anchors import load_anchor
from restnet_search.inspection.one_model import inspect_anchor
from restnet_search.search.points.candidates import enumerate_candidates
from restnet_search.space import SearchSpace, builtin_spaces, load_space
from restnet_search.units import parse_budget

PAIRS = (
    "convnext", "davit", "deit", "efficientnet_lite", "hiera", "mobilenet", "resnet50_resnet18", "resnet_deit",
    "resnet_swin", "swin", "vgg", "vgg_vit", "vit",
)  # fmt: skip
# One of every kind, small enough for a test run; the others passed the same check when they were written.
SMALL = ("deit", "efficientnet_lite", "mobilenet", "resnet_deit")
TRANSFORMERS = ("cifar10_cnn_vit", "cifar10_vit_swin")


@pytest.fixture(params=PAIRS)
def space(request: pytest.FixtureRequest) -> SearchSpace:
    return load_space(builtin_spaces()[request.param])


def test_every_preset_is_there_and_checked_here_or_end_to_end() -> None:
    assert set(builtin_spaces()) == {*PAIRS, "demo", "cifar10_published", "cifar10_resnet", *TRANSFORMERS}


def test_every_model_has_published_weights_of_1000_classes_under_its_tag(space: SearchSpace) -> None:
    for anchor in space.anchors:
        model, _, tag = str(anchor.model).partition(".")
        cfg = get_pretrained_cfg(str(anchor.model))
        assert cfg is not None and tag and (cfg.architecture, cfg.tag) == (model, tag)
        assert cfg.has_weights and cfg.hf_hub_id and cfg.num_classes == 1000


def test_weights_that_are_not_free_for_every_use_are_named(space: SearchSpace) -> None:
    licences = {get_pretrained_cfg_value(str(anchor.model), "license") for anchor in space.anchors}
    assert licences <= {"apache-2.0", "mit", "bsd-3-clause"} or "non-commercial" in space.description


def test_data_is_left_to_the_command_line(space: SearchSpace) -> None:
    assert (space.data.dataset, space.data.root, space.data.splits.test) == ("", None, None)


def within_budgets(space: SearchSpace) -> dict[str, tuple[int, bool]]:
    """Per budget alone: how many candidates it lets through, and whether also the largest anchor; without weights."""
    parts = {
        anchor.name: inspect_anchor(anchor, granularity=space.cut_points.granularity, base=None, trust_code=False)
        for anchor in space.anchors
    }
    points = {name: graph.cut_points for name, (graph, _) in parts.items()}
    costs = {name: cost for name, (_, cost) in parts.items()}
    scores = {(a, b): np.zeros((len(points[a]), len(points[b]))) for a in points for b in points}
    found: dict[str, tuple[int, bool]] = {}
    for text in space.budgets:
        budget = parse_budget(text)
        largest = max((cost.total for cost in costs.values()), key=lambda total: total.macs)
        candidates = enumerate_candidates(space, [budget], points, costs, {space.ranker.kind: scores}).candidates
        found[text] = (len(candidates), budget.allows(macs=largest.macs, params=largest.params))
    return found


@pytest.mark.parametrize("name", SMALL)
def test_every_budget_lets_hybrids_through_and_shuts_the_larger_anchor_out(name: str) -> None:
    found = within_budgets(load_space(builtin_spaces()[name]))
    assert found and all(count >= 4 and not whole for count, whole in found.values())


def test_the_transformers_of_cifar10_take_their_weights_and_see_images_as_these_were_trained(shared: Path) -> None:
    mixed, transformers = (load_space(builtin_spaces()[name]).anchors for name in TRANSFORMERS)
    assert mixed[2:] == transformers
    for spec in transformers:
        anchor = load_anchor(spec, classes=10, weights_dir=shared / "weights", base_dir=None, trust_code=False)
        view = anchor.preprocessing
        assert (anchor.num_classes, anchor.weights.trained, view.size, view.crop_pct) == (10, True, (3, 32, 32), 1.0)
        assert (view.mean, view.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
