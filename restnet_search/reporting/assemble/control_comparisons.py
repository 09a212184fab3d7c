"""Hybrids beside the search's controls: pure functions of the report."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from restnet_search.reporting.model.run_report import Report
from restnet_search.search.run.records import AnchorRecord, HybridRecord

__all__ = ["LIKE", "RandomControl", "SelfControl", "random_controls", "self_controls"]

LIKE = (0.8, 1.05)
"""From which to which share of a control's MACs a hybrid counts as one of like FLOPs."""


@dataclass(frozen=True)
class SelfControl:
    """An anchor stitched to itself; ``change`` is its val accuracy minus the anchor's."""

    control: HybridRecord
    anchor: AnchorRecord
    change: float


@dataclass(frozen=True)
class RandomControl:
    """A stitch point drawn at random, and the hybrids of like FLOPs that the search chose.

    ``median`` and ``best`` are their val accuracies, None where there are none. A best of several is above a single
    draw by luck alone, so the median is what is fair to compare.
    """

    control: HybridRecord
    chosen: int
    median: float | None
    best: float | None


def self_controls(report: Report) -> tuple[SelfControl, ...]:
    """Compare anchors stitched to themselves with the anchors as they are."""
    anchors = {anchor.name: anchor for anchor in report.anchors}
    return tuple(
        SelfControl(control, anchors[control.front.anchor], control.val.top1 - anchors[control.front.anchor].val.top1)
        for control in report.controls
    )


def random_controls(report: Report) -> tuple[RandomControl, ...]:
    """Compare random stitch points, by rising MACs, with what the search chose at like FLOPs."""
    drawn = sorted((h for h in report.hybrids if h.control == "random"), key=lambda h: (h.macs, h.id))
    compared: list[RandomControl] = []
    for control in drawn:
        low, high = (share * control.macs for share in LIKE)
        own = (h for h in report.hybrids if h.control is None and h.retrains is None)
        alike = [h.val.top1 for h in own if low <= h.macs <= high]
        middle, best = (median(alike), max(alike)) if alike else (None, None)
        compared.append(RandomControl(control, len(alike), middle, best))
    return tuple(compared)
