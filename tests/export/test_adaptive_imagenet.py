"""An adaptive model of anchors as large as ImageNet's, with random weights: bytes, bits, switches."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import nn

from restnet_search.conformance.cut_check import build_case
from restnet_search.conformance.families import Case
from restnet_search.costs.cost import Cost
from restnet_search.data import Preprocessing
from restnet_search.export import (
    Accuracy,
    AnchorArchitecture,
    AnchorSource,
    ExportSource,
    HybridArchitecture,
    Side,
)
from restnet_search.export.adaptive import AdaptiveModel
from restnet_search.export.adaptive.verify_routes import time_switches
from restnet_search.export.adaptive.write_adaptive import AdaptiveSource, export_adaptive
from restnet_search.graph.anchor_graph import AnchorGraph, cut_model
from restnet_search.stitching.layer import Hybrid, StitchLayer

SIZE = (3, 224, 224)
VIEW = Preprocessing(SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.9, "center")
MODELS = {"cnn": "resnet18", "vit": "deit_tiny_patch16_224"}
HYBRIDS = {"cnn_to_vit": (("cnn", 3), ("vit", 5)), "vit_to_cnn": (("vit", 4), ("cnn", 5))}


def anchor_of(name: str) -> AnchorSource:
    return AnchorSource(name, MODELS[name], None, {}, 10, SIZE, "block")


def build_source(name: str, graphs: dict[str, AnchorGraph]) -> ExportSource:
    network: nn.Module
    if name in MODELS:
        made, network = AnchorArchitecture(anchor_of(name)), graphs[name].traced.module
    else:
        (front, i), (back, j) = HYBRIDS[name]
        sides = [Side(anchor_of(each), graphs[each].cut_points[cut]) for each, cut in HYBRIDS[name]]
        made = HybridArchitecture(sides[0], "linear", sides[1])
        stitch = StitchLayer(made.plan, torch.Generator().manual_seed(1))
        network = Hybrid(graphs[front].front(i), stitch, graphs[back].back(j)).eval()
    params = sum(parameter.numel() for parameter in network.parameters())
    accuracy = (Accuracy("val", 0.7, 100),)
    return ExportSource(
        id=name,
        network=network,
        architecture=made,
        preprocessing=VIEW,
        classes=tuple("0123456789"),
        costs=Cost(params, params),
        accuracy=accuracy,
    )


@pytest.fixture(scope="module")
def graphs() -> dict[str, AnchorGraph]:
    return {name: cut_model(build_case(Case("any", model, 224))[0], SIZE) for name, model in MODELS.items()}


def test_it_holds_the_union_and_runs_every_route_to_the_last_bit(
    graphs: dict[str, AnchorGraph], tmp_path: Path
) -> None:
    images = torch.randn(1, *SIZE, generator=torch.Generator().manual_seed(0))
    sources = [build_source(name, graphs) for name in (*MODELS, *HYBRIDS)]
    anchors = {name: graph.traced.module for name, graph in graphs.items()}
    result = export_adaptive(
        AdaptiveSource("imagenet", sources, anchors, lambda preprocessing: images), tmp_path / "out", with_onnx=False
    )

    used = {id(t): t.nbytes for s in sources for t in (*s.network.parameters(), *s.network.buffers())}
    on_disk = sum((tmp_path / "out" / name).stat().st_size for name in ("adaptive.safetensors", "adaptive.json"))
    assert sum(used.values()) == result.measured.sizes.union > 60e6
    assert on_disk == result.measured.sizes.artefact <= 1.05 * result.measured.sizes.union
    assert on_disk < 0.6 * result.measured.sizes.separate

    model = AdaptiveModel.load(tmp_path / "out")
    with torch.inference_mode():
        expected = {source.id: source.network(images) for source in sources}
        assert len({logits.numpy().tobytes() for logits in expected.values()}) == len(sources)
        for name in random.Random(0).sample(list(expected), len(expected)):
            model.use(name)
            assert torch.equal(model(images), expected[name])
    assert time_switches(model).median_us < 1000 and 0 < result.measured.switch_median_us < 1000
