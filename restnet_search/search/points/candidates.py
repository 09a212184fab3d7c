"""Candidates: the stitch points worth a trial, from the cost table and the ranker alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeVar

import numpy as np

from restnet_search.costs.cost import Cost
from restnet_search.costs.cost_table import AnchorCosts, hybrid_cost
from restnet_search.errors import BudgetError
from restnet_search.graph.cut_points import CutPoint
from restnet_search.search.points.device_costs import DeviceCosts
from restnet_search.search.points.keeping import Ranked, best_first, best_of_buckets, first_partners
from restnet_search.search.points.stitch_points import Plans, StitchPoint, directions_of, offered_cuts
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.run.records import Direction
from restnet_search.search.run.session import Session
from restnet_search.similarity.rankers import PairScores
from restnet_search.space.schema import SearchSpace
from restnet_search.stitching.plan import StitchPlan
from restnet_search.units import DeviceBudget, format_bytes, format_count, format_seconds, round_up

__all__ = [
    "Candidate",
    "CandidateKey",
    "Enumeration",
    "by_front",
    "enumerate_candidates",
    "list_candidates",
    "require_candidates",
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
        """Estimate the MACs of a trial per training image: the front runs once, the rest forwards and back each epoch.

        A backward pass is taken for two forward passes. At least 1.
        """
        return max(1, self.front_macs + (self.cost.macs - self.front_macs) * max(1, 3 * epochs))

    @property
    def key(self) -> CandidateKey:
        """The identity of the candidate."""
        return (self.direction.front, self.front_cut, self.direction.back, self.back_cut, self.plan.kind)


@dataclass(frozen=True)
class Enumeration:
    """The candidates, and counts of all other stitch points; ``passed_over`` are those that were ranked out.

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


def enumerate_candidates(
    space: SearchSpace,
    budgets: Sequence[DeviceBudget],
    cut_points: Mapping[str, Sequence[CutPoint]],
    costs: Mapping[str, AnchorCosts],
    scores: Mapping[str, PairScores],
    device: DeviceCosts | None = None,
) -> Enumeration:
    """List the candidates of every direction: stitchable, within a budget, and kept by the space's rule ``keep``.

    Each of the stitch points that are kept comes with every kind of stitch layer that the budgets allow.

    Args:
        space: Pairs, orders, cut-point bounds, kinds of stitch layers, the ranker, ``keep`` and ``top_k``.
        budgets: A candidate must fit at least one.
        cut_points: Per anchor.
        costs: Per anchor.
        scores: Per ranker, the search's own among them, and per (front, back) anchor names: values
            ``(front cuts, back cuts)``, higher is better.
        device: Memory and latency of hybrids; None: they stay unknown.
    """
    offered = {name: offered_cuts(space.cut_points, name, cut_points[name], costs[name]) for name in cut_points}
    plans = Plans(space.stitch, cut_points)
    kept: list[Candidate] = []
    passed_over: list[Candidate] = []
    least = _Least()
    counts = {"stitch_points": 0, "unstitchable": 0, "over_budget": 0, "costlier_than_anchors": 0, "ranked_out": 0}
    for direction in directions_of(space, costs):
        front, back = costs[direction.front], costs[direction.back]
        ceiling = max(front.total.macs, back.total.macs)
        rows: dict[int, list[tuple[Ranked, list[tuple[StitchPlan, Cost]]]]] = {}
        for front_cut in offered[direction.front]:
            row = rows.setdefault(front_cut, [])
            for back_cut in offered[direction.back]:
                counts["stitch_points"] += 1
                points = [
                    StitchPoint((direction.front, front_cut), plan, (direction.back, back_cut))
                    for plan in plans.between((direction.front, front_cut), (direction.back, back_cut))
                ]
                priced = [(point.plan, _price(point, costs, device)) for point in points]
                least.see(cost for _, cost in priced)
                allowed = [(plan, cost) for plan, cost in priced if any(cost.fits(budget) for budget in budgets)]
                cheap = [(plan, cost) for plan, cost in allowed if cost.macs < ceiling]
                if not points:
                    counts["unstitchable"] += 1
                elif not allowed:
                    counts["over_budget"] += 1
                elif not cheap:
                    counts["costlier_than_anchors"] += 1
                else:
                    score = scores[space.ranker.kind][direction.front, direction.back][front_cut, back_cut]
                    least_macs = min(cost.macs for _, cost in cheap)
                    row.append((Ranked((front_cut, back_cut), least_macs, float(score)), cheap))
        chosen = _chosen(space, [point for row in rows.values() for point, _ in row])
        for front_cut, row in rows.items():
            row.sort(key=lambda entry: best_first(entry[0]))
            for rank, (point, kinds) in enumerate(row):
                went_on = point.place in chosen
                counts["ranked_out"] += not went_on
                every = _scores_at(scores, direction, point.place)
                macs = front.fronts[front_cut].macs
                (kept if went_on else passed_over).extend(
                    Candidate(direction, *point.place, plan, cost, point.score, rank, every, macs)
                    for plan, cost in kinds
                )
    return Enumeration(tuple(kept), **counts, passed_over=tuple(passed_over), **vars(least))


def _chosen(space: SearchSpace, points: Sequence[Ranked]) -> frozenset[tuple[int, int]]:
    """The stitch points of a direction that the space's rule keeps."""
    return first_partners(points, space.top_k) if space.keep == "top_k" else best_of_buckets(points)


def list_candidates(
    session: Session, prepared: Prepared, scores: Mapping[str, PairScores], prices: DeviceCosts
) -> Enumeration:
    """Enumerate the candidates of a search; arguments as for :func:`enumerate_candidates`.

    Raises:
        BudgetError: If there is none.
    """
    cut_points, costs = prepared.cut_points, prepared.costs
    enumeration = enumerate_candidates(session.space, session.budgets, cut_points, costs, scores, prices)
    require_candidates(enumeration, session.budgets)
    return enumeration


def require_candidates(enumeration: Enumeration, budgets: Sequence[DeviceBudget]) -> None:
    """Refuse a search that has nothing to train.

    Raises:
        BudgetError: If there is no candidate; says from which budget on there is one.
    """
    if enumeration.candidates:
        return
    names = " or ".join(budget.name for budget in budgets)
    cheapest = enumeration.cheapest
    if cheapest is None:
        raise BudgetError(
            "The anchors have no stitch point: no two of their cut points can be joined.",
            hint="look at `restnet-search anchors inspect MODEL`, and widen cut_points in the space",
        )
    least = [f"{format_count(round_up(cheapest.macs))}FLOPs"]
    if enumeration.least_memory is not None:
        least.append(f"{format_bytes(round_up(enumeration.least_memory))} of memory")
    if enumeration.least_latency is not None:
        least.append(f"{format_seconds(round_up(enumeration.least_latency))} of latency")
    raise BudgetError(
        f"No hybrid of these anchors fits {names} (and costs less than the larger anchor).",
        expected=f"a budget of at least {' and '.join(least)}; the cheapest hybrid has "
        f"{format_count(round_up(cheapest.params))} params",
        hint="raise --budget, or add a smaller anchor to the space",
    )


@dataclass
class _Least:
    """The least costs seen so far: of the hybrid with the fewest MACs, and of any hybrid."""

    cheapest: Cost | None = None
    least_memory: int | None = None
    least_latency: float | None = None

    def see(self, costs: Iterable[Cost]) -> None:
        for cost in costs:
            self.cheapest = cost if self.cheapest is None or cost.macs < self.cheapest.macs else self.cheapest
            self.least_memory = _least(self.least_memory, cost.memory)
            self.least_latency = _least(self.least_latency, cost.latency)


def _price(point: StitchPoint, costs: Mapping[str, AnchorCosts], device: DeviceCosts | None) -> Cost:
    (front, front_cut), (back, back_cut) = point.front, point.back
    cost = hybrid_cost(costs[front], front_cut, point.plan.cost, costs[back], back_cut)
    return cost if device is None else device.priced(cost, point)


def _scores_at(scores: Mapping[str, PairScores], direction: Direction, at: tuple[int, int]) -> dict[str, float]:
    values = {name: pairs[direction.front, direction.back][at] for name, pairs in scores.items()}
    return {name: float(value) for name, value in values.items() if np.isfinite(value)}


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
