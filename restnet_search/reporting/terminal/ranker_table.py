"""The section on rankers: what each was worth."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from restnet_search.reporting.blocks import indented, literal, name_column, number_column, paragraph, table
from restnet_search.reporting.model.judgements import RankerEntry
from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.phrases import points
from restnet_search.reporting.terminal.verdicts import ranker_caveat, ranker_verdict

__all__ = ["ranker_blocks"]


def ranker_blocks(report: Report) -> list[RenderableType]:
    """Return the verdict on the search's own ranker, a line for each of them, and what the figures cannot say."""
    if not report.rankers:
        return [paragraph("None ran.")]
    own, *others = sorted(report.rankers, key=lambda ranker: ranker.name != report.search.ranker)
    blocks: list[RenderableType] = [paragraph(ranker_verdict(own))]
    if others:
        blocks += [Text(""), _table(report, [own, *others])]
    if own.n:
        blocks.append(paragraph(ranker_caveat(own), style="dim"))
    return blocks


def _table(report: Report, rankers: list[RankerEntry]) -> RenderableType:
    sizes = sorted({size for ranker in rankers for size in ranker.regret}, key=int)
    first = [f"best of\nfirst {size}" for size in sizes]
    figures = ("Spearman", "n", *first, "right in\na front", "short in\na front", "seconds")
    grid = table(name_column("ranker"), *map(number_column, figures))
    for ranker in rankers:
        inside, seconds = ranker.within_front, report.search.ranking_seconds.get(ranker.name)
        cells = (
            ranker.name + (" *" if ranker.name == report.search.ranker else ""),
            "-" if ranker.spearman is None else f"{ranker.spearman:+.2f}",
            str(ranker.n),
            *(_short(ranker.regret.get(size)) for size in sizes),
            f"{inside.top1_hits} of {inside.fronts}" if inside.fronts else "-",
            _short(inside.regret),
            "-" if seconds is None else f"{seconds:.1f}",
        )
        grid.add_row(*literal(*cells))
    return indented(grid)


def _short(regret: float | None) -> str:
    """Regret in percentage points; it is how far below, so it has a minus where it is not zero."""
    return "-" if regret is None else points(-regret)
