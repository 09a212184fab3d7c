"""Build hybrids of a run: as modules, and from disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from restnet_search.errors import RunError
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.stitching.layer import Hybrid, StitchLayer
from restnet_search.stitching.plan import StitchPlan

__all__ = ["assemble", "load_stitch", "plan_between"]


def assemble(
    graphs: Mapping[str, AnchorGraph], front: tuple[str, int], stitch: StitchLayer, back: tuple[str, int]
) -> Hybrid:
    """Join the front of one anchor to the back of another; both share the anchors' parameters."""
    return Hybrid(graphs[front[0]].front(front[1]), stitch, graphs[back[0]].back(back[1])).eval()


def load_stitch(plan: StitchPlan, path: Path) -> StitchLayer:
    """Read a stitch layer's weights.

    Raises:
        RunError: If the file is missing, damaged or of another stitch layer.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    stitch = StitchLayer(plan)
    try:
        stitch.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunError(f"The stitch layer {path} cannot be read: {error}") from error
    return stitch.eval()


def plan_between(
    graphs: Mapping[str, AnchorGraph], kind: str, front: tuple[str, int], back: tuple[str, int]
) -> StitchPlan:
    """The stitch plan between two cut points."""
    source = graphs[front[0]].cut_points[front[1]].layout
    target = graphs[back[0]].cut_points[back[1]].layout
    return StitchPlan(kind, source, target)  # pyright: ignore[reportArgumentType]
