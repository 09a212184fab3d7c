"""Anchors, stores and contexts that the tests of kept features share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from restnet_search.anchors import load_anchor
from restnet_search.compute import Compute
from restnet_search.costs.cost import Cost
from restnet_search.data import Split
from restnet_search.graph.anchor_graph import cut_model
from restnet_search.progress import SilentProgress
from restnet_search.search.features.disk_features import DiskFeatures
from restnet_search.search.features.disk_store import DiskStore
from restnet_search.search.features.store import FeatureStore
from restnet_search.search.points.candidates import Candidate
from restnet_search.search.prepare.cut_anchor import CutAnchor
from restnet_search.search.run.records import Direction
from restnet_search.search.run.run_folder import RunFolder, RunInputs
from restnet_search.search.run.session import RunSetup, Session
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.training.context import TrialContext, TrialImages
from restnet_search.search.training.stitch_trainer import FailedTrial, TrialOutcome
from restnet_search.search.training.trial import run_trials
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import AnchorSpec, SearchSpace, StitchSpec, TrainingSpec
from restnet_search.stitching.plan import StitchPlan
from restnet_search.units import UNLIMITED, parse_budget
from tests.models import MODELS

__all__ = ["Anchors", "candidate", "context", "cut_anchor", "disk_store", "features", "run_trial", "session_of"]

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
    """Training on the images, closed forms on the first 96 and scores on 60 of them, unless changed."""
    splits: dict[str, object] = {
        "train": images,
        "fit": images.subset(torch.arange(96)),
        "val": images.subset(torch.arange(100, 160)),
    }
    splits |= {name: changes.pop(name) for name in splits if name in changes}
    settings: dict[str, object] = {
        "graphs": {name: cut.graph for name, cut in anchors.items()},
        "store": FeatureStore(anchors, 2**30),
        "images": TrialImages(**splits),  # pyright: ignore[reportArgumentType]
        "stitch": StitchSpec(),
        "training": TrainingSpec(batch_size=32),
        "seed": 0,
    }
    return TrialContext(**(settings | changes))  # pyright: ignore[reportArgumentType]


def run_trial(chosen: Candidate, choices: TrainingChoices, shared: TrialContext) -> TrialOutcome:
    """Run one trial alone."""
    (outcome,) = run_trials([(chosen, choices)], shared)
    if isinstance(outcome, FailedTrial):
        raise outcome
    return outcome


def session_of(space: SearchSpace, folder: Path, warn: Callable[[str], None] | None = None) -> Session:
    """A session on a run folder; a warning is an error unless something takes it."""

    def fail(message: str) -> None:
        raise AssertionError(message)

    sources = AnchorSources(None, folder, True, folder / "cache")
    budgets = tuple(parse_budget(text) for text in space.budgets) or (UNLIMITED,)
    inputs, progress, taken = RunInputs("", ""), SilentProgress(), warn or fail
    return Session(RunSetup(space, RunFolder(folder), inputs, sources), budgets, progress, taken, Compute())


def candidate(anchors: Anchors, front: str, front_cut: int, back: str, back_cut: int) -> Candidate:
    source = anchors[front].graph.cut_points[front_cut].layout
    target = anchors[back].graph.cut_points[back_cut].layout
    direction = Direction(front, back, "large_to_small")
    return Candidate(direction, front_cut, back_cut, StitchPlan("linear", source, target), Cost(1, 1), 0.5, 0)
