"""The section on successive halving: what was decided before full training."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import RenderableType

from restnet_search.reporting.blocks import indented, literal, number_column, paragraph, table, text_column
from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.phrases import percent

__all__ = ["RUNGS", "halving_blocks"]

RUNGS: Mapping[str, str] = {
    "cost": "cost table: budgets, and the larger anchor",
    "ranker": "ranker",
    "closed_form": "closed-form stitch, scored on val",
    "short": "short training, scored on val",
    "full": "full training",
}
"""Rungs in words."""

_SCORED = ("closed_form", "short")


def halving_blocks(report: Report) -> list[RenderableType]:
    """Return a line per rung and what became of the rest; empty where no candidate was scored before full training."""
    if not any(rung.name in _SCORED for rung in report.rungs):
        return []
    grid = table(text_column("rung"), *map(number_column, ("entered", "kept", "seconds")))
    for rung in report.rungs:
        name = RUNGS.get(rung.name, rung.name)
        name += f" ({report.search.ranker})" if rung.name == "ranker" else ""
        grid.add_row(*literal(name, f"{rung.entered:,}", f"{rung.kept:,}", f"{rung.seconds:.1f}"))
    return [indented(grid), paragraph(_sentence(report), style="dim")]


def _sentence(report: Report) -> str:
    scored = [dropped for dropped in report.dropped if dropped.rung in _SCORED]
    text = "Every range of FLOPs and every direction kept its best."
    if scored:
        best = max((d.score for d in scored if d.score is not None), default=None)
        reached = "" if best is None else f", of which the best had reached {percent(best)} % there"
        count = "1 candidate was" if len(scored) == 1 else f"{len(scored):,} candidates were"
        text += f" {count} dropped after a score on val{reached}."
    return f"{text} results.json lists every dropped candidate with its rung and reason."
