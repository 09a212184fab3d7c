"""The section on successive halving: what was decided before full training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import inf

from rich.console import RenderableType

from restnet_search.reporting.blocks import indented, literal, number_column, paragraph, table, text_column
from restnet_search.reporting.model.budget_sets import BudgetEntry
from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.phrases import percent

__all__ = ["RUNGS", "halving_blocks", "untrained"]

RUNGS: Mapping[str, str] = {
    "cost": "cost table: budgets, and the larger anchor",
    "ranker": "ranker",
    "closed_form": "closed-form stitch, scored on val",
    "short": "short training, scored on val",
    "full": "full training",
}
"""Rungs in words."""

_SCORED: Mapping[str, str] = {"closed_form": "closed form", "short": "short training"}


def halving_blocks(report: Report) -> list[RenderableType]:
    """Return a line per rung and what became of the rest; empty where no candidate was scored before full training."""
    if not any(rung.name in _SCORED for rung in report.rungs):
        return []
    grid = table(text_column("rung"), *map(number_column, ("entered", "kept", "seconds")))
    for rung in report.rungs:
        name = RUNGS.get(rung.name, rung.name)
        name += f" ({report.search.ranker})" if rung.name == "ranker" else ""
        grid.add_row(*literal(name, f"{rung.entered:,}", f"{rung.kept:,}", f"{rung.seconds:.1f}"))
    sentences = [sentence for sentence in (_foretold(report), _sentence(report)) if sentence]
    return [indented(grid), *(paragraph(sentence, style="dim") for sentence in sentences)]


def _foretold(report: Report) -> str:
    """Say how the scores of rungs agree with accuracies after training, as far as these are known."""
    known = [
        f"{_SCORED[rung.name]} {rung.agreement:+.2f} over {rung.judged}"
        + ("" if rung.regret is None else f" (its first {percent(rung.regret)} points below the best)")
        for rung in report.rungs
        if rung.name in _SCORED and rung.agreement is not None
    ]
    return f"Spearman between scores and what was trained in full: {'; '.join(known)}." if known else ""


def untrained(report: Report, budget: BudgetEntry) -> str:
    """Count, in words, the candidates that a rung dropped within the budget's FLOPs; empty where there are none."""
    limit = budget.limits.get("macs", inf)
    counts = Counter(one.rung for one in report.dropped if one.macs <= limit)
    return " and ".join(f"{counts[rung]} dropped after {_after(rung)}" for rung in _SCORED if counts[rung])


def _after(rung: str) -> str:
    return "a closed form" if rung == "closed_form" else _SCORED[rung]


def _sentence(report: Report) -> str:
    scored = [dropped for dropped in report.dropped if dropped.rung in _SCORED]
    text = "Every direction kept its best in every range of FLOPs, unless another had beaten it after short training."
    if scored:
        best = max((d.score for d in scored if d.score is not None), default=None)
        reached = "" if best is None else f", of which the best had reached {percent(best)} % there"
        count = "1 candidate was" if len(scored) == 1 else f"{len(scored):,} candidates were"
        text += f" {count} dropped after a score on val{reached}."
    return f"{text} results.json lists every dropped candidate with its rung and reason."
