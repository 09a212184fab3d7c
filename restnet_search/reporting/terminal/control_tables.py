"""The section on controls: two small tables and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from restnet_search.reporting import phrases
from restnet_search.reporting.assemble.control_comparisons import (
    LIKE,
    RandomControl,
    SelfControl,
    random_controls,
    self_controls,
)
from restnet_search.reporting.blocks import indented, literal, name_column, number_column, paragraph, table, text_column
from restnet_search.reporting.model.run_report import Report
from restnet_search.units import format_count

__all__ = ["control_blocks"]


def control_blocks(report: Report) -> list[RenderableType]:
    """Return the section, empty where there are no controls."""
    own, drawn = self_controls(report), random_controls(report)
    blocks: list[RenderableType] = []
    if own:
        blocks += [_self_table(report, own), paragraph(_self_sentence(own), style="dim")]
    if drawn:
        blocks += [Text("")] if own else []
        blocks += [_random_table(report, drawn), paragraph(_random_sentence(drawn), style="dim")]
    missing = report.trials.controls_planned - report.trials.controls
    if missing > 0:
        were = "1 control was" if missing == 1 else f"{missing} controls were"
        blocks.append(paragraph(f"{were} not trained to the end: its loss was not finite, or search.timeout passed."))
    return blocks


def _self_table(report: Report, rows: Sequence[SelfControl]) -> RenderableType:
    grid = _table("id", "anchor stitched to itself", "MACs", "val %", "anchor %", "change")
    for row in rows:
        entry = row.control
        grid.add_row(
            *literal(entry.id, phrases.network(report, entry), format_count(entry.macs)),
            *literal(phrases.percent(entry.val.top1), phrases.percent(row.anchor.val.top1)),
            Text(phrases.difference(entry.val.top1, row.anchor.val.top1)),
        )
    return indented(grid)


def _self_sentence(rows: Sequence[SelfControl]) -> str:
    mean = phrases.points(fmean(row.change for row in rows))
    return (
        f"A stitch layer alone changes an anchor by {mean} points on val (mean); what a hybrid loses beyond that, it "
        "loses because its parts differ."
    )


def _random_table(report: Report, rows: Sequence[RandomControl]) -> RenderableType:
    grid = _table("id", "random stitch point", "MACs", "val %", "chosen\nalike", "their\nmedian %", "their\nbest %")
    for row in rows:
        entry, known = row.control, (row.median, row.best)
        grid.add_row(
            *literal(entry.id, phrases.network(report, entry), format_count(entry.macs)),
            *literal(phrases.percent(entry.val.top1), str(row.chosen)),
            *(Text("-" if value is None else phrases.percent(value)) for value in known),
        )
    return indented(grid)


def _random_sentence(rows: Sequence[RandomControl]) -> str:
    low, high = (round(100 * share) for share in LIKE)
    text = f"chosen alike: hybrids that the search chose, at {low} to {high} % of the control's MACs."
    compared = [(row.median, row.control.val.top1) for row in rows if row.median is not None]
    if not compared:
        return f"{text} There is none to compare with."
    above = sum(median > own for median, own in compared)
    mean = phrases.points(fmean(median - own for median, own in compared))
    return f"{text} Their median is above the random one in {above} of {len(compared)} (mean {mean} points)."


def _table(id: str, network: str, *figures: str) -> Table:
    return table(name_column(id), text_column(network), *map(number_column, figures))
