"""Networks built from their architecture, without their weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import fx, nn

from restnet_search.anchors.loading.reconstruction import build_architecture
from restnet_search.anchors.reparameterize import fuse_branches
from restnet_search.errors import ExportError
from restnet_search.export.network.architecture import (
    AnchorArchitecture,
    AnchorSource,
    Architecture,
    HybridArchitecture,
    Side,
)
from restnet_search.graph.anchor_graph import AnchorGraph, cut_model
from restnet_search.graph.cut_points import CutPoint
from restnet_search.graph.image_size import size_is_fixed, take_one_size
from restnet_search.graph.trace import trace_model
from restnet_search.registry import STITCH_LAYERS
from restnet_search.space.schema import AnchorSpec
from restnet_search.stitching.layer import Hybrid, StitchLayer
from restnet_search.stitching.tuning import with_tensors

__all__ = ["build_network", "check_cut", "cut_anchor", "join_hybrid"]


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
            traced = trace_model(model, architecture.anchor.input_size)
            fixed = size_is_fixed(traced, None, [traced.logits])
            return take_one_size(traced.module, traced, None) if fixed else traced.module
        STITCH_LAYERS.admit(architecture.stitch, trust_code=trust_code)
        front, back = architecture.front, architecture.back
        first = cut_anchor(front.anchor, base_dir, trust_code)
        second = first if back.anchor == front.anchor else cut_anchor(back.anchor, base_dir, trust_code)
        return join_hybrid(architecture, first, second)


def join_hybrid(architecture: HybridArchitecture[AnchorSource], front: AnchorGraph, back: AnchorGraph) -> Hybrid:
    """Join two cut anchors by an untrained stitch layer; what was tuned in front and back is a copy.

    Raises:
        ExportError: If a cut point is not where it was, or a tensor that was tuned is not in its part.
    """
    for side, graph in ((architecture.front, front), (architecture.back, back)):
        check_cut(side, graph)
    first = front.front(architecture.front.cut.index)
    first = _with_own(first, architecture.tuned_front, f"front of {architecture.front.anchor.name}")
    rest = back.back(architecture.back.cut.index)
    rest = _with_own(rest, architecture.tuned, f"back of {architecture.back.anchor.name}")
    return Hybrid(first, StitchLayer(architecture.plan), rest)


def _with_own(part: fx.GraphModule, names: Sequence[str], what: str) -> fx.GraphModule:
    """Return a part that has the named tensors for itself, as copies."""
    if not names:
        return part
    own = {**dict(part.named_parameters()), **dict(part.named_buffers())}
    if unknown := [name for name in names if name not in own]:
        raise ExportError(f"The {what} has no tensor {unknown[0]!r} to be tuned.")
    return with_tensors(part, {name: own[name].detach().clone() for name in names})


def _build_anchor(source: AnchorSource, base_dir: Path | None, trust_code: bool) -> nn.Module:
    spec = AnchorSpec(name=source.name, model=source.model, factory=source.factory, kwargs=dict(source.kwargs))
    model = build_architecture(spec, source.num_classes, base_dir=base_dir, trust_code=trust_code).model
    fused = fuse_branches(model) if source.reparameterized else None
    return (model if fused is None else fused).eval()


def cut_anchor(source: AnchorSource, base_dir: Path | None, trust_code: bool) -> AnchorGraph:
    """Build an anchor with arbitrary weights and cut it."""
    return cut_model(_build_anchor(source, base_dir, trust_code), source.input_size, source.granularity)


def check_cut(side: Side[AnchorSource], graph: AnchorGraph) -> None:
    """Raise an ExportError if the cut point is not where it was when the network was exported."""
    index = side.cut.index
    present = graph.cut_points[index] if index < len(graph.cut_points) else None
    if present != side.cut:
        raise ExportError(
            f"Cut point {index} of {side.anchor.name} is not where it was when it was exported.",
            expected=f"{_describe(side.cut)}; came {_describe(present) if present else 'none'}",
            hint="install the versions of torch and timm that the export's JSON file names",
        )


def _describe(cut: CutPoint) -> str:
    return f"{cut.path} ({cut.node}, {cut.layout} {cut.shape})"
