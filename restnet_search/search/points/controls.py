"""Controls: hybrids trained beside the candidates, so that these have something to be compared with.

An anchor stitched to itself shows what a stitch layer alone costs or adds; stitch points drawn at random among those
that the ranker passed over, at like FLOPs, show what the ranker is worth. Both are trained and scored as any trial is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from restnet_search.costs.cost_table import AnchorCosts, hybrid_cost
from restnet_search.search.points.candidates import Candidate, Enumeration
from restnet_search.search.points.device_costs import DeviceCosts
from restnet_search.search.points.stitch_points import StitchPoint, self_stitches
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.run.records import Direction
from restnet_search.space.schema import SearchSpace

__all__ = ["Control", "ControlKind", "plan_controls"]

ControlKind = Literal["self", "random"]


@dataclass(frozen=True)
class Control:
    """A control to train; ``id`` names its hybrid."""

    id: str
    kind: ControlKind
    candidate: Candidate


def plan_controls(
    space: SearchSpace, prepared: Prepared, enumeration: Enumeration, device: DeviceCosts | None = None
) -> tuple[Control, ...]:
    """Plan the controls of a search; the same for the same space, seed and ranking, also after a resume."""
    own = [
        _self_candidate(point, prepared.costs[name], device)
        for name, cuts in prepared.cut_points.items()
        for point in self_stitches(space, name, cuts, prepared.costs[name])
    ]
    drawn = _draw(enumeration, space.controls.random, np.random.default_rng([space.search.seed, 1]))
    return (
        *(Control(f"s{number:03d}", "self", candidate) for number, candidate in enumerate(own)),
        *(Control(f"r{number:03d}", "random", candidate) for number, candidate in enumerate(drawn)),
    )


def _self_candidate(point: StitchPoint, costs: AnchorCosts, device: DeviceCosts | None) -> Candidate:
    """Return the candidate that stitches an anchor to itself; it costs more than the anchor."""
    name, cut = point.front
    cost = hybrid_cost(costs, cut, point.plan.cost, costs, cut)
    cost = cost if device is None else device.priced(cost, point)
    return Candidate(Direction(name, name, "large_to_small"), cut, cut, point.plan, cost, score=float("nan"), rank=0)


def _draw(enumeration: Enumeration, count: int, generator: np.random.Generator) -> list[Candidate]:
    """Draw one stitch point that was ranked out from each of ``count`` ranges of MACs with equally many candidates.

    The outer quarters of a range are left out, so that candidates lie on both sides of what is drawn. Where a range
    holds none, the nearest one is taken.
    """
    costs = [candidate.cost.macs for candidate in enumeration.candidates]
    ranges = [np.quantile(costs, [(part + 0.25) / count, (part + 0.75) / count]).tolist() for part in range(count)]
    left = sorted(enumeration.passed_over, key=lambda candidate: candidate.key)
    drawn: list[Candidate] = []
    for low, high in ranges:
        if not left:
            break
        middle = (low + high) / 2
        inside = [candidate for candidate in left if low <= candidate.cost.macs <= high]
        inside = inside or [min(left, key=lambda candidate: abs(candidate.cost.macs - middle))]
        chosen = inside[int(generator.integers(len(inside)))]
        left = [candidate for candidate in left if candidate.key != chosen.key]
        drawn.append(chosen)
    return drawn
