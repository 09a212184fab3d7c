"""Pareto sets of (accuracy, costs): high accuracy, low costs. Pure functions over plain tuples; imports nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["Point", "dominated", "dominates", "hypervolume", "non_dominated", "shortfall"]

Point = tuple[float, ...]
"""(accuracy, cost, cost, ...): the first is to be high, all others low; all points have the same costs."""


def dominates(a: Point, b: Point) -> bool:
    """Return True where ``a`` is as accurate as ``b`` or more at no more of any cost, and strictly better in one."""
    costs = list(zip(a[1:], b[1:], strict=True))
    if a[0] < b[0] or any(mine > theirs for mine, theirs in costs):
        return False
    return a[0] > b[0] or any(mine < theirs for mine, theirs in costs)


def dominated(points: Sequence[Point]) -> tuple[bool, ...]:
    """Say of each point whether another one dominates it; equal points do not dominate each other."""
    # Only a better or equal point can dominate, so looking at the front found so far is enough: sort best first.
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], *points[i][1:]))
    front: list[Point] = []
    flags = [False] * len(points)
    for i in order:
        flags[i] = any(dominates(member, points[i]) for member in front)
        if not flags[i]:
            front.append(points[i])
    return tuple(flags)


def non_dominated(points: Sequence[Point]) -> tuple[int, ...]:
    """Return the indices of the Pareto set, by rising costs (first cost first), then rising accuracy."""
    kept = [i for i, flag in enumerate(dominated(points)) if not flag]
    return tuple(sorted(kept, key=lambda i: (*points[i][1:], points[i][0])))


def shortfall(point: Point, points: Sequence[Point]) -> float:
    """Return how much accuracy a point lacks against the best of ``points`` at no more of any cost (0: none better)."""
    rivals = [other[0] for other in points if all(a <= b for a, b in zip(other[1:], point[1:], strict=True))]
    return max(0.0, max(rivals, default=point[0]) - point[0])


def hypervolume(points: Iterable[tuple[float, float]], cost: float, accuracy: float = 0.0) -> float:
    """Return the area that points of one cost dominate, above ``accuracy`` and up to ``cost``.

    Divided by ``cost``, it is the mean, over budgets spread evenly from 0 to ``cost``, of how far the best point within
    the budget lies above ``accuracy``.

    Args:
        points: (accuracy, cost) each.
        cost: Of the reference point; what costs as much or more adds nothing.
        accuracy: Of the reference point.

    >>> hypervolume([(0.5, 2.0), (0.75, 6.0), (0.25, 4.0)], cost=10.0)
    5.0
    """
    area, best = 0.0, accuracy
    for reached, at in sorted(points, key=lambda point: point[1]):
        if reached > best and at < cost:
            area += (reached - best) * (cost - at)
            best = reached
    return area
