"""Which candidates go on from one rung to the next, the best of every range of FLOPs, and in what turn. Pure functions.

Ranges are equally wide on a logarithmic scale, not equally full: a part of the front where hybrids are rare is a range
of its own, from which the best always goes on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log

from restnet_search.pareto import hypervolume
from restnet_search.search.candidates import CandidateKey

__all__ = ["Entrant", "Merit", "Place", "by_gain", "cost_ranges", "promote"]

Merit = tuple[float, ...]
"""How good a candidate proved to be, the latest and dearest score first; what follows breaks ties. Higher is better."""


@dataclass(frozen=True)
class Entrant:
    """A candidate at a rung: what identifies it, its MACs, and its merit there."""

    key: CandidateKey
    macs: int
    merit: Merit


@dataclass(frozen=True)
class Place:
    """How an entrant did: its place (1 is best) among the ``of`` in its range of MACs, of which ``went_on`` did."""

    entrant: Entrant
    place: int
    of: int
    went_on: int
    kept: bool


def cost_ranges(macs: Iterable[int], count: int) -> tuple[float, ...]:
    """The inner limits of ``count`` ranges between the least and the largest MACs, equally wide in log MACs.

    Raises:
        ValueError: If there are no MACs, or the count is below 1.
    """
    values = list(macs)
    if not values or count < 1:
        raise ValueError(f"need MACs and at least one range, came {len(values)} and {count}")
    low, high = (max(1, edge) for edge in (min(values), max(values)))
    return tuple(low * (high / low) ** (part / count) for part in range(1, count)) if high > low else ()


def promote(
    entrants: Sequence[Entrant], limits: Sequence[float], share: float, at_least: int = 0, per_way: int = 0
) -> list[Place]:
    """Keep the best ``share`` of every range, rounded up, so at least one; and no fewer than ``at_least`` in all.

    The ``per_way`` best of every way round (front anchor and back anchor) go on besides, so that no way is judged by
    its start alone: what a stitch gains by training differs between kinds of anchors.

    Where the shares of all ranges are too few together, the share rises until they are enough: those go on next that
    come first in the order of (place - 1) / (size of the range), then by merit.

    Args:
        limits: Of the ranges, as :func:`cost_ranges` gives them; a rung keeps those of the rung before.
        share: Above 0, at most 1.

    Returns:
        What became of each entrant, in their order.

    Raises:
        ValueError: If the share is out of bounds.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share must lie in (0, 1], came {share}")
    ranges: dict[int, list[Entrant]] = defaultdict(list)
    for entrant in entrants:
        ranges[bisect_right(limits, entrant.macs)].append(entrant)
    # an entrant goes on where the share of its range that is better than it is below the share kept
    better: dict[CandidateKey, tuple[int, int]] = {}
    for members in ranges.values():
        members.sort(key=_best_first)
        better |= {entrant.key: (above, len(members)) for above, entrant in enumerate(members)}

    def turn(entrant: Entrant) -> tuple[object, ...]:
        above, size = better[entrant.key]
        return (above / size, *_best_first(entrant))

    order = sorted(entrants, key=turn)
    # 1e-9: 0.3 of 10 are 3, although 3 / 10 may round to above 0.3
    count = sum(above / size < share - 1e-9 or above == 0 for above, size in better.values())
    kept = {entrant.key for entrant in order[: max(count, at_least)]}
    ways: dict[tuple[str, str], list[Entrant]] = defaultdict(list)
    for entrant in sorted(entrants, key=_best_first):
        ways[entrant.key[0], entrant.key[2]].append(entrant)
    kept |= {entrant.key for members in ways.values() for entrant in members[:per_way]}
    went_on = {index: sum(entrant.key in kept for entrant in members) for index, members in ranges.items()}
    return [
        Place(entrant, better[entrant.key][0] + 1, better[entrant.key][1], went_on[index], entrant.key in kept)
        for entrant in entrants
        for index in (bisect_right(limits, entrant.macs),)
    ]


def by_gain(entrants: Iterable[Entrant], work: Mapping[CandidateKey, float] | None = None) -> list[Entrant]:
    """Entrants in the turn in which each adds most to what those before it promise, per unit of its work.

    What a set promises is the mean, over budgets spread evenly in log MACs from the cheapest entrant to the dearest, of
    the best first merit within the budget: the hypervolume that the Pareto set would have if merits were accuracies.
    When no entrant adds anything, those that are left start anew: the promised front first, then the front behind it.

    Args:
        work: What each takes, in any unit, above 0; None: all take the same.
    """
    left = sorted(entrants, key=_best_first)
    turns: list[Entrant] = []
    while left:
        ceiling = log(max(entrant.macs for entrant in left)) + 1.0  # so that the dearest counts, too
        chosen: list[Entrant] = []
        while True:
            before = _promised(chosen, ceiling)
            gains = [
                (_promised([*chosen, entrant], ceiling) - before) / (work[entrant.key] if work else 1.0)
                for entrant in left
            ]
            best = max(range(len(left)), key=gains.__getitem__, default=None)
            if best is None or (chosen and gains[best] <= 0):
                break
            chosen.append(left.pop(best))
        turns += chosen
    return turns


def _promised(entrants: Iterable[Entrant], ceiling: float) -> float:
    """Area under the best first merit so far, over log MACs up to the ceiling; merits below 0 count as 0."""
    return hypervolume(((entrant.merit[0], log(entrant.macs)) for entrant in entrants), ceiling)


def _best_first(entrant: Entrant) -> tuple[object, ...]:
    return (*(-value for value in entrant.merit), entrant.key)
