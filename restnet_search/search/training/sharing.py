"""Shared stitch layers in joint training: the sliding windows of SN-Net. Pure functions.

SN-Net (Pan et al., CVPR 2023; here as its published code has it) slides a window of ``kernel`` blocks with ``stride``
along two anchors of equal depth (*paired stitching*); all stitches from a block of the window to a block of the window
share one stitch layer, and a stitch that several windows hold belongs to the first. Between anchors of unequal depth
(*unpaired stitching*) each block of the shallower one has a stitch layer, shared by the run of deeper blocks that
nearest-neighbour interpolation maps to it. Anchors with stages are treated stage by stage.

The reading of it here:

- *Blocks* are cut points, on both sides. (SN-Net's second index is the block that is entered, one more than the cut.)
- A *stage* is all cut points of an anchor that have one layout; a cut point is numbered within its stage. So all that
  share a stitch layer agree in both layouts.
- SN-Net's stitches lie near the diagonal; a ranker's candidates lie anywhere. Off the diagonal the same windows slide
  along diagonals that are displaced by multiples of 2 kernel - 1, the width of the band that windows cover, so that the
  bands tile the plane; the undisplaced band is exactly SN-Net's.
- Runs are short between SN-Net's anchors: 3 cut points at most (Swin's third stages, 6 and 18 blocks deep). A longer
  run is split evenly, for what lies a whole network apart has no stitch layer in common.
- With a stride above 1, windows leave gaps that SN-Net does not stitch; here what lies in a gap joins the last window
  that begins before it.

For a stitch point (i, j) of stages of equal depth, in band b with j' = j - b (2 kernel - 1), the first window that
holds it begins at the least a = a0 + n stride, n >= 0, with a > max(i, j') - kernel; a0 is 0 on the diagonal and
1 - kernel in displaced bands, whose borders may cut a window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from restnet_search.graph.layout import Layout
from restnet_search.search.points.candidates import Candidate
from restnet_search.space.schema import JointSpec
from restnet_search.stitching.plan import StitchPlan

__all__ = ["SharedLayer", "Window", "share_layers", "window_of"]

_LONGEST_RUN = 3


class Window(NamedTuple):
    """A window: its band (0: along the diagonal) and where in it the window begins."""

    band: int
    start: int


@dataclass(frozen=True)
class SharedLayer:
    """A stitch layer, and the stitch points that share it (one or more); ``name`` is unique among the layers."""

    name: str
    plan: StitchPlan
    members: tuple[Candidate, ...]


def window_of(front: int, back: int, *, kernel: int = 2, stride: int = 1) -> Window:
    """The window whose stitch layer joins cut point ``front`` to cut point ``back`` of stages of equal depth.

    >>> window_of(0, 0), window_of(0, 1), window_of(1, 0), window_of(1, 1)
    (Window(band=0, start=0), Window(band=0, start=0), Window(band=0, start=0), Window(band=0, start=0))
    >>> window_of(1, 2), window_of(2, 2), window_of(0, 5)
    (Window(band=0, start=1), Window(band=0, start=1), Window(band=2, start=-1))
    """
    width = 2 * kernel - 1
    band = (back - front + kernel - 1) // width
    moved = back - band * width
    origin = 0 if band == 0 else 1 - kernel
    windows = -(-(max(front, moved) - kernel + 1 - origin) // stride)
    start = origin + stride * max(0, windows)
    if start > min(front, moved):  # a gap between windows, where stride > 1
        start = origin + stride * ((min(front, moved) - origin) // stride)
    return Window(band, start)


def share_layers(
    candidates: Sequence[Candidate], layouts: Mapping[str, Sequence[Layout]], spec: JointSpec
) -> tuple[SharedLayer, ...]:
    """The stitch layers that the candidates share; every candidate is a member of exactly one.

    Args:
        candidates: Of one search.
        layouts: Of all cut points, by anchor.
        spec: Kernel and stride of the windows.
    """
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        front, back = candidate.direction.front, candidate.direction.back
        source = _place(layouts[front], candidate.front_cut)
        target = _place(layouts[back], candidate.back_cut)
        depth = min(source.depth, target.depth)
        kernel = spec.kernel if source.depth == target.depth else 1
        (i, part), (j, other_part) = source.on(depth), target.on(depth)
        window = window_of(i, j, kernel=kernel, stride=min(spec.stride, kernel))
        name = (
            f"{candidate.direction} stages {source.stage} {target.stage} window {window.band} {window.start} "
            f"parts {part} {other_part}"
        )
        groups.setdefault(name, []).append(candidate)
    return tuple(SharedLayer(name, members[0].plan, tuple(members)) for name, members in groups.items())


class _Place(NamedTuple):
    stage: int
    index: int
    depth: int

    def on(self, depth: int) -> tuple[int, int]:
        """Its number on a stage of ``depth`` (nearest neighbour), and its part of the run that has this number."""
        parts = -(-self.depth // (_LONGEST_RUN * depth))
        return divmod(self.index * depth * parts // self.depth, parts)


def _place(layouts: Sequence[Layout], cut: int) -> _Place:
    """Number of a cut point's stage, its number within the stage, and how many cut points the stage has."""
    stage = [index for index, layout in enumerate(layouts) if layout == layouts[cut]]
    return _Place(list(dict.fromkeys(layouts)).index(layouts[cut]), stage.index(cut), len(stage))
