"""The line between anchors: the accuracy at any MACs that a hybrid has to beat. Pure functions; imports nothing heavy.

A hybrid is worth its place where it is more accurate than a mix of the anchors would be at its cost. So the line joins
the anchors that no other one dominates, each with the next, over the logarithm of MACs or over MACs themselves. Over
the logarithm it is the stricter one: between two anchors it never lies below the straight line over MACs.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from restnet_search.pareto.front import non_dominated

__all__ = ["AnchorLine", "LineScale"]

LineScale = Literal["log", "linear"]
"""What the line is straight over: the logarithm of MACs, or MACs."""


@dataclass(frozen=True)
class AnchorLine:
    """The line through anchors.

    Attributes:
        points: (MACs, accuracy) of the anchors that no other one dominates, rising in both.
        dearest: Most MACs of any anchor; from the last point up to there the line is level, for the anchors beyond that
            point are no more accurate.
        scale: What it is straight over between two points.
    """

    points: tuple[tuple[float, float], ...]
    dearest: float
    scale: LineScale = "log"

    @classmethod
    def through(cls, anchors: Iterable[tuple[float, float]], scale: LineScale = "log") -> AnchorLine:
        """Return the line through anchors, given as (MACs, accuracy) each, in any order.

        Raises:
            ValueError: If there is none.
        """
        given = [(accuracy, macs) for macs, accuracy in {*anchors}]
        if not given:
            raise ValueError("a line needs at least one anchor")
        kept = [given[index] for index in non_dominated(given)]
        return cls(tuple((macs, accuracy) for accuracy, macs in kept), max(macs for _, macs in given), scale)

    def at(self, macs: float) -> float | None:
        """Return the accuracy at these MACs; None outside the range of the anchors' MACs."""
        if not self.points[0][0] <= macs <= self.dearest:
            return None
        after = bisect_right(self.points, macs, key=lambda point: point[0])
        if after == len(self.points):
            return self.points[-1][1]
        (low, worse), (high, better) = self.points[after - 1 : after + 1]
        reach = self._place(high) - self._place(low)  # 0 where rounding cannot tell the two apart
        share = (self._place(macs) - self._place(low)) / reach if reach else 0.0
        return worse + (better - worse) * share

    def height(self, macs: float, accuracy: float) -> float | None:
        """Return how far a network of these MACs lies above the line; None outside the range of the anchors' MACs."""
        line = self.at(macs)
        return None if line is None else accuracy - line

    def _place(self, macs: float) -> float:
        return math.log(max(macs, 1.0)) if self.scale == "log" else macs
