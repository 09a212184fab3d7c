"""How good the networks found so far are, over time: hypervolume of (accuracy, MACs), 2-D, in closed form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from restnet_search.pareto.front import hypervolume as area_dominated

__all__ = ["CHANCE", "Event", "curve", "hypervolume", "seconds_until", "value_at"]

CHANCE = 0.1
"""Accuracy of guessing one of ten classes: the hypervolume counts what lies above it."""


@dataclass(frozen=True)
class Event:
    """A hybrid that was trained and scored: when (seconds from the start of the process), and what it reached."""

    seconds: float
    accuracy: float
    macs: float


def hypervolume(points: Iterable[tuple[float, float]], ceiling: float) -> float:
    """Area that (accuracy, MACs) points dominate, above chance and below ``ceiling`` MACs, as a share of all.

    1 would be a perfect network at no cost. Anchors are not put in: with them little would be left to find.
    """
    return area_dominated(points, ceiling, CHANCE) / ((1 - CHANCE) * ceiling)


def curve(events: Sequence[Event], ceiling: float) -> list[tuple[float, float]]:
    """(seconds, hypervolume so far), where it rises."""
    rising: list[tuple[float, float]] = []
    found: list[tuple[float, float]] = []
    for event in sorted(events, key=lambda event: event.seconds):
        found.append((event.accuracy, event.macs))
        value = hypervolume(found, ceiling)
        if not rising or value > rising[-1][1]:
            rising.append((event.seconds, value))
    return rising


def seconds_until(rising: Sequence[tuple[float, float]], value: float) -> float | None:
    """When a curve reaches a hypervolume; None: never."""
    return next((seconds for seconds, reached in rising if reached >= value), None)


def value_at(rising: Sequence[tuple[float, float]], seconds: float) -> float:
    """Hypervolume after so many seconds; 0 before the first hybrid."""
    return max((reached for at, reached in rising if at <= seconds), default=0.0)
