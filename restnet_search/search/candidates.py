"""Candidates: the stitch points worth a trial, from the cost table and the ranker alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, groupby
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from restnet_search.costs.table import AnchorCosts, Cost, hybrid_cost
from restnet_search.graph.cut_points import CutPoint
from restnet_search.search.records import Direction
from restnet_search.space.schema import CutPointSpec, SearchSpace, StitchKind
from restnet_search.stitching.plan import StitchPlan, why_not_stitchable
from restnet_search.units import DeviceBudget

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from restnet_search.search.device_costs import DeviceCosts

__all__ = [
    "Candidate",
    "CandidateKey",
    "Enumeration",
    "by_front",
    "directions_of",
    "enumerate_candidates",
    "offered_cuts",
]

CandidateKey = tuple[str, int, str, int, str]
"""Front anchor and cut, back anchor and cut, kind of the stitch layer."""

_N = TypeVar("_N", int, float)


@dataclass(frozen=True)
class Candidate:
    """A stitch point that may be trained, with one kind of stitch layer.

    ``rank`` is its place in the ranker's order among the stitch points of the same front cut and partner (0 first),
    ``score`` the ranker's value (higher is better); ``scores`` are those of every ranker that was computed, by name.
    ``front_macs`` are the front's part of the cost.
    """

    direction: Direction
    front_cut: int
    back_cut: int
    plan: StitchPlan
    cost: Cost
    score: float
    rank: int
    scores: Mapping[str, float] = field(default_factory=dict, compare=False)
    front_macs: int = 0

    def work(self, epochs: int) -> int:
        """About the MACs of a trial per training image: the front runs once, the rest forwards and back each epoch.

        A backward pass is taken for two forward passes. At least 1.
        """
        return max(1, self.front_macs + (self.cost.macs - self.front_macs) * max(1, 3 * epochs))

    @property
    def key(self) -> CandidateKey:
        """Identifies the candidate."""
        return (self.direction.front, self.front_cut, self.direction.back, self.back_cut, self.plan.kind)


@dataclass(frozen=True)
class Enumeration:
    """The candidates, and what became of all other stitch points; ``passed_over`` are those that were ranked out.

    Stitch points are counted once, whatever kinds of stitch layers there are: one is over budget if all kinds are.
    """

    candidates: tuple[Candidate, ...]
    stitch_points: int
    unstitchable: int
    over_budget: int
    costlier_than_anchors: int
    ranked_out: int
    cheapest: Cost | None = None
    passed_over: tuple[Candidate, ...] = ()
    least_memory: int | None = None
    least_latency: float | None = None


def directions_of(space: SearchSpace, costs: Mapping[str, AnchorCosts]) -> list[Direction]:
    """All (front, back) anchors of the space's pairs and orders; the larger anchor is the one with more MACs."""
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
    """Indices of the anchor's cut points that the space offers: depth bounds, then include / exclude."""
    chosen = spec.anchors.get(name)

    def listed(cut: CutPoint, keys: Sequence[int | str]) -> bool:
        return cut.index in keys or cut.path in keys

    cuts = [cut for cut in cut_points if spec.min_depth <= costs.depth(cut.index) <= spec.max_depth]
    if chosen is not None and chosen.include is not None:
        cuts = [cut for cut in cuts if listed(cut, chosen.include)]
    if chosen is not None:
        cuts = [cut for cut in cuts if not listed(cut, chosen.exclude)]
    return [cut.index for cut in cuts]


def enumerate_candidates(
    space: SearchSpace,
    budgets: Sequence[DeviceBudget],
    cut_points: Mapping[str, Sequence[CutPoint]],
    costs: Mapping[str, AnchorCosts],
    scores: Mapping[tuple[str, str], NDArray[np.float64]],
    every_score: Mapping[str, Mapping[tuple[str, str], NDArray[np.float64]]] | None = None,
    device: DeviceCosts | None = None,
) -> Enumeration:
    """List the candidates of every direction: stitchable, within a budget, and the ranker's ``top_k`` of their front.

    Each of the stitch points that are kept comes with every kind of stitch layer that the budgets allow.

    Args:
        space: Pairs, orders, cut-point bounds, kinds of stitch layers and ``top_k``.
        budgets: A candidate must fit at least one.
        cut_points: Per anchor.
        costs: Per anchor.
        scores: Per (front, back) anchor names: ranker values ``(front cuts, back cuts)``, higher is better.
        every_score: The same of every ranker, by its name; noted in the candidates.
        device: Memory and latency of hybrids; None: they stay unknown.
    """
    offered = {name: offered_cuts(space.cut_points, name, cut_points[name], costs[name]) for name in cut_points}
    plans = _Plans(space.stitch.kind, cut_points)
    kept: list[Candidate] = []
    passed_over: list[Candidate] = []
    cheapest: Cost | None = None
    least_memory: int | None = None
    least_latency: float | None = None
    counts = {"stitch_points": 0, "unstitchable": 0, "over_budget": 0, "costlier": 0, "ranked_out": 0}
    for direction in directions_of(space, costs):
        front, back = costs[direction.front], costs[direction.back]
        ceiling = max(front.total.macs, back.total.macs)
        for front_cut in offered[direction.front]:
            front_macs = front.fronts[front_cut].macs
            row: list[tuple[float, int, list[tuple[StitchPlan, Cost]]]] = []
            for back_cut in offered[direction.back]:
                counts["stitch_points"] += 1
                if not (possible := plans.between((direction.front, front_cut), (direction.back, back_cut))):
                    counts["unstitchable"] += 1
                    continue
                priced: list[tuple[StitchPlan, Cost]] = []
                for plan in possible:
                    cost = hybrid_cost(front, front_cut, plan.cost, back, back_cut)
                    if device is not None:
                        cost = device.priced(cost, (direction.front, front_cut), plan, (direction.back, back_cut))
                    least_memory = _least(least_memory, cost.memory)
                    least_latency = _least(least_latency, cost.latency)
                    cheapest = cost if cheapest is None or cost.macs < cheapest.macs else cheapest
                    priced.append((plan, cost))
                allowed = [(plan, cost) for plan, cost in priced if any(_allows(budget, cost) for budget in budgets)]
                cheap = [(plan, cost) for plan, cost in allowed if cost.macs < ceiling]
                if not allowed:
                    counts["over_budget"] += 1
                elif not cheap:
                    counts["costlier"] += 1
                else:
                    score = float(scores[direction.front, direction.back][front_cut, back_cut])
                    row.append((score, back_cut, cheap))
            row.sort(key=lambda entry: (-entry[0], entry[1]))
            counts["ranked_out"] += len(row[space.top_k :])
            for rank, (score, back_cut, kinds) in enumerate(row):
                every = _scores_at(every_score, direction, (front_cut, back_cut))
                found = [
                    Candidate(direction, front_cut, back_cut, plan, cost, score, rank, every, front_macs)
                    for plan, cost in kinds
                ]
                (kept if rank < space.top_k else passed_over).extend(found)
    return Enumeration(
        tuple(kept),
        counts["stitch_points"],
        counts["unstitchable"],
        counts["over_budget"],
        counts["costlier"],
        counts["ranked_out"],
        cheapest,
        tuple(passed_over),
        least_memory,
        least_latency,
    )


class _Plans:
    """Stitch plans between cut points. Few layouts differ, so a plan and its costs serve many stitch points."""

    def __init__(self, kinds: Sequence[StitchKind], cut_points: Mapping[str, Sequence[CutPoint]]) -> None:
        self._kinds = kinds
        self._layouts = list(dict.fromkeys(cut.layout for cuts in cut_points.values() for cut in cuts))
        places = {layout: place for place, layout in enumerate(self._layouts)}
        self._places = {name: [places[cut.layout] for cut in cuts] for name, cuts in cut_points.items()}
        self._known: dict[tuple[int, int], tuple[StitchPlan, ...]] = {}

    def between(self, front: tuple[str, int], back: tuple[str, int]) -> tuple[StitchPlan, ...]:
        """One of every kind; none where no stitch layer joins the two."""
        pair = self._places[front[0]][front[1]], self._places[back[0]][back[1]]
        if pair not in self._known:
            source, target = self._layouts[pair[0]], self._layouts[pair[1]]
            joined = why_not_stitchable(source, target) is None
            self._known[pair] = tuple(StitchPlan(kind, source, target) for kind in self._kinds) if joined else ()
        return self._known[pair]


def _scores_at(
    every_score: Mapping[str, Mapping[tuple[str, str], NDArray[np.float64]]] | None,
    direction: Direction,
    at: tuple[int, int],
) -> dict[str, float]:
    found = {name: pairs[direction.front, direction.back][at] for name, pairs in (every_score or {}).items()}
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def _allows(budget: DeviceBudget, cost: Cost) -> bool:
    return budget.allows(macs=cost.macs, params=cost.params, memory=cost.memory, latency=cost.latency)


def _least(so_far: _N | None, value: _N | None) -> _N | None:
    known = [number for number in (so_far, value) if number is not None]
    return min(known, default=None)


def by_front(candidates: Iterable[Candidate]) -> dict[Direction, dict[int, list[Candidate]]]:
    """Group candidates by direction, then by front cut, each in the ranker's order."""
    ordered = sorted(candidates, key=lambda c: (str(c.direction), c.front_cut, c.rank))
    return {
        direction: {cut: list(row) for cut, row in groupby(group, key=lambda c: c.front_cut)}
        for direction, group in groupby(ordered, key=lambda c: c.direction)
    }
