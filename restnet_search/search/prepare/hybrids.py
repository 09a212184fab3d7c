"""Hybrids of a run, built from their parts or from disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from restnet_search.errors import RunError
from restnet_search.files import bytes_digest
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.stitching.layer import Hybrid, StitchLayer
from restnet_search.stitching.plan import StitchPlan
from restnet_search.stitching.tuning import with_tensors

__all__ = ["assemble", "plan_between", "restore_hybrid", "trained_tensors"]

_BACK = "back/"
"""Before the names of the back's own tensors in a hybrid's file; the others are the stitch layer's."""


def assemble(
    graphs: Mapping[str, AnchorGraph],
    front: tuple[str, int],
    stitch: StitchLayer,
    back: tuple[str, int],
    tuned: Mapping[str, Tensor] | None = None,
) -> Hybrid:
    """Join the front of one anchor to the back of another; both share the anchors' parameters.

    Args:
        graphs: By anchor name.
        front: Anchor name and cut point.
        stitch: Between them.
        back: Anchor name and cut point.
        tuned: Tensors that the back has for itself, by name.
    """
    rest = graphs[back[0]].back(back[1])
    return Hybrid(graphs[front[0]].front(front[1]), stitch, with_tensors(rest, tuned) if tuned else rest).eval()


def trained_tensors(stitch: StitchLayer, tuned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return all tensors of a hybrid that training made, as one flat mapping for its file."""
    return {**stitch.state_dict(), **{f"{_BACK}{name}": tensor for name, tensor in tuned.items()}}


def restore_hybrid(
    graphs: Mapping[str, AnchorGraph],
    kind: str,
    front: tuple[str, int],
    back: tuple[str, int],
    path: Path,
    sha256: str | None = None,
) -> Hybrid:
    """Build a trained hybrid from its file.

    Args:
        graphs: By anchor name.
        kind: Of its stitch layer.
        front: Anchor name and cut point.
        back: Likewise.
        path: What :func:`trained_tensors` gave.
        sha256: Of the file; None: it is not compared (runs of earlier versions).

    Raises:
        RunError: If the file is missing, damaged or of another hybrid.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    stitch = StitchLayer(plan_between(graphs, kind, front, back))
    try:
        content = path.read_bytes()
        if sha256 not in (None, bytes_digest(content)):
            raise ValueError("it was changed after it was written")
        tensors = load(content)
        tuned = {name.removeprefix(_BACK): tensor for name, tensor in tensors.items() if name.startswith(_BACK)}
        stitch.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.startswith(_BACK)})
        return assemble(graphs, front, stitch, back, tuned)
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise RunError(
            f"The stitch layer {path} cannot be read: {error}",
            expected="the file that the search wrote",
            hint="put a copy of it there, or search anew",
        ) from error


def plan_between(
    graphs: Mapping[str, AnchorGraph], kind: str, front: tuple[str, int], back: tuple[str, int]
) -> StitchPlan:
    """Return the stitch plan between two cut points."""
    source = graphs[front[0]].cut_points[front[1]].layout
    target = graphs[back[0]].cut_points[back[1]].layout
    return StitchPlan(kind, source, target)
