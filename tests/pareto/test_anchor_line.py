"""The line between anchors, against numpy's interpolation and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restnet_search.pareto.anchor_line import AnchorLine, LineScale

anchors = st.lists(st.tuples(st.integers(10, 10**11), st.floats(0.0, 1.0)), min_size=1, max_size=6)


def test_halfway_over_the_logarithm_of_macs_lies_halfway_in_accuracy() -> None:
    line = AnchorLine.through([(1000, 0.9), (10, 0.7)])
    assert (line.at(10), line.at(100), line.at(1000)) == pytest.approx((0.7, 0.8, 0.9))
    assert line.height(100, 0.83) == pytest.approx(0.03)
    assert AnchorLine.through([(1000, 0.9), (10, 0.7)], "linear").at(505) == pytest.approx(0.8)


@pytest.mark.parametrize("macs", [9, 1001])
def test_outside_the_anchors_range_there_is_no_height(macs: int) -> None:
    line = AnchorLine.through([(1000, 0.9), (10, 0.7)])
    assert line.at(macs) is None and line.height(macs, 1.0) is None


def test_more_anchors_are_joined_one_to_the_next_and_dominated_ones_are_passed_over() -> None:
    line = AnchorLine.through([(10, 0.5), (100, 0.8), (500, 0.6), (1000, 0.9), (10, 0.4)])
    assert line.points == ((10, 0.5), (100, 0.8), (1000, 0.9))
    assert line.at(math.sqrt(10 * 100)) == pytest.approx(0.65)
    assert line.at(math.sqrt(100 * 1000)) == pytest.approx(0.85)


def test_beyond_the_most_accurate_anchor_the_line_is_level() -> None:
    """A dearer anchor that is no better lends nothing: the best cheaper one is what a user would take."""
    line = AnchorLine.through([(10, 0.85), (1000, 0.63)])
    assert (line.at(10), line.at(300), line.at(1000), line.at(1001)) == (0.85, 0.85, 0.85, None)


@given(anchors, st.sampled_from(["log", "linear"]), st.floats(0.0, 1.0))
def test_the_line_is_numpys_interpolation_through_the_running_best(
    points: list[tuple[int, float]], scale: LineScale, share: float
) -> None:
    line = AnchorLine.through(points, scale)
    cheapest, dearest = min(macs for macs, _ in points), max(macs for macs, _ in points)
    macs = cheapest + share * (dearest - cheapest)
    best: list[tuple[int, float]] = []  # the second way: walk up the costs, keep what is better than all before
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or accuracy > best[-1][1]:
            best.append((cost, accuracy))
    costs, accuracies = zip(*best, strict=True)
    place = np.log if scale == "log" else np.asarray
    expected = np.interp(place(macs), place(np.array(costs, dtype=float)), accuracies)
    assert line.at(macs) == pytest.approx(float(expected), abs=1e-9)


@given(anchors, st.floats(0.0, 1.0))
def test_over_the_logarithm_the_line_is_never_below_the_straight_one(
    points: list[tuple[int, float]], share: float
) -> None:
    cheapest, dearest = min(macs for macs, _ in points), max(macs for macs, _ in points)
    macs = cheapest + share * (dearest - cheapest)
    log, straight = (AnchorLine.through(points, scale).at(macs) for scale in ("log", "linear"))
    assert log is not None and straight is not None and log >= straight - 1e-12


def test_without_an_anchor_there_is_no_line() -> None:
    with pytest.raises(ValueError, match="at least one anchor"):
        AnchorLine.through([])
