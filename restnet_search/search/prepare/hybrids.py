"""Hybrids of a run, built from their parts or from disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, fx

from restnet_search.errors import RunError
from restnet_search.files import bytes_digest
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.space.schema import StitchTerm
from restnet_search.stitching.layer import Hybrid, StitchLayer, terms_of
from restnet_search.stitching.plan import StitchPlan
from restnet_search.stitching.tuning import norm_statistics, with_tensors

__all__ = ["assemble", "plan_between", "restore_hybrid", "trainable_tensors", "trained_tensors"]

_BACK, _FRONT = "back/", "front/"
"""Before the names of the back's and the front's own tensors in a hybrid's file; the others are the stitch layer's."""


def assemble(
    graphs: Mapping[str, AnchorGraph],
    front: tuple[str, int],
    stitch: StitchLayer,
    back: tuple[str, int],
    tuned: Mapping[str, Tensor] | None = None,
    tuned_front: Mapping[str, Tensor] | None = None,
) -> Hybrid:
    """Join the front of one anchor to the back of another; both share the anchors' parameters but for their own.

    Args:
        graphs: By anchor name.
        front: Anchor name and cut point.
        stitch: Between them.
        back: Anchor name and cut point.
        tuned: Tensors that the back has for itself, by name.
        tuned_front: Likewise of the front.
    """
    first, rest = graphs[front[0]].front(front[1]), graphs[back[0]].back(back[1])
    first = with_tensors(first, tuned_front) if tuned_front else first
    return Hybrid(first, stitch, with_tensors(rest, tuned) if tuned else rest).eval()


def trained_tensors(
    stitch: StitchLayer, tuned: Mapping[str, Tensor], tuned_front: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return all tensors of a hybrid that training made, as one flat mapping for its file."""
    parts = ((_BACK, tuned), (_FRONT, tuned_front or {}))
    own = {f"{prefix}{name}": tensor for prefix, tensors in parts for name, tensor in tensors.items()}
    return {**stitch.state_dict(), **own}


def trainable_tensors(part: fx.GraphModule) -> dict[str, Tensor]:
    """Return what training may change of a front or a back, by name: its parameters and batch-norm statistics."""
    parameters = {name: one.detach() for name, one in part.named_parameters() if one.is_floating_point()}
    return parameters | {name: part.get_buffer(name) for name in norm_statistics(part)}


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

    try:
        content = path.read_bytes()
        if sha256 not in (None, bytes_digest(content)):
            raise ValueError("it was changed after it was written")
        tensors = load(content)
        tuned, tuned_front = _below(_BACK, tensors), _below(_FRONT, tensors)
        own = {name: one for name, one in tensors.items() if not name.startswith((_BACK, _FRONT))}
        stitch = StitchLayer(plan_between(graphs, kind, front, back, terms_of(own)))
        stitch.load_state_dict(own)
        return assemble(graphs, front, stitch, back, tuned, tuned_front)
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise RunError(
            f"The stitch layer {path} cannot be read: {error}",
            expected="the file that the search wrote",
            hint="put a copy of it there, or search anew",
        ) from error


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def plan_between(
    graphs: Mapping[str, AnchorGraph],
    kind: str,
    front: tuple[str, int],
    back: tuple[str, int],
    terms: tuple[StitchTerm, ...] = (),
) -> StitchPlan:
    """Return the stitch plan between two cut points."""
    source = graphs[front[0]].cut_points[front[1]].layout
    target = graphs[back[0]].cut_points[back[1]].layout
    return StitchPlan(kind, source, target, terms)
