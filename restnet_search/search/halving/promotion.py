"""Promotion from one rung to the next: the best of every range of FLOPs, and in what order they are trained. Pure.

Ranges are equally wide on a logarithmic scale, not equally full: a part of the front where hybrids are rare is a range
of its own, from which the best always goes on.

A score is compared only with what it foretells. Before any training, what a stitch will gain by it differs between
directions (front anchor and back anchor), so each direction is a list of its own. After training, directions meet in
one list, and one is left behind only where another beats it by more than chance explains.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt

from restnet_search.pareto import hypervolume
from restnet_search.search.points.candidates import CandidateKey

__all__ = [
    "Configuration",
    "Promotion",
    "Scores",
    "chance_margin",
    "cost_ranges",
    "order_by_hypervolume_gain",
    "promote",
]

Scores = tuple[float, ...]
"""What a candidate reached, the latest and dearest score first; what follows breaks ties. Higher is better."""


@dataclass(frozen=True)
class Configuration:
    """A candidate at a rung: its key, its MACs, and its scores."""

    key: CandidateKey
    macs: int
    scores: Scores

    @property
    def direction(self) -> tuple[str, str]:
        """Front anchor and back anchor."""
        return self.key[0], self.key[2]


@dataclass(frozen=True)
class Promotion:
    """The fate of a configuration.

    Attributes:
        configuration: At the rung.
        place: Among those that it is compared with, 1 is best.
        of: How many these are.
        went_on: How many of them went on.
        kept: True if it went on itself.
    """

    configuration: Configuration
    place: int
    of: int
    went_on: int
    kept: bool


def cost_ranges(macs: Iterable[int], count: int) -> tuple[float, ...]:
    """Return the inner limits of ``count`` ranges between the least and the largest MACs, equally wide in log MACs.

    Raises:
        ValueError: If there are no MACs, or the count is below 1.
    """
    values = list(macs)
    if not values or count < 1:
        raise ValueError(f"need MACs and at least one range, came {len(values)} and {count}")
    low, high = (max(1, edge) for edge in (min(values), max(values)))
    return tuple(low * (high / low) ** (part / count) for part in range(1, count)) if high > low else ()


def promote(
    configurations: Sequence[Configuration],
    limits: Sequence[float],
    share: float,
    at_least: int = 0,
    per_direction: int = 0,
    margin: float | None = None,
) -> list[Promotion]:
    """Keep the best ``share`` of every list, rounded up, so at least one; and no fewer than ``at_least`` in all.

    A list holds the configurations of a range of MACs: where ``margin`` is None those of one direction, else those of
    all directions together. Then the best of a direction goes on besides where its first score lies at most that far
    below the best of its list, for it is not beaten. The ``per_direction`` best of every direction, whatever their
    MACs, go on in any case.

    Where the shares of all lists are too few together, the share rises until they are enough: those go on next that
    come first in the order of (place - 1) / (size of the list), then by scores.

    Args:
        configurations: At the rung.
        limits: Of the ranges, as :func:`cost_ranges` gives them; a rung keeps those of the rung before.
        share: Above 0, at most 1.
        at_least: How many go on in all.
        per_direction: How many of every direction go on.
        margin: None before training; after it, by how much a first score must be higher to beat another.

    Returns:
        What became of each configuration, in their order.

    Raises:
        ValueError: If the share is out of bounds.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share must lie in (0, 1], came {share}")

    def list_of(configuration: Configuration) -> tuple[object, ...]:
        index = bisect_right(limits, configuration.macs)
        return (index, *configuration.direction) if margin is None else (index,)

    lists = _grouped(configurations, list_of)
    # a configuration goes on where the share of its list that is better than it is below the share kept
    better: dict[CandidateKey, tuple[int, int]] = {}
    for members in lists.values():
        better |= {configuration.key: (above, len(members)) for above, configuration in enumerate(members)}

    def turn(configuration: Configuration) -> tuple[object, ...]:
        above, size = better[configuration.key]
        return (above / size, *_best_first(configuration))

    order = sorted(configurations, key=turn)
    # 1e-9: 0.3 of 10 are 3, although 3 / 10 may round to above 0.3
    count = sum(above / size < share - 1e-9 or above == 0 for above, size in better.values())
    kept = {configuration.key for configuration in order[: max(count, at_least)]}
    directions = _grouped(configurations, lambda configuration: configuration.direction)
    kept |= {configuration.key for members in directions.values() for configuration in members[:per_direction]}
    kept |= {one.key for members in lists.values() for one in _unbeaten(members, margin or 0.0)}
    went_on = {name: sum(configuration.key in kept for configuration in members) for name, members in lists.items()}
    return [
        Promotion(
            configuration,
            better[configuration.key][0] + 1,
            better[configuration.key][1],
            went_on[list_of(configuration)],
            configuration.key in kept,
        )
        for configuration in configurations
    ]


def chance_margin(images: int) -> float:
    """Return two standard errors of the difference of two accuracies on so many images, at most: near a half each."""
    return 2 * sqrt(0.5 / images)


def _unbeaten(members: Sequence[Configuration], margin: float) -> list[Configuration]:
    """The best of every direction that lies within the margin of the best of all; members come best first."""
    firsts = [own[0] for own in _grouped(members, lambda configuration: configuration.direction).values()]
    return [one for one in firsts if one.scores[0] >= members[0].scores[0] - margin]


def _grouped(
    configurations: Iterable[Configuration], name: Callable[[Configuration], tuple[object, ...]]
) -> dict[tuple[object, ...], list[Configuration]]:
    """Configurations by name, each group the best first."""
    groups: dict[tuple[object, ...], list[Configuration]] = defaultdict(list)
    for configuration in sorted(configurations, key=_best_first):
        groups[name(configuration)].append(configuration)
    return groups


def order_by_hypervolume_gain(
    configurations: Iterable[Configuration], work: Mapping[CandidateKey, float] | None = None
) -> list[Configuration]:
    """Return the configurations in the turn in which each adds most hypervolume to those before it, for its work.

    The hypervolume of a set is the mean, over budgets spread evenly in log MACs from the cheapest configuration to the
    dearest, of the best first score within the budget: that of the Pareto set if scores were accuracies. When no
    configuration adds anything, those that are left start anew: the first front first, then the front behind it.

    Args:
        work: What each takes, in any unit, above 0; None: all take the same.
    """
    left = sorted(configurations, key=_best_first)
    turns: list[Configuration] = []
    while left:
        ceiling = log(max(configuration.macs for configuration in left)) + 1.0  # so that the dearest counts, too
        chosen: list[Configuration] = []
        while True:
            before = _hypervolume(chosen, ceiling)
            gains = [
                (_hypervolume([*chosen, configuration], ceiling) - before) / (work[configuration.key] if work else 1.0)
                for configuration in left
            ]
            best = max(range(len(left)), key=gains.__getitem__, default=None)
            if best is None or (chosen and gains[best] <= 0):
                break
            chosen.append(left.pop(best))
        turns += chosen
    return turns


def _hypervolume(configurations: Iterable[Configuration], ceiling: float) -> float:
    """Area under the best first score so far, over log MACs up to the ceiling; scores below 0 count as 0."""
    return hypervolume(((one.scores[0], log(one.macs)) for one in configurations), ceiling)


def _best_first(configuration: Configuration) -> tuple[object, ...]:
    return (*(-value for value in configuration.scores), configuration.key)
