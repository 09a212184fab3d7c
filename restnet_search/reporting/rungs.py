"""What was decided before full training: the terminal's section, from the frozen report alone."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from restnet_search.reporting import phrases
from restnet_search.reporting.network_tables import indented, paragraph
from restnet_search.reporting.report import Report

__all__ = ["RUNGS", "rung_blocks"]

RUNGS: Mapping[str, str] = {
    "cost": "cost table: budgets, and the larger anchor",
    "ranker": "ranker",
    "closed_form": "closed-form stitch, scored on val",
    "short": "short training, scored on val",
    "full": "full training",
}
"""What the rungs are called in text."""

_EARLY = ("closed_form", "short")


def rung_blocks(report: Report) -> list[RenderableType]:
    """A line per rung and what became of the rest; nothing where no candidate was scored before full training."""
    if not any(rung.name in _EARLY for rung in report.rungs):
        return []
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("rung", overflow="fold")
    for name in ("entered", "kept", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for rung in report.rungs:
        name = RUNGS.get(rung.name, rung.name)
        name += f" ({report.search.ranker})" if rung.name == "ranker" else ""
        table.add_row(*map(Text, (name, f"{rung.entered:,}", f"{rung.kept:,}", f"{rung.seconds:.1f}")))
    return [indented(table), paragraph(_sentence(report), style="dim")]


def _sentence(report: Report) -> str:
    scored = [dropped for dropped in report.dropped if dropped.rung in _EARLY]
    told = "Every range of FLOPs and every way round kept its best."
    if scored:
        best = max((d.score for d in scored if d.score is not None), default=None)
        reached = "" if best is None else f", of which the best had reached {phrases.percent(best)} % there"
        count = "1 candidate was" if len(scored) == 1 else f"{len(scored):,} candidates were"
        told += f" {count} dropped after a score on val{reached}."
    return f"{told} results.json lists every dropped candidate with its rung and reason."
