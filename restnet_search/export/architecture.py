"""What a network is made of, as plain values, and how to build it again without its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from restnet_search.anchors import load_anchor
from restnet_search.anchors.classifier import replace_classifier
from restnet_search.errors import ExportError
from restnet_search.graph.anchor_graph import AnchorGraph, cut_model
from restnet_search.graph.cut_points import CutPoint
from restnet_search.graph.trace import trace_model
from restnet_search.registry import STITCH_LAYERS
from restnet_search.space.schema import AnchorSpec, Tune
from restnet_search.stitching.layer import Hybrid, StitchLayer
from restnet_search.stitching.plan import StitchPlan
from restnet_search.stitching.tuning import with_tensors

__all__ = [
    "AnchorArchitecture",
    "AnchorSource",
    "Architecture",
    "HybridArchitecture",
    "Side",
    "build_network",
    "check_cut",
    "cut_anchor",
    "join",
]


@dataclass(frozen=True)
class AnchorSource:
    """How to build one anchor's architecture: a timm ``model`` or a ``factory`` in user code, and its arguments.

    Attributes:
        name: In reports.
        num_classes: Of its head.
        input_size: ``(C, H, W)`` that it is traced with.
        granularity: Of its cut points; decides what their indices mean.
        licence: Of its weights; None where it is unknown.
        digest: Content key of the anchor's weights.
    """

    name: str
    model: str | None
    factory: str | None
    kwargs: Mapping[str, object]
    num_classes: int
    input_size: tuple[int, int, int]
    granularity: str
    licence: str | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Side:
    """The front or the back of a hybrid: an anchor, and the cut point where it ends or starts."""

    anchor: AnchorSource
    cut: CutPoint


@dataclass(frozen=True)
class AnchorArchitecture:
    """A whole anchor."""

    anchor: AnchorSource
    kind: Literal["anchor"] = field(default="anchor")

    @property
    def anchors(self) -> tuple[AnchorSource, ...]:
        return (self.anchor,)

    @property
    def licences(self) -> dict[str, str | None]:
        return {anchor.name: anchor.licence for anchor in self.anchors}


@dataclass(frozen=True)
class HybridArchitecture:
    """Front, stitch layer, back; the stitch layer follows from its kind and the layouts at both cut points.

    ``tune`` says what was tuned in the back, and ``tuned`` names the tensors that it therefore has for itself.
    """

    front: Side
    stitch: str
    back: Side
    kind: Literal["hybrid"] = field(default="hybrid")
    tune: Tune = "stitch"
    tuned: tuple[str, ...] = ()

    @property
    def anchors(self) -> tuple[AnchorSource, ...]:
        return (self.front.anchor, self.back.anchor)

    @property
    def licences(self) -> dict[str, str | None]:
        return {anchor.name: anchor.licence for anchor in self.anchors}

    @property
    def plan(self) -> StitchPlan:
        return StitchPlan(self.stitch, self.front.cut.layout, self.back.cut.layout)


Architecture = AnchorArchitecture | HybridArchitecture


def build_network(architecture: Architecture, *, base_dir: Path | None, trust_code: bool) -> nn.Module:
    """Build the network with arbitrary weights, in eval mode; parameter names are those of the network it describes.

    Args:
        architecture: What to build.
        base_dir: Folder that a factory's relative path starts from.
        trust_code: Whether a factory, or a stitch layer of an installed package, may run.

    Raises:
        AnchorError: If an anchor cannot be built, or its code is not trusted.
        GraphError: If it cannot be traced.
        ExportError: If its cut points are not where they were.
        ExtensionError: If its stitch layer is code that is not trusted, or not installed.
    """
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are overwritten; the caller's generator stays put
        if isinstance(architecture, AnchorArchitecture):
            model = _build_anchor(architecture.anchor, base_dir, trust_code)
            return trace_model(model, architecture.anchor.input_size).module
        STITCH_LAYERS.admit(architecture.stitch, trust_code=trust_code)
        front, back = architecture.front, architecture.back
        first = cut_anchor(front.anchor, base_dir, trust_code)
        second = first if back.anchor == front.anchor else cut_anchor(back.anchor, base_dir, trust_code)
        return join(architecture, first, second)


def join(architecture: HybridArchitecture, front: AnchorGraph, back: AnchorGraph) -> Hybrid:
    """The hybrid of two cut anchors with an untrained stitch layer; what was tuned in the back is a copy.

    Raises:
        ExportError: If a cut point is not where it was, or a tensor that was tuned is not in the back.
    """
    for side, graph in ((architecture.front, front), (architecture.back, back)):
        check_cut(side, graph)
    rest = back.back(architecture.back.cut.index)
    if architecture.tuned:
        own = {**dict(rest.named_parameters()), **dict(rest.named_buffers())}
        if unknown := [name for name in architecture.tuned if name not in own]:
            raise ExportError(f"The back of {architecture.back.anchor.name} has no tensor {unknown[0]!r} to be tuned.")
        rest = with_tensors(rest, {name: own[name].detach().clone() for name in architecture.tuned})
    return Hybrid(front.front(architecture.front.cut.index), StitchLayer(architecture.plan), rest)


def _build_anchor(source: AnchorSource, base_dir: Path | None, trust_code: bool) -> nn.Module:
    kwargs = dict(source.kwargs)
    if source.model is not None:
        kwargs.pop("num_classes", None)  # the head was fitted to other classes since
    spec = AnchorSpec(name=source.name, model=source.model, factory=source.factory, pretrained=False, kwargs=kwargs)
    anchor = load_anchor(spec, classes=source.num_classes, weights_dir=None, base_dir=base_dir, trust_code=trust_code)
    if anchor.num_classes != source.num_classes:  # a factory builds the head it was written for
        replace_classifier(anchor.model, source.num_classes)
    return anchor.model.eval()


def cut_anchor(source: AnchorSource, base_dir: Path | None, trust_code: bool) -> AnchorGraph:
    """Build an anchor with arbitrary weights and cut it."""
    return cut_model(_build_anchor(source, base_dir, trust_code), source.input_size, source.granularity)


def check_cut(side: Side, graph: AnchorGraph) -> None:
    """Raise an ExportError if the cut point is not where it was when the network was exported."""
    index = side.cut.index
    found = graph.cut_points[index] if index < len(graph.cut_points) else None
    if found != side.cut:
        raise ExportError(
            f"Cut point {index} of {side.anchor.name} is not where it was when it was exported.",
            expected=f"{_said(side.cut)}; came {_said(found) if found else 'none'}",
            hint="install the versions of torch and timm that the export's JSON file names",
        )


def _said(cut: CutPoint) -> str:
    return f"{cut.path} ({cut.node}, {cut.layout} {cut.shape})"
