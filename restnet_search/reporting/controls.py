"""How the search's hybrids compare with its controls: pure functions of the report, and the terminal's section."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from restnet_search.reporting import phrases
from restnet_search.reporting.network_tables import indented, paragraph
from restnet_search.reporting.report import AnchorEntry, HybridEntry, Report
from restnet_search.units import format_count

__all__ = ["LIKE", "RandomControl", "SelfControl", "control_blocks", "random_controls", "self_controls"]

LIKE = (0.8, 1.05)
"""From which to which share of a control's MACs a hybrid counts as one of like FLOPs."""


@dataclass(frozen=True)
class SelfControl:
    """An anchor stitched to itself; ``change`` is its val accuracy minus the anchor's."""

    control: HybridEntry
    anchor: AnchorEntry
    change: float


@dataclass(frozen=True)
class RandomControl:
    """A stitch point drawn at random, and the hybrids of like FLOPs that the search chose.

    ``median`` and ``best`` are their val accuracies, None where there are none. A best of several is above a single
    draw by luck alone, so the median is what is fair to compare.
    """

    control: HybridEntry
    chosen: int
    median: float | None
    best: float | None


def self_controls(report: Report) -> tuple[SelfControl, ...]:
    """Anchors stitched to themselves, against the anchors as they are."""
    anchors = {anchor.name: anchor for anchor in report.anchors}
    return tuple(
        SelfControl(control, anchors[control.front.anchor], control.val.top1 - anchors[control.front.anchor].val.top1)
        for control in report.controls
    )


def random_controls(report: Report) -> tuple[RandomControl, ...]:
    """Random stitch points by rising MACs, against what the search chose at like FLOPs."""
    drawn = sorted((h for h in report.hybrids if h.control == "random"), key=lambda h: (h.macs, h.id))
    found: list[RandomControl] = []
    for control in drawn:
        low, high = (share * control.macs for share in LIKE)
        alike = [h.val.top1 for h in report.hybrids if h.control is None and low <= h.macs <= high]
        middle, best = (median(alike), max(alike)) if alike else (None, None)
        found.append(RandomControl(control, len(alike), middle, best))
    return tuple(found)


def control_blocks(report: Report) -> list[RenderableType]:
    """The section on controls: two small tables and what they say."""
    own, drawn = self_controls(report), random_controls(report)
    blocks: list[RenderableType] = []
    if own:
        blocks += [_self_table(own), paragraph(_self_sentence(own), style="dim")]
    if drawn:
        blocks += [Text("")] * bool(own) + [_random_table(drawn), paragraph(_random_sentence(drawn), style="dim")]
    missing = report.trials.controls_planned - report.trials.controls
    if missing > 0:
        were = "1 control was" if missing == 1 else f"{missing} controls were"
        blocks.append(paragraph(f"{were} not trained to the end: its loss was not finite, or search.timeout passed."))
    return blocks


def _self_table(rows: Sequence[SelfControl]) -> RenderableType:
    table = _table("id", "anchor stitched to itself", "MACs", "val %", "anchor %", "change")
    for row in rows:
        entry = row.control
        table.add_row(
            *map(Text, (entry.id, " + ".join(phrases.parts(entry)), format_count(entry.macs))),
            *map(Text, (phrases.percent(entry.val.top1), phrases.percent(row.anchor.val.top1))),
            Text(phrases.points(row.change)),
        )
    return indented(table)


def _self_sentence(rows: Sequence[SelfControl]) -> str:
    mean = phrases.points(fmean(row.change for row in rows))
    return (
        f"A stitch layer alone changes an anchor by {mean} points on val (mean); what a hybrid loses beyond that, it "
        "loses because its parts differ."
    )


def _random_table(rows: Sequence[RandomControl]) -> RenderableType:
    table = _table("id", "random stitch point", "MACs", "val %", "chosen\nalike", "their\nmedian %", "their\nbest %")
    for row in rows:
        known = (row.median, row.best)
        table.add_row(
            *map(Text, (row.control.id, " + ".join(phrases.parts(row.control)), format_count(row.control.macs))),
            *map(Text, (phrases.percent(row.control.val.top1), str(row.chosen))),
            *(Text("-" if value is None else phrases.percent(value)) for value in known),
        )
    return indented(table)


def _random_sentence(rows: Sequence[RandomControl]) -> str:
    low, high = (round(100 * share) for share in LIKE)
    told = f"chosen alike: hybrids that the search chose, at {low} to {high} % of the control's MACs."
    compared = [(row.median, row.control.val.top1) for row in rows if row.median is not None]
    if not compared:
        return f"{told} There is none to compare with."
    above = sum(median > own for median, own in compared)
    mean = phrases.points(fmean(median - own for median, own in compared))
    return f"{told} Their median is above the random one in {above} of {len(compared)} (mean {mean} points)."


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place < 2 else "right", overflow="fold", no_wrap=place != 1)
    return table
