"""The whole report, section by section."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from restnet_search.reporting.blocks import indented, paragraph
from restnet_search.reporting.figures.accuracy_plot import AccuracyPlot
from restnet_search.reporting.model.budget_sets import BudgetEntry
from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.phrases import budget_limits
from restnet_search.reporting.terminal.control_tables import control_blocks
from restnet_search.reporting.terminal.facts import (
    anchor_warnings,
    licenses,
    next_commands,
    reading_notes,
    search_facts,
)
from restnet_search.reporting.terminal.finetuned_table import finetuned_blocks, shared_blocks
from restnet_search.reporting.terminal.halving_table import halving_blocks
from restnet_search.reporting.terminal.network_tables import AnchorTable, ParetoTable
from restnet_search.reporting.terminal.order_table import kind_sentences, order_table
from restnet_search.reporting.terminal.ranker_table import ranker_blocks
from restnet_search.reporting.terminal.rival_table import rival_blocks, rival_commands, rival_verdicts
from restnet_search.reporting.terminal.verdicts import verdict

__all__ = ["render_report"]

_FAILURES = 5  # failed trials shown


def render_report(report: Report) -> RenderableType:
    """Return the whole report; it fits itself to the console's width, colors and encoding when printed."""
    blocks: list[RenderableType] = [
        Heading(f"Run {report.run}"),
        _facts(report),
        Heading("Anchors"),
        AnchorTable(report),
        *(paragraph(warning, style="bold yellow") for warning in anchor_warnings(report)),
        *_licenses(report),
        Heading("Accuracy against cost"),
        AccuracyPlot(report),
    ]
    for budget in report.budgets:
        blocks += [Heading(f"Budget {budget.name}: {budget_limits(report, budget)}"), *_budget(report, budget)]
    if rivals := rival_blocks(report):
        blocks += [Heading("Rivals"), *rivals]
    if finetuned := finetuned_blocks(report):
        blocks += [Heading("Fine-tuned"), *finetuned]
    if shared := shared_blocks(report):
        blocks += [Heading("Trained together"), *shared]
    if report.orders:
        blocks += [Heading("Stitch orders"), order_table(report), *map(paragraph, kind_sentences(report))]
    if controls := control_blocks(report):
        blocks += [Heading("Controls"), *controls]
    if halving := halving_blocks(report):
        blocks += [Heading("Successive halving"), *halving]
    blocks += [Heading("Was the ranker right?"), *ranker_blocks(report)]
    if report.trials.failed:
        blocks += [Heading(f"Failed trials: {report.trials.failed}"), *_failures(report)]
    blocks += [Heading("How to read this"), *(paragraph(note) for note in reading_notes(report))]
    blocks += [Heading("Next"), *_next(report)]
    return Group(*blocks)


class Heading:
    """A title with a rule behind it; one that is too long for that is broken into lines, of which the last has it."""

    def __init__(self, title: str) -> None:
        self._title = title

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        *lines, last = Text(self._title, style="bold").wrap(console, max(1, options.max_width - 2))
        yield Text("")
        yield from lines
        yield Rule(last, align="left", style="dim")


def _facts(report: Report) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, sentence in search_facts(report):
        grid.add_row(Text(label), Text(sentence))
    return indented(grid)


def _licenses(report: Report) -> list[RenderableType]:
    lines, warning = licenses(report)
    blocks = [paragraph(line, style="dim") for line in lines]
    return blocks if warning is None else [*blocks, paragraph(warning, style="bold yellow")]


def _budget(report: Report, budget: BudgetEntry) -> list[RenderableType]:
    sentences = [*verdict(report, budget), *rival_verdicts(report, budget)]
    blocks = [paragraph(sentence, style="bold" if i == 0 else "") for i, sentence in enumerate(sentences)]
    if not budget.pareto:
        return blocks
    return [ParetoTable(report, budget), *blocks]


def _failures(report: Report) -> list[RenderableType]:
    failures = report.trials.failures
    lines = [paragraph(f"trial {failure.trial}: {failure.reason}") for failure in failures[:_FAILURES]]
    if len(failures) > _FAILURES:
        lines.append(paragraph(f"and {len(failures) - _FAILURES} more; --json lists all.", style="dim"))
    return lines


def _next(report: Report) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for command, purpose in (*next_commands(report), *rival_commands(report)):
        lines.append(indented(Text(command, style="bold cyan")))
        lines.append(paragraph(purpose, style="dim"))
    return lines
