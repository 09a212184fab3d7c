"""How good a search was at any time: the hypervolume of its Pareto set on val against wall-clock. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from restnet_search.reporting.report import Report

__all__ = ["Moment", "anytime_curve", "hypervolume"]


@dataclass(frozen=True)
class Moment:
    """From ``seconds`` after the search began, until the next moment, its Pareto set had this hypervolume."""

    seconds: float
    hypervolume: float


def hypervolume(points: Iterable[tuple[float, float]], cost: float, accuracy: float = 0.0) -> float:
    """Area that points dominate, above ``accuracy`` and up to ``cost``, as a share of that cost.

    It is the mean, over budgets spread evenly from 0 to ``cost``, of how far the best point within the budget lies
    above ``accuracy``.

    Args:
        points: (accuracy, cost) each.
        cost: Of the reference point; what costs as much or more adds nothing.
        accuracy: Of the reference point.

    >>> hypervolume([(0.5, 2.0), (0.8, 6.0), (0.4, 4.0)], cost=10.0)
    0.52
    """
    area, best = 0.0, accuracy
    for reached, at in sorted(points, key=lambda point: point[1]):
        if reached > best and at < cost:
            area += (reached - best) * (cost - at)
            best = reached
    return area / cost


def anytime_curve(report: Report, cost: float | None = None, accuracy: float = 0.0) -> tuple[Moment, ...]:
    """Hypervolume in accuracy on val and MACs, whenever it grew; the anchors are there from the beginning.

    Hybrids whose finishing time was not kept (by earlier versions) are left out.

    Args:
        cost: MACs of the reference point; those of the costliest anchor if left out.
        accuracy: Of the reference point.
    """
    limit = max(anchor.macs for anchor in report.anchors) if cost is None else cost
    points = [(anchor.val.top1, float(anchor.macs)) for anchor in report.anchors]
    moments = [Moment(0.0, hypervolume(points, limit, accuracy))]
    timed = [(hybrid.finished, hybrid) for hybrid in report.hybrids if hybrid.finished is not None]
    for seconds, hybrid in sorted(timed, key=lambda pair: (pair[0], pair[1].id)):
        points.append((hybrid.val.top1, float(hybrid.macs)))
        if (grown := hypervolume(points, limit, accuracy)) > moments[-1].hypervolume:
            moments.append(Moment(seconds, grown))
    return tuple(moments)
