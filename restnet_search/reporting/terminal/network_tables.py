"""Tables of anchors and of a budget's Pareto set, fitted to the width they are printed at."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from restnet_search.pareto.front import Point, shortfall
from restnet_search.reporting import phrases
from restnet_search.reporting.blocks import indented, literal, number_column, paragraph, table, text_column
from restnet_search.reporting.model.budget_sets import BudgetEntry
from restnet_search.reporting.model.run_report import Entry, Report
from restnet_search.reporting.words import Words
from restnet_search.search.run.records import AnchorRecord, FinalScore
from restnet_search.units import format_count

__all__ = ["AnchorTable", "ParetoTable"]

_NEAREST = 3  # dominated hybrids shown per budget


class AnchorTable:
    """The anchors by rising MACs."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Widest first: a column for models; then closer columns, the interval below its score; then models below names.
        for wide, apart in ((True, True), (False, True), (False, False)):
            grid = indented(self._table(wide, apart))
            if Measurement.get(console, options.update(width=10_000), grid).maximum <= options.max_width:
                break
        yield grid

    def _table(self, wide: bool, apart: bool) -> Table:
        report = self._report
        models = any(anchor.model != anchor.name for anchor in report.anchors)
        device = phrases.device_columns(report)
        interval = "test % [95 %]" if wide else "test %\n[95 %]"
        names = map(text_column, ("anchor", "model") if models and apart else ("anchor",))
        figures = map(number_column, ("MACs", "params", *phrases.device_titles(report), "val %", interval))
        grid = table(*names, *figures, left=1 if wide else 0)
        for anchor in sorted(report.anchors, key=lambda anchor: anchor.macs):
            name = phrases.anchor_name(anchor)
            named = [name, anchor.model] if models else [name]
            grid.add_row(
                *literal(*(named if apart else ["\n".join(dict.fromkeys(named))])),
                format_count(anchor.macs),
                format_count(anchor.params),
                *(phrases.device_cost(anchor, kind) for kind in device),
                phrases.percent(anchor.val.top1),
                _test(anchor.test, wide),
            )
        return grid


class ParetoTable:
    """The Pareto set of one budget by rising cost; below it what came nearest to it, and every dominated anchor."""

    def __init__(self, report: Report, budget: BudgetEntry) -> None:
        self._report, self._budget = report, budget
        self._others, self._count = _dominated(report, budget)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Widest first: parts on one line; then on two, figures too; then closer columns; then indices instead of paths.
        for wide, paths, gap in ((True, True, 1), (False, True, 1), (False, True, 0), (False, False, 0)):
            grid = indented(self._table(wide, paths, gap))
            if Measurement.get(console, options.update(width=10_000), grid).maximum <= options.max_width:
                break
        yield grid
        yield paragraph(self._caption(), style="dim")

    def _table(self, wide: bool, paths: bool, gap: int) -> Table:
        interval = "test % [95 %]" if wide else "test %\n[95 %]"
        rivals = ("gain", "line") if wide else ("gain\nline",)
        figures = ("MACs", "params", *phrases.device_titles(self._report), "val %", interval, *rivals)
        grid = table(*map(text_column, ("", "id", "network")), *map(number_column, figures), right=gap)
        grid.columns[0].width = 1  # the mark
        for place, id in enumerate(self._budget.pareto, start=1):
            entry, last = self._report.entry(id), place == len(self._budget.pareto)
            picked = id == self._budget.pick
            style = "bold green" if picked else ("yellow" if isinstance(entry, AnchorRecord) else "")
            grid.add_row(*self._cells("*" if picked else "", entry, wide, paths), style=style, end_section=last)
        for entry in self._others:
            grid.add_row(*self._cells("x", entry, wide, paths), style="dim")
        return grid

    def _cells(self, mark: str, entry: Entry, wide: bool, paths: bool) -> list[RenderableType]:
        best = self._budget.best_anchor
        gain = phrases.gain(entry, self._report.entry(best)) if best is not None and best != entry.id else None
        rivals = ("-" if gain is None else gain, phrases.height(self._report, entry))
        return [
            Text(mark),
            Text("anchor" if isinstance(entry, AnchorRecord) else entry.id),
            Words((" + " if wide else "\n+ ").join(phrases.parts(self._report, entry, paths=paths))),
            Text(format_count(entry.macs)),
            Text(format_count(entry.params)),
            *(Text(phrases.device_cost(entry, kind)) for kind in phrases.device_columns(self._report)),
            Text(phrases.percent(entry.val.top1)),
            _test(entry.test, wide),
            *map(Text, rivals if wide else ["\n".join(rivals)]),
        ]

    def _caption(self) -> str:
        words = ["* the pick."]
        if self._budget.best_anchor is None:
            words.append("No anchor fits the budget, so there is no gain to state.")
        else:
            words.append(f"gain: points on test against {self._budget.best_anchor}, the best anchor within the budget.")
        words.append("line: points above the line between the anchors (v: on val).")
        if self._count:
            shown = sum(not isinstance(entry, AnchorRecord) for entry in self._others)
            which = "all shown" if shown == self._count else f"the {shown} nearest shown"
            words.append(f"x dominated: {self._count} hybrid{'s' * (self._count != 1)} within the budget, {which}.")
        elif self._others:
            words.append("x dominated.")
        return " ".join(words)


def _test(score: FinalScore | None, wide: bool) -> Text:
    if score is None:
        return Text("not scored" if wide else "not\nscored", style="dim")
    low, high = (phrases.percent(end) for end in score.ci95)
    return Text(phrases.percent(score.top1)).append(f"{' ' if wide else chr(10)}[{low}, {high}]", style="dim")


def _dominated(report: Report, budget: BudgetEntry) -> tuple[list[Entry], int]:
    """Return what stands below the Pareto set, and how many hybrids within the budget are dominated there.

    Every dominated anchor stands there, for both anchors belong in the picture, and the hybrids that lack least
    accuracy to the Pareto set.
    """
    names = [name for name in report.search.objectives if name != "accuracy"]

    def point(entry: Entry) -> Point:
        return (entry.val.top1, *(float(getattr(entry, name)) for name in names))

    front = [point(report.entry(id)) for id in budget.pareto]
    outside = [entry for entry in report.entries if budget.allows(entry) and entry.id not in budget.pareto]
    anchors = [entry for entry in outside if isinstance(entry, AnchorRecord)]
    hybrids = [entry for entry in outside if not isinstance(entry, AnchorRecord)]
    nearest = sorted(hybrids, key=lambda hybrid: (shortfall(point(hybrid), front), hybrid.macs))[:_NEAREST]
    return sorted([*anchors, *nearest], key=lambda entry: entry.macs), len(hybrids)
