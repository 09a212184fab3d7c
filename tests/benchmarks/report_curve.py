"""A search over time, from its report: the hypervolume of its Pareto set on val against wall-clock. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from restnet_search.pareto.front import hypervolume
from restnet_search.reporting.model.run_report import Report

__all__ = ["Moment", "anytime_curve"]


@dataclass(frozen=True)
class Moment:
    """From ``seconds`` after the search began, until the next moment, its Pareto set had this hypervolume."""

    seconds: float
    hypervolume: float


def anytime_curve(report: Report, cost: float | None = None, accuracy: float = 0.0) -> tuple[Moment, ...]:
    """Return the hypervolume in accuracy on val and MACs, as a share of the limit, whenever it grew.

    The anchors are there from the beginning. Hybrids without a finishing time (of earlier versions) are left out.

    Args:
        cost: MACs of the reference point; those of the costliest anchor if left out.
        accuracy: Of the reference point.
    """
    limit = max(anchor.macs for anchor in report.anchors) if cost is None else cost
    points = [(anchor.val.top1, float(anchor.macs)) for anchor in report.anchors]
    moments = [Moment(0.0, hypervolume(points, limit, accuracy) / limit)]
    timed = [(hybrid.finished, hybrid) for hybrid in report.hybrids if hybrid.finished is not None]
    for seconds, hybrid in sorted(timed, key=lambda pair: (pair[0], pair[1].id)):
        points.append((hybrid.val.top1, float(hybrid.macs)))
        if (grown := hypervolume(points, limit, accuracy) / limit) > moments[-1].hypervolume:
            moments.append(Moment(seconds, grown))
    return tuple(moments)
