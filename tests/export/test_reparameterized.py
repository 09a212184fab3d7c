"""Exports of networks whose branches are fused: rebuilt fused; those of earlier versions as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from restnet_search.anchors.reparameterize import fuse_branches
from restnet_search.export.formats.safetensors import load_export, save_export
from restnet_search.export.network.architecture import AnchorArchitecture, AnchorSource, HybridArchitecture, Side
from restnet_search.export.network.build_network import build_network
from restnet_search.graph.anchor_graph import cut_model
from restnet_search.graph.trace import trace_model
from restnet_search.stitching.layer import Hybrid, StitchLayer

from .networks import SIZE, source

REP = AnchorSource("rep", "repghostnet_050", None, {}, 10, SIZE, "block", "mit")


def trained() -> nn.Module:
    import timm

    torch.manual_seed(3)
    model = timm.create_model("repghostnet_050", num_classes=10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.get_buffer("running_mean").normal_(std=0.1)
            module.get_buffer("running_var").uniform_(0.5, 2.0)
    return model.eval()


@pytest.mark.parametrize("fused", [True, False], ids=["now", "earlier versions"])
def test_an_anchor_reads_back_as_it_was_exported(images: Tensor, tmp_path: Path, fused: bool) -> None:
    model = fuse_branches(trained()) if fused else trained()
    assert model is not None
    network = trace_model(model, SIZE).module
    architecture = AnchorArchitecture(replace(REP, reparameterized=fused))
    own = replace(source("small_cnn"), id="rep", network=network, architecture=architecture)
    manifest, _ = save_export(own, tmp_path)
    with torch.no_grad():
        assert torch.equal(load_export(manifest)(images), network(images))


def test_a_hybrid_with_a_fused_anchor_reads_back(images: Tensor, tmp_path: Path) -> None:
    model = fuse_branches(trained())
    assert model is not None
    graph = cut_model(model, SIZE)
    anchor = replace(REP, reparameterized=True)
    made = HybridArchitecture(Side(anchor, graph.cut_points[2]), "linear", Side(anchor, graph.cut_points[4]))
    network = Hybrid(graph.front(2), StitchLayer(made.plan, torch.Generator().manual_seed(7)), graph.back(4))
    manifest, _ = save_export(replace(source("small_cnn"), id="rep", network=network, architecture=made), tmp_path)
    with torch.no_grad():
        assert torch.equal(load_export(manifest)(images), network(images))


_FACTORY = """
from torch import nn


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 1)

    def forward(self, x):
        return self.wide(x) + self.narrow(x) if self.narrow is not None else self.wide(x)

    def switch_to_deploy(self):
        self.wide.weight[:, :, 1:2, 1:2] += self.narrow.weight
        self.wide.bias += self.narrow.bias
        self.narrow = None


def build():
    return nn.Sequential(Branches(), nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU()),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 7))
"""


def test_the_head_of_an_own_fused_model_may_have_been_fitted(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(_FACTORY)
    anchor = AnchorSource("own", None, "own.py:build", {}, 10, SIZE, "block", reparameterized=True)
    built = build_network(AnchorArchitecture(anchor), base_dir=tmp_path, trust_code=True)
    assert "0.wide.weight" in built.state_dict() and "0.narrow.weight" not in built.state_dict()
    assert built.state_dict()["4.weight"].shape == (10, 6)
