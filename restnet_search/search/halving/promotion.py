"""Promotion from one rung to the next: the best of every range of FLOPs, and in what order they are trained. Pure.

Ranges are equally wide on a logarithmic scale, not equally full: a part of the front where hybrids are rare is a range
of its own, from which the best always goes on.

A score is compared only with what it foretells. Before any training, what a stitch will gain by it differs between
directions (front anchor and back anchor), so none is left behind by another one's scores: each keeps its share of
every range, too. After training, one is left behind only where another beats it by more than chance explains. What is
best for some budget by its score goes on, also where a dearer one of its range scores higher.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt

from restnet_search.pareto.front import dominated, hypervolume
from restnet_search.search.points.candidates import CandidateKey

__all__ = [
    "Configuration",
    "Promotion",
    "Scores",
    "best_of_directions",
    "chance_margin",
    "cost_ranges",
    "on_a_front",
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
        place: In its range of MACs, 1 is best.
        of: Configurations in that range.
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
    margin: float | None = None,
    always: Collection[CandidateKey] = (),
) -> list[Promotion]:
    """Keep the best ``share`` of every range, rounded up, so at least one; and no fewer than ``at_least`` in all.

    Beside them go on, in every range, where ``margin`` is None: that share of each direction, so that none is judged by
    its start alone; else: the best of each direction whose first score lies at most that far below the best of the
    range, for it is not beaten. Those of ``always`` go on in any case.

    Where the shares of all ranges are too few together, the share rises until they are enough: those go on next that
    come first in the order of (place - 1) / (size of the range), then by scores.

    Args:
        configurations: At the rung.
        limits: Of the ranges, as :func:`cost_ranges` gives them; a rung keeps those of the rung before.
        share: Above 0, at most 1.
        at_least: How many go on in all.
        margin: None before training; after it, by how much a first score must be higher to beat another.
        always: Keys of those that go on in any case.

    Returns:
        What became of each configuration, in their order.

    Raises:
        ValueError: If the share is out of bounds.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share must lie in (0, 1], came {share}")
    ranges = _grouped(configurations, lambda configuration: (bisect_right(limits, configuration.macs),))
    better: dict[CandidateKey, tuple[int, int]] = {}
    for members in ranges.values():
        better |= {configuration.key: (above, len(members)) for above, configuration in enumerate(members)}

    def turn(configuration: Configuration) -> tuple[object, ...]:
        above, size = better[configuration.key]
        return (above / size, *_best_first(configuration))

    order = sorted(configurations, key=turn)
    count = sum(len(_first(members, share)) for members in ranges.values())
    kept = {configuration.key for configuration in order[: max(count, at_least)]}
    for members in ranges.values():
        for own in _grouped(members, lambda configuration: configuration.direction).values():
            lacks = members[0].scores[0] - own[0].scores[0]
            spared = _first(own, share) if margin is None else own[:1] if lacks <= margin else []
            kept |= {configuration.key for configuration in spared}
    kept |= {configuration.key for configuration in configurations if configuration.key in always}
    went_on = {index: sum(configuration.key in kept for configuration in members) for index, members in ranges.items()}
    return [
        Promotion(
            configuration,
            better[configuration.key][0] + 1,
            better[configuration.key][1],
            went_on[bisect_right(limits, configuration.macs),],
            configuration.key in kept,
        )
        for configuration in configurations
    ]


def _first(members: Sequence[Configuration], share: float) -> Sequence[Configuration]:
    """The best share of members that come best first: each that less than this share of them is better than."""
    # 1e-9: 0.3 of 10 are 3, although 3 / 10 may round to above 0.3
    return [one for above, one in enumerate(members) if above / len(members) < share - 1e-9 or above == 0]


def best_of_directions(configurations: Sequence[Configuration], count: int) -> set[CandidateKey]:
    """Return the keys of so many of every direction, the best, whatever their MACs."""
    directions = _grouped(configurations, lambda configuration: configuration.direction)
    return {configuration.key for members in directions.values() for configuration in members[:count]}


def on_a_front(configurations: Sequence[Configuration], *, apart: bool) -> set[CandidateKey]:
    """Return the keys of those that no cheaper or equal one has the first score of: for some budget each is the best.

    Args:
        configurations: At a rung.
        apart: True where each direction has a front of its own, because scores say little between directions.
    """
    groups = _grouped(configurations, lambda configuration: configuration.direction if apart else ())
    keys: set[CandidateKey] = set()
    for members in groups.values():
        behind = dominated([(configuration.scores[0], configuration.macs) for configuration in members])
        keys |= {configuration.key for configuration, flag in zip(members, behind, strict=True) if not flag}
    return keys


def chance_margin(images: int) -> float:
    """Return two standard errors of the difference of two accuracies on so many images, at most: near a half each."""
    return 2 * sqrt(0.5 / images)


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
