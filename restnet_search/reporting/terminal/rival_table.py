"""The section on rivals: what the same images, or as many MACs on average, come to without a stitch layer."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import RenderableType
from rich.text import Text

from restnet_search.reporting.blocks import indented, literal, number_column, paragraph, table, text_column
from restnet_search.reporting.model.budget_sets import BudgetEntry
from restnet_search.reporting.model.comparison import Comparison
from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.phrases import interval, is_above_chance, percent, points
from restnet_search.search.run.records import AnchorRecord
from restnet_search.search.run.rival_records import Cascade, Distilled
from restnet_search.units import format_count, format_duration

__all__ = ["rival_blocks", "rival_commands", "rival_verdicts"]

_NOTE = (
    "lead: points on test by which the pick is above the rival. MACs of a cascade are the average over test, at most "
    "those of an image that both anchors see. It holds both anchors in memory and decides image by image, so a limit "
    "that every image must keep does not hold for it."
)


@dataclass(frozen=True)
class _Rival:
    """A rival of a pick as it is shown.

    ``macs`` are those of an image on average, ``lead`` compares the pick with it, ``words`` say how it came about,
    ``outcome`` what it stands for, and ``export`` are the arguments that export it.
    """

    name: str
    macs: float
    scored: AnchorRecord | Cascade
    lead: Comparison
    words: str
    outcome: str
    export: tuple[str, ...]

    @property
    def wins(self) -> bool:
        """True if it is above the pick by more than chance explains."""
        return is_above_chance(-self.lead.ci95[1])

    @property
    def loses(self) -> bool:
        """True if the pick is above it by more than chance explains."""
        return is_above_chance(self.lead.ci95[0])


def rival_blocks(report: Report) -> list[RenderableType]:
    """Return the section, empty where a run has no rivals (those of earlier versions have none)."""
    blocks: list[RenderableType] = []
    for budget in report.budgets:
        if rivals := list(_rivals(report, budget)):
            blocks += [Text("")] if blocks else []
            title = "rival" if len(report.budgets) == 1 else f"rival ({budget.name})"
            blocks += [_table(title, rivals), *(paragraph(_sentence(rival)) for rival in rivals)]
    return [*blocks, paragraph(_NOTE, style="dim")] if blocks else []


def rival_verdicts(report: Report, budget: BudgetEntry) -> list[str]:
    """Say which rivals are above the pick on test by more than chance explains; of the same anchors only the first."""
    winners: dict[str, _Rival] = {}
    for rival in _rivals(report, budget):
        if rival.wins:
            winners.setdefault(rival.name, rival)
    return [
        f"A rival does better: {rival.name}, {points(-rival.lead.difference)} points on test at "
        f"{format_count(rival.macs)} MACs{' on average' if rival.macs != rival.scored.cost.macs else ''} (see Rivals)."
        for rival in winners.values()
    ]


def rival_commands(report: Report) -> list[tuple[str, str]]:
    """Return (command, what it does) to export the rivals that do better than a pick."""
    winners = {rival.export: rival.name for budget in report.budgets for rival in _rivals(report, budget) if rival.wins}
    return [
        (
            shlex.join(["restnet-search", "export", report.run, *arguments]),
            f"write what does better than a pick: {name}",
        )
        for arguments, name in winners.items()
    ]


def _rivals(report: Report, budget: BudgetEntry) -> Iterator[_Rival]:
    distilled = report.rivals.distilled
    if distilled is not None and (lead := budget.rivals.get(distilled.network.id)) is not None:
        yield _distilled(report, distilled, lead)
    shown: set[tuple[str, str, float]] = set()
    for cascade in report.rivals.cascades_beside(budget.name):
        rule = (cascade.small, cascade.large, cascade.threshold)
        if rule not in shown and (lead := budget.rivals.get(cascade.id)) is not None:
            shown.add(rule)  # where no other threshold is better, the same stands at the pick's and the budget's MACs
            yield _cascade(budget, cascade, lead)


def _distilled(report: Report, one: Distilled, lead: Comparison) -> _Rival:
    network, plan, before = one.network, one.plan, report.entry(one.plan.small)
    spent = report.search.training_images_seen
    short = f" (the search saw {spent:,})" if plan.images_seen < 0.99 * spent else ""
    was = f"before, {percent(before.test.top1)} %" if before.test is not None else "before, not scored"
    words = (
        f"Would distilling have done? {network.id} is {plan.small}, trained whole to follow {plan.large} on"
        f" {plan.images_seen:,} images{short}, in {plan.epochs} epochs of {plan.images:,},"
        f" {format_duration(one.seconds)}. It reaches {percent(network.test.top1)} % on test; {was}."
    )
    name = f"{network.id}, {plan.small} distilled"
    return _Rival(name, network.macs, network, lead, words, "distilling the small model", (network.id,))


def _cascade(budget: BudgetEntry, one: Cascade, lead: Comparison) -> _Rival:
    params = budget.limits.get("params")
    over = ", more than the budget allows" if params is not None and one.cost.params > params else ""
    macs, name = one.mean_macs["test"], f"{one.small}, then {one.large}"
    words = (
        f"Cascade, at the {one.at}'s MACs: {one.small} answers where it is surer than {one.threshold:.3f}, and"
        f" {one.large} the other {percent(one.deferred['test'])} % of test. It reaches {percent(one.test.top1)} %"
        f" with {format_count(macs)} MACs on average and {format_count(one.cost.params)} params{over}."
    )
    return _Rival(name, macs, one, lead, words, "a cascade of the anchors", ("--adaptive", "--cascade"))


def _sentence(rival: _Rival) -> str:
    if rival.loses:
        verdict = f"more than chance explains: {rival.outcome} would not have done"
    elif rival.wins:
        verdict = f"more than chance explains: {rival.outcome} does better"
    else:
        verdict = f"which chance alone could explain: {rival.outcome} may have done as well"
    ends = " to ".join(map(points, rival.lead.ci95))
    sure = f"95 % interval {ends}" if rival.lead.paired else interval(rival.lead)
    return f"{rival.words} Against it the pick is at {points(rival.lead.difference)} points ({sure}), {verdict}."


def _table(title: str, rivals: list[_Rival]) -> RenderableType:
    figures = ("MACs", "at most", "params", "val %", "test %\n[95 %]", "lead\n[95 %]")
    grid = table(text_column(title), *map(number_column, figures))
    for rival in rivals:
        low, high = rival.scored.test.ci95
        ends = ", ".join(map(points, rival.lead.ci95))
        grid.add_row(
            *literal(rival.name),
            *(format_count(value) for value in (rival.macs, rival.scored.cost.macs, rival.scored.cost.params)),
            percent(rival.scored.val.top1),
            Text(f"{percent(rival.scored.test.top1)}\n[{percent(low)}, {percent(high)}]"),
            Text(f"{points(rival.lead.difference)}\n[{ends}]"),
        )
    return indented(grid)
