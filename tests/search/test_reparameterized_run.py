"""Anchors whose branches are fused: kept in a run, rebuilt from it, and those of earlier versions as they were."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from restnet_search.anchors import load_anchor
from restnet_search.costs.count import count_costs
from restnet_search.errors import RunError
from restnet_search.progress import SilentProgress
from restnet_search.search.prepare.prepared import cut_anchors, load_prepared, remember_anchors
from restnet_search.search.run.run_folder import RunFolder, RunInputs
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import SearchSpace

CLASSES = ("a", "b", "c")
SPEC = {
    "name": "rep",
    "model": "repghostnet_050",
    "pretrained": False,
    "kwargs": {"pretrained_cfg_overlay": {"input_size": [3, 64, 64]}},
}


@pytest.fixture
def space() -> SearchSpace:
    return SearchSpace.model_validate(
        {
            "name": "test",
            "data": {"dataset": "digits"},
            "anchors": [SPEC, {"name": "cnn", "model": "cifar_resnet8", "pretrained": False}],
        }
    )


@pytest.fixture(params=[False, True], ids=["as loaded", "fitted"])
def run(space: SearchSpace, tmp_path: Path, request: pytest.FixtureRequest):
    """A run folder with its anchors in it, and those anchors."""
    folder = RunFolder(tmp_path / "run")
    folder.create(space, RunInputs("command", "now"))
    anchors = [
        load_anchor(spec, classes=3, weights_dir=None, base_dir=None, trust_code=False) for spec in space.anchors
    ]
    anchors = [replace(one, weights=replace(one.weights, fitted=request.param)) for one in anchors]
    prepared = cut_anchors(space, anchors, CLASSES, SilentProgress())
    remember_anchors(folder, prepared)
    return folder, prepared


def rebuilt(folder: RunFolder, space: SearchSpace):
    sources = AnchorSources(None, None, False, folder.path)
    return load_prepared(folder, space, RunInputs("command", "now"), sources, ["rep", "cnn"])


def test_costs_name_the_trained_and_the_deployed_network(run) -> None:
    _, prepared = run
    costs, anchor = prepared.costs["rep"], prepared.anchors["rep"].anchor
    assert anchor.as_trained is not None and costs.as_trained is not None
    image = torch.zeros(1, 3, 64, 64)
    assert costs.total.macs == count_costs(anchor.model, image).macs < costs.as_trained.macs
    assert costs.as_trained.macs == count_costs(anchor.as_trained, image).macs
    assert prepared.costs["cnn"].as_trained is None


def test_a_run_is_rebuilt_with_the_network_that_it_searched(run, space: SearchSpace) -> None:
    folder, prepared = run
    kept, before = rebuilt(folder, space)["rep"], prepared.anchors["rep"]
    assert kept.anchor.digest == before.anchor.digest and kept.anchor.reparameterized
    assert kept.graph.cut_points == before.graph.cut_points
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(kept.graph.traced.module(images), before.graph.traced.module(images))
    remember_anchors(folder, prepared)  # as a resumed search does


def test_a_run_of_an_earlier_version_is_rebuilt_with_its_branches_and_not_resumed_without(
    run, space: SearchSpace
) -> None:
    folder, prepared = run
    path = folder.path / "anchors.json"
    facts = json.loads(path.read_text())
    assert facts["anchors"]["rep"].pop("fused") is True and "fused" not in facts["anchors"]["cnn"]
    del facts["digest"]  # of the file, which earlier versions did not write
    path.write_text(json.dumps(facts))
    kept = rebuilt(folder, space)["rep"].anchor
    assert not kept.reparameterized
    trained = prepared.anchors["rep"].anchor.as_trained
    assert trained is not None and kept.model.state_dict().keys() == trained.state_dict().keys()
    with pytest.raises(RunError, match="not those that the run"):
        remember_anchors(folder, prepared)


def test_a_fused_checkpoint_is_kept_and_rebuilt_as_it_is(space: SearchSpace, tmp_path: Path) -> None:
    fused = load_anchor(space.anchors[0], classes=3, weights_dir=None, base_dir=None, trust_code=False).model
    save_file(fused.state_dict(), tmp_path / "rep.safetensors")
    spec = space.anchors[0].model_copy(update={"weights": str(tmp_path / "rep.safetensors")})
    space = space.model_copy(update={"anchors": [spec, space.anchors[1]]})
    folder = RunFolder(tmp_path / "run")
    folder.create(space, RunInputs("command", "now"))
    anchors = [load_anchor(one, classes=3, weights_dir=None, base_dir=None, trust_code=False) for one in space.anchors]
    anchors[0] = replace(anchors[0], weights=replace(anchors[0].weights, fitted=True))
    remember_anchors(folder, cut_anchors(space, anchors, CLASSES, SilentProgress()))
    assert load_file(folder.anchor("rep")).keys() == fused.state_dict().keys()
    kept = rebuilt(folder, space)["rep"].anchor
    assert kept.reparameterized and kept.digest == anchors[0].digest
