"""Stitch orders: how often each direction between two anchors was trained, and what it reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from restnet_search.reporting.model.judgements import OrderEntry
from restnet_search.search.run.records import AnchorRecord, Direction, HybridRecord

__all__ = ["best_hybrid", "order_entries"]


def order_entries(
    anchors: Sequence[AnchorRecord], hybrids: Sequence[HybridRecord], candidates: Mapping[Direction, int]
) -> tuple[OrderEntry, ...]:
    """Count trained hybrids by direction; directions that were offered stand there also where none was trained.

    Args:
        anchors: Of the search.
        hybrids: All that were trained.
        candidates: How many stitch points of each direction were kept for training.
    """
    kinds = {anchor.name: anchor.kind for anchor in anchors}
    kept = {(way.front, way.back, str(way.order)): count for way, count in candidates.items()}
    trained: dict[tuple[str, str, str], list[HybridRecord]] = {way: [] for way in kept}
    for hybrid in hybrids:
        trained.setdefault((hybrid.front.anchor, hybrid.back.anchor, hybrid.order), []).append(hybrid)
    return tuple(
        OrderEntry(
            front=front,
            back=back,
            order=order,
            front_kind=kinds.get(front, ""),
            back_kind=kinds.get(back, ""),
            candidates=kept.get((front, back, order), 0),
            trained=sum(row.retrains is None for row in rows),
            best=best_hybrid(rows),
        )
        for (front, back, order), rows in trained.items()
    )


def best_hybrid(hybrids: Sequence[HybridRecord]) -> str | None:
    """Return the id of the most accurate on val; ties go to fewer MACs."""
    best = min(hybrids, key=lambda hybrid: (-hybrid.val.top1, hybrid.macs, hybrid.id), default=None)
    return None if best is None else best.id
