"""Two networks of a run, compared on test."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from restnet_search.reporting.blocks import literal, name_column, number_column, table, text_column
from restnet_search.reporting.model.comparison import Comparison
from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.phrases import difference, interval, is_above_chance, network, percent
from restnet_search.units import format_count

__all__ = ["render_comparison"]


def render_comparison(report: Report, compared: Comparison) -> RenderableType:
    """Return both networks with their accuracies, and what their difference says."""
    grid = table(name_column("id"), text_column("network"), *map(number_column, ("MACs", "val %", "test %")))
    entries = [report.entry(id) for id in (compared.first, compared.second)]
    for entry in entries:
        test = "-" if entry.test is None else percent(entry.test.top1)
        cells = (entry.id, network(report, entry), format_count(entry.macs), percent(entry.val.top1), test)
        grid.add_row(*literal(*cells))
    first, second = (entry.test.top1 if entry.test else 0.0 for entry in entries)
    gained = difference(first, second)
    low, high = compared.ci95
    clear = is_above_chance(low) or is_above_chance(-high)
    certainty = "more than chance explains" if clear else "which chance alone could explain"
    sentence = (
        f"On {compared.n:,} test images {compared.first} is {gained} points against {compared.second} "
        f"({interval(compared)}), {certainty}."
    )
    return Group(grid, Text(sentence))
