"""The section on fine-tuning: hybrids as the search left them, beside what training all of them made of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Literal

from rich.console import RenderableType

from restnet_search.pareto.anchor_line import LineScale
from restnet_search.plain.answers import paired_counts
from restnet_search.reporting.assemble.statistics import paired_interval
from restnet_search.reporting.blocks import (
    Column,
    indented,
    literal,
    name_column,
    number_column,
    paragraph,
    table,
    text_column,
)
from restnet_search.reporting.model.line_summary import anchor_line
from restnet_search.reporting.model.run_report import Entry, Report
from restnet_search.reporting.phrases import difference, parts, percent, points
from restnet_search.reporting.words import Words
from restnet_search.search.run.records import (
    FinalScore,
    FinetunedState,
    HybridRecord,
    Score,
    SharedState,
    WholeTraining,
)
from restnet_search.units import format_count, format_duration

__all__ = ["finetuned_blocks", "finetuned_plain", "shared_blocks", "state_sentence"]


def finetuned_blocks(report: Report, ids: Iterable[str] | None = None) -> list[RenderableType]:
    """Return both states of the hybrids that were fine-tuned (of those named), side by side; empty where none was."""
    chosen = None if ids is None else set(ids)
    hybrids = [one for one in report.hybrids if one.finetuned is not None and (chosen is None or one.id in chosen)]
    if not hybrids:
        return []
    grid = table(*_columns())
    for hybrid in sorted(hybrids, key=lambda one: (one.macs, one.id)):
        assert hybrid.finetuned is not None
        state = hybrid.finetuned
        grid.add_row(*_row(report, hybrid, state.val if state.kept else None, state.test))
    sentences = [_trained(hybrid.id, hybrid.finetuned) for hybrid in hybrids if hybrid.finetuned is not None]
    return [indented(grid), *(paragraph(sentence, style="dim") for sentence in (*sentences, _NOTE))]


def shared_blocks(report: Report) -> list[RenderableType]:
    """Return the networks that were trained together, before and after; empty where none were."""
    shared = report.shared
    if shared is None:
        return []
    trained = _together(shared)
    if not shared.kept:
        why = "in none did the hybrids gain while no anchor lost more than 0.3 points on val"
        return [paragraph(f"{trained} No round was kept: {why}. A lower --lr, or more time, may do.")]
    grid = table(*_columns())
    for id, route in sorted(shared.routes.items(), key=lambda item: report.entry(item[0]).macs):
        grid.add_row(*_row(report, report.entry(id), route.val, route.test))
    return [indented(grid), paragraph(f"{trained} {_NOTE}", style="dim")]


def finetuned_plain(report: Report, ids: Sequence[str], *, shared: bool) -> dict[str, Any]:
    """Return what the command prints as JSON: the states, by id."""
    if shared:
        return {"run": report.run, "shared": None if report.shared is None else asdict(report.shared)}
    states = {id: report.hybrid(id).finetuned for id in ids}
    return {"run": report.run, "finetuned": {id: None if one is None else asdict(one) for id, one in states.items()}}


def state_sentence(hybrid: HybridRecord) -> str | None:
    """Say in one sentence what fine-tuning made of a hybrid; None where it was not run."""
    state = hybrid.finetuned
    if state is None:
        return None
    if not state.kept:
        return f"Fine-tuning {hybrid.id} brought nothing: no round was better on val than the stitch layer alone."
    split, before, after, interval = "val", hybrid.val.top1, state.val.top1, ""
    if state.test is not None and hybrid.test is not None:
        split, before, after = "test", hybrid.test.top1, state.test.top1
        interval = _interval(state.test, hybrid.test)
    return (
        f"Stitch only {percent(before)} % on {split}, fine-tuned {percent(after)} % "
        f"({difference(after, before)} points{interval}); exports take the fine-tuned state."
    )


def _interval(after: FinalScore, before: FinalScore) -> str:
    """Name the 95 % interval of the difference of two states on the same images; empty where answers were not kept."""
    counts = paired_counts(after.answers, before.answers) if after.answers and before.answers else None
    if counts is None:
        return ""
    low, high = paired_interval(counts.only_first, counts.only_second, counts.n)
    return f", 95 % interval {points(low)} to {points(high)}"


_NOTE = (
    "val decided which round is kept, and whether any is; test was scored once more for what was kept. Pareto sets and "
    "picks compare the states that the search left."
)


def _columns() -> list[Column]:
    return [
        name_column("id"),
        text_column("network"),
        number_column("MACs"),
        name_column("state"),
        *map(number_column, ("val %", "test %", "points", "above\nthe line")),
    ]


def _row(report: Report, entry: Entry, val: Score | None, test: FinalScore | None) -> list[Words]:
    """Return a row whose cells have a line for each state, as the search left it and as it is now."""
    split, scores = ("val", (entry.val, val)) if test is None or entry.test is None else ("test", (entry.test, test))
    before, after = (None if score is None else score.top1 for score in scores)
    gained = "-" if before is None or after is None else difference(after, before)
    pairs = (
        ("retrained" if isinstance(entry, HybridRecord) and entry.retrains else "stitch only", "fine-tuned"),
        _shown((entry.val, val)),
        _shown((entry.test, test)),
        ("", gained),
        (_height(report, entry, split, before), _height(report, entry, split, after)),
    )
    named = "\n+ ".join(parts(report, entry))
    return literal(entry.id, named, format_count(entry.macs), *("\n".join(pair) for pair in pairs))


def _height(report: Report, entry: Entry, split: Literal["val", "test"], top1: float | None) -> str:
    """Format how far a hybrid lies above the line between the anchors as the search had them."""
    if top1 is None or not isinstance(entry, HybridRecord):
        return "-"
    summary = report.measured_line
    scale: LineScale = "log" if summary is None else summary.scale
    height = anchor_line(report.anchors, split, scale).height(entry.macs, top1)
    return "-" if height is None else points(height)


def _shown(scores: tuple[Score | FinalScore | None, Score | FinalScore | None]) -> tuple[str, str]:
    first, second = ("-" if score is None else percent(score.top1) for score in scores)
    return first, second


def _trained(id: str, state: FinetunedState) -> str:
    kept = (
        f"round {state.training.round} of {state.training.rounds} was kept"
        if state.kept
        else "no round was better on val"
    )
    return f"{id}: {_cost(state.training)}; {kept}."


def _together(shared: SharedState) -> str:
    return f"Trained together on one set of weights: {_cost(shared.training)}."


def _cost(training: WholeTraining) -> str:
    return (
        f"{training.images_seen:,} training images seen in {format_duration(training.seconds)}, "
        f"taught by the labels and {training.teacher}"
    )
