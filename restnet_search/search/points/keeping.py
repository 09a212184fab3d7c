"""Rules of what goes on from the ranker: the first partners of every front, or the best of every bucket. Pure.

Both rules look at the stitch points of one direction (front anchor and back anchor), with the scores of any ranker.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["BUCKETS", "TOLERANCE", "Ranked", "best_first", "best_of_buckets", "first_partners"]

BUCKETS = 20
"""Ranges of FLOPs, as KLAS has them (arXiv 2605.29259)."""

TOLERANCE = 0.05
"""How far from the best score of its bucket a stitch point may be, as a share of that score; from the same paper."""

Cuts = tuple[int, int]
"""Front cut and back cut."""


@dataclass(frozen=True)
class Ranked:
    """A stitch point of a direction, its MACs (of its cheapest stitch layer), and its score: higher is better."""

    place: Cuts
    macs: int
    score: float


def first_partners(points: Iterable[Ranked], top_k: int) -> frozenset[Cuts]:
    """Keep the ``top_k`` best-scored back cuts of every front cut; equals in the order of their cuts."""
    rows: dict[int, list[Ranked]] = defaultdict(list)
    for point in points:
        rows[point.place[0]].append(point)
    return frozenset(point.place for row in rows.values() for point in sorted(row, key=best_first)[:top_k])


def best_of_buckets(points: Sequence[Ranked], buckets: int = BUCKETS, tolerance: float = TOLERANCE) -> frozenset[Cuts]:
    """Keep what is within the tolerance of the best of its bucket, and the best stitch point of every back cut.

    Buckets are ranges of MACs, equally wide between the cheapest and the dearest point. A score is within the tolerance
    if it lies at most that share of the best score's size below it: for ``kl``, whose score is -Gamma, that is KLAS's
    rule Gamma <= 1.05 least Gamma. Where a bucket has no score that is a number, it keeps none.
    """
    if not points:
        return frozenset()
    low, high = min(point.macs for point in points), max(point.macs for point in points)
    inside: dict[int, list[Ranked]] = defaultdict(list)
    columns: dict[int, list[Ranked]] = defaultdict(list)
    for point in points:
        bucket = (point.macs - low) * buckets // (high - low) if high > low else 0
        inside[min(bucket, buckets - 1)].append(point)
        columns[point.place[1]].append(point)
    kept: set[Cuts] = set()
    for members in inside.values():
        best = min(members, key=best_first).score
        kept |= {point.place for point in members if point.score >= best - tolerance * abs(best)}
    covered = {back_cut for _, back_cut in kept}
    kept |= {min(column, key=best_first).place for back_cut, column in columns.items() if back_cut not in covered}
    return frozenset(kept)


def best_first(point: Ranked) -> tuple[bool, float, Cuts]:
    """Return what stitch points are sorted by: the best score first, those without a number last."""
    unknown = point.score != point.score
    return unknown, 0.0 if unknown else -point.score, point.place
