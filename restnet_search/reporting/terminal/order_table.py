"""The section on stitch orders: which anchor of a pair supplied the front, and what that reached."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType

from restnet_search.reporting.assemble.order_counts import best_hybrid
from restnet_search.reporting.blocks import indented, literal, number_column, table, text_column
from restnet_search.reporting.model.judgements import OrderEntry
from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.phrases import percent

__all__ = ["kind_sentences", "order_table"]


def order_table(report: Report) -> RenderableType:
    """Return one row per direction, as the search offered them."""
    figures = map(number_column, ("kept", "trained", "best val %", "by"))
    grid = table(text_column("front > back"), text_column("order"), *figures)
    for entry in report.orders:
        reached = ("-", "-") if entry.best is None else (_val(report, entry.best), entry.best)
        cells = (f"{entry.front} > {entry.back}", entry.order, str(entry.candidates), str(entry.trained), *reached)
        grid.add_row(*literal(*cells), style="" if entry.trained else "dim")
    return indented(grid)


def kind_sentences(report: Report) -> list[str]:
    """Say what each stitch order came to, and each pair of kinds where anchors are of more than one."""
    by_order: dict[str, list[OrderEntry]] = {}
    by_kinds: dict[str, list[OrderEntry]] = {}
    for entry in report.orders:
        by_order.setdefault(entry.order, []).append(entry)
        if entry.front_kind and entry.back_kind:
            by_kinds.setdefault(f"{entry.front_kind} > {entry.back_kind}", []).append(entry)
    mixed = by_kinds if len({anchor.kind for anchor in report.anchors}) > 1 else {}
    return [_sum(report, name, entries) for name, entries in (*by_order.items(), *mixed.items())]


def _sum(report: Report, name: str, entries: Sequence[OrderEntry]) -> str:
    trained = sum(entry.trained for entry in entries)
    best = best_hybrid([report.hybrid(entry.best) for entry in entries if entry.best is not None])
    text = f"{name}: {trained} trained"
    return f"{text}." if best is None else f"{text}, best {_val(report, best)} % on val ({best})."


def _val(report: Report, id: str) -> str:
    return percent(report.hybrid(id).val.top1)
