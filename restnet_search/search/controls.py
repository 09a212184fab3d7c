"""Controls: what a search trains beside its candidates, so that its hybrids have something to be compared with.

An anchor stitched to itself shows what a stitch layer alone costs or adds; stitch points drawn at random among those
that the ranker passed over, at like FLOPs, show what the ranker is worth. Both are trained and scored as any trial is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from restnet_search.costs.table import AnchorCosts, hybrid_cost
from restnet_search.graph.cut_points import CutPoint
from restnet_search.search.candidates import Candidate, Enumeration, offered_cuts
from restnet_search.search.records import Direction
from restnet_search.search.trial import TrainingChoices
from restnet_search.space.schema import SearchSpace, TrainingSpec
from restnet_search.stitching.plan import StitchPlan, why_not_stitchable

if TYPE_CHECKING:
    from restnet_search.search.device_costs import DeviceCosts

__all__ = ["Control", "ControlKind", "control_choices", "plan_controls", "self_stitches"]

ControlKind = Literal["self", "random"]


@dataclass(frozen=True)
class Control:
    """A control to train; ``id`` names its hybrid."""

    id: str
    kind: ControlKind
    candidate: Candidate


def control_choices(training: TrainingSpec) -> TrainingChoices:
    """How controls are trained: the middle of what the search may choose, and the first of what it lists."""
    (low, high), (fewest, most) = training.lr, training.epochs
    return TrainingChoices(
        lr=(low * high) ** 0.5,
        epochs=(fewest + most + 1) // 2,
        tune=training.tune[0],
        match_epochs=training.match_epochs[0],
        distill=training.distill[0],
    )


def plan_controls(
    space: SearchSpace,
    cut_points: Mapping[str, Sequence[CutPoint]],
    costs: Mapping[str, AnchorCosts],
    enumeration: Enumeration,
    device: DeviceCosts | None = None,
) -> tuple[Control, ...]:
    """The controls of a search; the same for the same space, seed and ranking, also after a resume."""
    own = [candidate for name in cut_points for candidate in self_stitches(space, name, cut_points[name], costs[name])]
    if device is not None:
        own = [replace(one, cost=device.priced(one.cost, *_point(one))) for one in own]
    drawn = _draw(enumeration, space.controls.random, np.random.default_rng([space.search.seed, 1]))
    return (
        *(Control(f"s{number:03d}", "self", candidate) for number, candidate in enumerate(own)),
        *(Control(f"r{number:03d}", "random", candidate) for number, candidate in enumerate(drawn)),
    )


def _point(candidate: Candidate) -> tuple[tuple[str, int], StitchPlan, tuple[str, int]]:
    front, back = candidate.direction.front, candidate.direction.back
    return (front, candidate.front_cut), candidate.plan, (back, candidate.back_cut)


def self_stitches(space: SearchSpace, name: str, cut_points: Sequence[CutPoint], costs: AnchorCosts) -> list[Candidate]:
    """The anchor cut and stitched at ``controls.self`` places spread over its depth; they cost more than the anchor."""
    count = space.controls.self
    offered = offered_cuts(space.cut_points, name, cut_points, costs)
    usable = [cut for cut in offered if why_not_stitchable(cut_points[cut].layout, cut_points[cut].layout) is None]
    chosen: list[int] = []
    for number in range(min(count, len(usable))):
        depth = (number + 1) / (count + 1)
        left = (cut for cut in usable if cut not in chosen)
        chosen.append(min(left, key=lambda cut: (abs(costs.depth(cut) - depth), cut)))
    direction = Direction(name, name, "large_to_small")
    found: list[Candidate] = []
    for cut in sorted(chosen):
        plan = StitchPlan(space.stitch.kind[0], cut_points[cut].layout, cut_points[cut].layout)
        cost = hybrid_cost(costs, cut, plan.cost, costs, cut)
        found.append(Candidate(direction, cut, cut, plan, cost, score=float("nan"), rank=0))
    return found


def _draw(enumeration: Enumeration, count: int, generator: np.random.Generator) -> list[Candidate]:
    """One stitch point that was ranked out from each of ``count`` ranges of MACs that hold equally many candidates.

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
