"""Check that features lie where their layouts say: the corners of the grids move with those of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.graph.cut_points import CutPoint
from restnet_search.graph.layout import Layout

__all__ = ["LayoutCheck", "check_layouts"]

_PAIRS = 4  # of images
_PART = 8  # a corner's side is this part of the image's
_STRENGTHS = (1.0, 30.0)  # of the movement


@dataclass(frozen=True)
class LayoutCheck:
    """The layouts of one model's cut points, held against where features move.

    Attributes:
        known: Cut points whose layout is known.
        unknown: Cut points whose layout is not.
        checked: Those with a grid of at least 4x4, whose corners can be told apart.
        astray: Paths of the checked ones that do not move where the image is moved.
    """

    known: int = 0
    unknown: int = 0
    checked: int = 0
    astray: Sequence[str] = ()


def check_layouts(graph: AnchorGraph) -> LayoutCheck:
    """Move the image's four corners, one at a time, and look where the features of every known layout move most.

    This takes nothing from how the layouts were derived (:mod:`restnet_search.graph.token_order`): it looks from the
    image, at all four corners, at grids of every kind. An eighth of the image's side is replaced by another image's
    pixels; the movement is the squared difference of features, summed over channels and four pairs of images. What
    moves alike in all places is taken off first, because layers that mix all places (attention, token mixing) add the
    same to each: what is left is how the place differs from the others. The place that moves most must then lie within
    a quarter of the grid of the corner, on either axis, since fields of view overlap. Where they overlap throughout
    (small grids, large kernels) inner places may move most; then each corner of the grid must owe the largest share of
    its movement to its own corner of the image, each corner's movement counted as 1. Grids below 4x4 are not asked. A
    flip puts it at the other end of an axis, a transposition exchanges top right and bottom left, windows or unrolled
    units put these two elsewhere.

    Where layers of flat attention drown that, the corner is moved 30 times as far, which sharpens it; and where several
    such layers lie on the way, the corners of the last cut point that did answer are moved instead of the image's.
    A wrong layout gains little by being asked again: four places drawn at random would lie near their corners on one
    in 20,000 grids of 7x7.
    """
    unknown = sum(cut.layout.kind == "unknown" for cut in graph.cut_points)
    cuts = [cut for cut in graph.cut_points if cut.layout.grid is not None and min(cut.layout.grid) >= 4]
    silent = cuts
    for strength in _STRENGTHS:
        silent = _silent(graph, None, silent, strength)
    astray: list[CutPoint] = []
    for cut in silent:
        answered = [other for other in cuts if other.index < cut.index and other not in astray]
        if not answered or all(_silent(graph, answered[-1], [cut], strength) for strength in _STRENGTHS):
            astray.append(cut)
    return LayoutCheck(len(graph.cut_points) - unknown, unknown, len(cuts), tuple(cut.path for cut in astray))


def _silent(graph: AnchorGraph, source: CutPoint | None, cuts: Sequence[CutPoint], strength: float) -> list[CutPoint]:
    """Return the cut points that do not answer where the corners of the source (None: of the image) are moved."""
    if not cuts:
        return []
    size = graph.traced.image_size
    layout = source.layout if source else Layout("NCHW", size[0], size[1:])
    segment = graph.between(source.index if source else None, [cut.index for cut in cuts])
    total = [torch.zeros(()) for _ in cuts]
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _ in range(_PAIRS):
            pair = torch.randn(2, *size, generator=generator)
            still, other = (graph.front(source.index)(pair) if source else pair).split(1)
            values = segment(torch.cat([still, torch.where(_corners_of(layout), strength * other, still)]))
            values = [values] if isinstance(values, Tensor) else values
            total = [sum_ + _own_movement(cut.layout, v) for sum_, cut, v in zip(total, cuts, values, strict=True)]
    return [cut for cut, maps in zip(cuts, total, strict=True) if not _at_corners(maps)]


def _corners_of(layout: Layout) -> Tensor:
    """Top left, top right, bottom left and bottom right as masks of features of a layout: ``(4, ...)``."""
    assert layout.grid is not None
    height, width = layout.grid
    masks = torch.zeros(4, layout.channels, height, width, dtype=torch.bool)
    h, w = max(1, height // _PART), max(1, width // _PART)
    masks[0, :, :h, :w] = masks[1, :, :h, -w:] = masks[2, :, -h:, :w] = masks[3, :, -h:, -w:] = True
    chosen = layout.from_grid(masks)
    if layout.prefix:
        chosen = torch.cat([torch.zeros(4, layout.prefix, layout.channels, dtype=torch.bool), chosen], dim=1)
    return chosen


def _own_movement(layout: Layout, features: Tensor) -> Tensor:
    """Return how far each place moves beyond what all move, ``(4, h, w)``; the first image was not moved."""
    grids = layout.to_grid(features)
    moved = grids[1:] - grids[:1]
    return (moved - moved.mean(dim=(2, 3), keepdim=True)).square().sum(dim=1)


def _at_corners(maps: Tensor) -> bool:
    height, width = maps.shape[1:]
    corners = [(0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1)]
    near = all(
        abs(int(most) // width - y) <= height // 4 and abs(int(most) % width - x) <= width // 4
        for most, (y, x) in zip(maps.flatten(1).argmax(dim=1), corners, strict=True)
    )
    of_all = maps / maps.sum(dim=(1, 2), keepdim=True)
    shares = torch.stack([of_all[:, y, x] for y, x in corners], dim=1)
    return near or bool((shares.argmax(dim=0) == torch.arange(4)).all())
