"""Anchors, stores and contexts that the tests of kept features share."""

from __future__ import annotations

from pathlib import Path

import torch

from restnet_search.anchors import load_anchor
from restnet_search.costs.cost_table import Cost
from restnet_search.data import Split
from restnet_search.graph.anchor_graph import cut_model
from restnet_search.search.features.disk_features import DiskFeatures
from restnet_search.search.features.disk_store import DiskStore
from restnet_search.search.features.store import FeatureStore
from restnet_search.search.points.candidates import Candidate
from restnet_search.search.prepare.cut_anchor import CutAnchor
from restnet_search.search.run.records import Direction
from restnet_search.search.training.context import TrialContext
from restnet_search.space.schema import AnchorSpec, StitchSpec, TrainingSpec
from restnet_search.stitching.plan import StitchPlan
from tests.models import MODELS

__all__ = ["Anchors", "candidate", "context", "cut_anchor", "disk_store", "features"]

Anchors = dict[str, CutAnchor]


def cut_anchor(name: str) -> CutAnchor:
    """A small model with random weights, the same every time."""
    kwargs = dict(MODELS[name])
    spec = AnchorSpec(name=name, model=str(kwargs.pop("model_name")), pretrained=False, kwargs=kwargs)
    torch.manual_seed(0)
    anchor = load_anchor(spec, classes=10, weights_dir=None, base_dir=None, trust_code=False)
    return CutAnchor(anchor, cut_model(anchor.model, anchor.preprocessing.size))


def disk_store(anchors: Anchors, folder: Path, *, bound: int = 2**30, dtype: str = "float32") -> FeatureStore:
    """A store on disk whose warnings are errors."""

    def fail(message: str) -> None:
        raise AssertionError(message)

    return FeatureStore(anchors, 2**30, disk=DiskFeatures(DiskStore(folder, bound), dtype), warn=fail)


def features(store: FeatureStore, name: str, cut: int, images: Split) -> torch.Tensor:
    """All features ``(n, ...)`` at a cut point."""
    return torch.cat(list(store.batches(name, cut, images, 64)))


def context(anchors: Anchors, images: Split, **changes: object) -> TrialContext:
    settings: dict[str, object] = {
        "graphs": {name: cut.graph for name, cut in anchors.items()},
        "store": FeatureStore(anchors, 2**30),
        "train": images,
        "fit": images.subset(torch.arange(96)),
        "val": images.subset(torch.arange(100, 160)),
        "stitch": StitchSpec(),
        "training": TrainingSpec(batch_size=32),
        "seed": 0,
    }
    return TrialContext(**(settings | changes))  # pyright: ignore[reportArgumentType]


def candidate(anchors: Anchors, front: str, front_cut: int, back: str, back_cut: int) -> Candidate:
    source = anchors[front].graph.cut_points[front_cut].layout
    target = anchors[back].graph.cut_points[back_cut].layout
    direction = Direction(front, back, "large_to_small")
    return Candidate(direction, front_cut, back_cut, StitchPlan("linear", source, target), Cost(1, 1), 0.5, 0)
