"""Stitch points of a space: the directions, the cut points that are offered, and the stitch layers that join them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from restnet_search.costs.cost_table import AnchorCosts
from restnet_search.graph.cut_points import CutPoint
from restnet_search.search.run.records import Direction
from restnet_search.space.schema import CutPointSpec, SearchSpace, StitchSpec
from restnet_search.stitching.plan import StitchPlan, plans_between

__all__ = ["Plans", "StitchPoint", "directions_of", "offered_cuts", "self_stitches", "stitch_points"]

CutPoints = Mapping[str, Sequence[CutPoint]]
"""The cut points of every anchor, by its name."""


@dataclass(frozen=True)
class StitchPoint:
    """A front (anchor and cut point), a stitch plan and a back that fit together."""

    front: tuple[str, int]
    plan: StitchPlan
    back: tuple[str, int]


class Plans:
    """Stitch plans between cut points. Few layouts differ, so a plan and its costs serve many stitch points."""

    def __init__(self, stitch: StitchSpec, cut_points: CutPoints) -> None:
        self._stitch = stitch
        self._layouts = list(dict.fromkeys(cut.layout for cuts in cut_points.values() for cut in cuts))
        numbers = {layout: number for number, layout in enumerate(self._layouts)}
        self._numbers = {name: [numbers[cut.layout] for cut in cuts] for name, cuts in cut_points.items()}
        self._known: dict[tuple[int, int], tuple[StitchPlan, ...]] = {}

    def between(self, front: tuple[str, int], back: tuple[str, int]) -> tuple[StitchPlan, ...]:
        """Return one plan of every kind; none where no stitch layer joins the two."""
        pair = self._numbers[front[0]][front[1]], self._numbers[back[0]][back[1]]
        if pair not in self._known:
            source, target = self._layouts[pair[0]], self._layouts[pair[1]]
            self._known[pair] = plans_between(self._stitch.kind, source, target, self._stitch.terms)
        return self._known[pair]


def directions_of(space: SearchSpace, costs: Mapping[str, AnchorCosts]) -> list[Direction]:
    """Return all directions of the space's pairs and orders; the larger anchor is the one with more MACs."""
    pairs: Iterable[Sequence[str]] = space.pairs or combinations([anchor.name for anchor in space.anchors], 2)
    directions: list[Direction] = []
    for pair in pairs:
        large, small = sorted(pair, key=lambda name: costs[name].total.macs, reverse=True)
        for order in space.orders:
            front, back = (large, small) if order == "large_to_small" else (small, large)
            direction = Direction(front, back, order)
            if direction not in directions:
                directions.append(direction)
    return directions


def offered_cuts(spec: CutPointSpec, name: str, cut_points: Sequence[CutPoint], costs: AnchorCosts) -> list[int]:
    """Return the indices of the anchor's cut points that the space offers: depth bounds, then include / exclude."""
    chosen = spec.anchors.get(name)

    def listed(cut: CutPoint, keys: Sequence[int | str]) -> bool:
        return cut.index in keys or cut.path in keys

    cuts = [cut for cut in cut_points if spec.min_depth <= costs.depth(cut.index) <= spec.max_depth]
    if chosen is not None and chosen.include is not None:
        cuts = [cut for cut in cuts if listed(cut, chosen.include)]
    if chosen is not None:
        cuts = [cut for cut in cuts if not listed(cut, chosen.exclude)]
    return [cut.index for cut in cuts]


def stitch_points(space: SearchSpace, cut_points: CutPoints, costs: Mapping[str, AnchorCosts]) -> list[StitchPoint]:
    """Return every stitch point that the space offers and a stitch layer can join, with every kind of layer."""
    offered = {name: offered_cuts(space.cut_points, name, cuts, costs[name]) for name, cuts in cut_points.items()}
    plans = Plans(space.stitch, cut_points)
    return [
        StitchPoint((direction.front, i), plan, (direction.back, j))
        for direction in directions_of(space, costs)
        for i in offered[direction.front]
        for j in offered[direction.back]
        for plan in plans.between((direction.front, i), (direction.back, j))
    ]


def self_stitches(
    space: SearchSpace, name: str, cut_points: Sequence[CutPoint], costs: AnchorCosts
) -> list[StitchPoint]:
    """Return the points at which an anchor is stitched to itself: ``controls.self``, spread over its depth."""
    count = space.controls.self
    offered = offered_cuts(space.cut_points, name, cut_points, costs)
    layouts = {cut: cut_points[cut].layout for cut in offered}
    kinds, terms = space.stitch.kind[:1], space.stitch.terms
    plans = {cut: plan for cut in offered for plan in plans_between(kinds, layouts[cut], layouts[cut], terms)}
    chosen: list[int] = []
    for number in range(min(count, len(plans))):
        depth = (number + 1) / (count + 1)
        left = (cut for cut in plans if cut not in chosen)
        chosen.append(min(left, key=lambda cut: (abs(costs.depth(cut) - depth), cut)))
    return [StitchPoint((name, cut), plans[cut], (name, cut)) for cut in sorted(chosen)]
