"""Stitch orders: which anchor of a pair supplied the front, how often that was trained, and what it reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from restnet_search.reporting import phrases
from restnet_search.reporting.network_tables import indented
from restnet_search.reporting.report import AnchorEntry, HybridEntry, Report
from restnet_search.reporting.ways import OrderEntry, Way

__all__ = ["kind_sentences", "order_entries", "order_table"]


def order_entries(
    anchors: Sequence[AnchorEntry], hybrids: Sequence[HybridEntry], candidates: Mapping[Way, int]
) -> tuple[OrderEntry, ...]:
    """Count trained hybrids by way; ways that were offered stand there also where none was trained.

    Args:
        anchors: Of the search.
        hybrids: All that were trained.
        candidates: How many stitch points of each way were kept for training.
    """
    kinds = {anchor.name: anchor.kind for anchor in anchors}
    trained: dict[Way, list[HybridEntry]] = {way: [] for way in candidates}
    for hybrid in hybrids:
        trained.setdefault((hybrid.front.anchor, hybrid.back.anchor, hybrid.order), []).append(hybrid)
    return tuple(
        OrderEntry(
            front=front,
            back=back,
            order=order,
            front_kind=kinds.get(front, ""),
            back_kind=kinds.get(back, ""),
            candidates=candidates.get((front, back, order), 0),
            trained=len(rows),
            best=_best(rows),
        )
        for (front, back, order), rows in trained.items()
    )


def _best(hybrids: Sequence[HybridEntry]) -> str | None:
    best = min(hybrids, key=lambda hybrid: (-hybrid.val.top1, hybrid.macs, hybrid.id), default=None)
    return None if best is None else best.id


def order_table(report: Report) -> RenderableType:
    """One row per way, as the search offered them."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("front > back", overflow="fold")
    table.add_column("order", no_wrap=True)
    for name in ("kept", "trained", "best val %", "by"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in report.orders:
        reached = ("-", "-") if entry.best is None else (_val(report, entry.best), entry.best)
        cells = (f"{entry.front} > {entry.back}", entry.order, str(entry.candidates), str(entry.trained), *reached)
        table.add_row(*map(Text, cells), style="" if entry.trained else "dim")
    return indented(table)


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
    best = _best([report.hybrid(entry.best) for entry in entries if entry.best is not None])
    told = f"{name}: {trained} trained"
    return f"{told}." if best is None else f"{told}, best {_val(report, best)} % on val ({best})."


def _val(report: Report, id: str) -> str:
    return phrases.percent(report.hybrid(id).val.top1)
