"""What every ranker was worth: the terminal's section, from the frozen report alone."""

from __future__ import annotations

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from restnet_search.reporting import phrases
from restnet_search.reporting.network_tables import indented, paragraph
from restnet_search.reporting.report import RankerEntry, Report

__all__ = ["ranker_blocks"]


def ranker_blocks(report: Report) -> list[RenderableType]:
    """The verdict on the search's own ranker, a line for each of them, and what the figures cannot say."""
    if not report.rankers:
        return [paragraph("None ran.")]
    own, *others = sorted(report.rankers, key=lambda ranker: ranker.name != report.search.ranker)
    blocks: list[RenderableType] = [paragraph(phrases.ranker_verdict(own))]
    if others:
        blocks += [Text(""), _table(report, [own, *others])]
    if own.n:
        blocks.append(paragraph(phrases.ranker_caveat(own), style="dim"))
    return blocks


def _table(report: Report, rankers: list[RankerEntry]) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("ranker", no_wrap=True)
    sizes = sorted({size for ranker in rankers for size in ranker.regret}, key=int)
    first = [f"best of\nfirst {size}" for size in sizes]
    for name in ("Spearman", "n", *first, "right in\na front", "short in\na front", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for ranker in rankers:
        inside, seconds = ranker.within_front, report.search.ranking_seconds.get(ranker.name)
        table.add_row(
            Text(ranker.name + (" *" if ranker.name == report.search.ranker else "")),
            Text("-" if ranker.spearman is None else f"{ranker.spearman:+.2f}"),
            Text(str(ranker.n)),
            *(Text(_short(ranker.regret.get(size))) for size in sizes),
            Text(f"{inside.top1_hits} of {inside.fronts}" if inside.fronts else "-"),
            Text(_short(inside.regret)),
            Text("-" if seconds is None else f"{seconds:.1f}"),
        )
    return indented(table)


def _short(regret: float | None) -> str:
    """Regret in percentage points; it is how far below, so it has a minus where it is not zero."""
    return "-" if regret is None else phrases.points(-regret)
