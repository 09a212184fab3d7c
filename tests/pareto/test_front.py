from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restnet_search.pareto.front import Point, dominated, dominates, non_dominated, shortfall

# Few distinct values, so that ties and equal points are common.
grid = st.integers(0, 4).map(float)


def points(costs: int) -> st.SearchStrategy[list[Point]]:
    return st.lists(st.tuples(*[grid] * (1 + costs)), max_size=25)


clouds = st.one_of(points(1), points(2), points(3))


def beats(a: Point, b: Point) -> bool:
    """The definition, written once more: as a minimisation over all coordinates."""
    a, b = (-a[0], *a[1:]), (-b[0], *b[1:])
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


@given(clouds)
def test_dominated_equals_brute_force(cloud: list[Point]) -> None:
    assert dominated(cloud) == tuple(any(beats(other, point) for other in cloud) for point in cloud)


@given(clouds)
def test_non_dominated_holds_every_point_that_nothing_beats_by_rising_cost(cloud: list[Point]) -> None:
    kept = non_dominated(cloud)
    assert set(kept) == {i for i, point in enumerate(cloud) if not any(beats(other, point) for other in cloud)}
    assert [cloud[i][1:] for i in kept] == sorted(cloud[i][1:] for i in kept)


@given(clouds)
def test_every_dominated_point_is_dominated_by_a_member_of_the_set(cloud: list[Point]) -> None:
    members = [cloud[i] for i in non_dominated(cloud)]
    for point, flag in zip(cloud, dominated(cloud), strict=True):
        assert flag == any(dominates(member, point) for member in members)


@given(points(1))
def test_with_one_cost_accuracy_rises_strictly_with_cost_along_the_set(cloud: list[Point]) -> None:
    distinct = sorted({cloud[i] for i in non_dominated(cloud)}, key=lambda point: point[1])
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(distinct))


def test_equal_points_stand_side_by_side() -> None:
    assert non_dominated([(0.8, 5.0), (0.8, 5.0)]) == (0, 1)


def test_points_with_different_costs_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="argument"):
        dominates((0.8, 1.0), (0.8, 1.0, 2.0))


def test_shortfall_is_the_accuracy_lacking_to_the_best_that_costs_no_more() -> None:
    front = [(0.7, 1.0), (0.8, 5.0), (0.9, 9.0)]
    assert shortfall((0.75, 6.0), front) == pytest.approx(0.05)
    assert shortfall((0.85, 9.5), front) == pytest.approx(0.05)
    assert shortfall((0.5, 0.5), front) == 0
    assert shortfall((0.72, 2.0), front) == 0
