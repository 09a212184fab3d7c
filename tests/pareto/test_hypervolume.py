"""Hypervolume against a count on a grid."""

from __future__ import annotations

import numpy as np
import pytest

from restnet_search.pareto.front import hypervolume


@pytest.mark.parametrize("seed", range(5))
def test_hypervolume_is_the_area_that_points_dominate(seed: int) -> None:
    generator = np.random.default_rng(seed)
    points = [(int(a), int(c)) for a, c in generator.integers(0, 40, (12, 2))]
    cells = np.zeros((40, 30), dtype=bool)  # accuracy above 5 up to 45, cost from 0 to 30
    for accuracy, cost in points:
        cells[: max(0, accuracy - 5), cost:30] = True
    assert hypervolume(points, cost=30.0, accuracy=5.0) == pytest.approx(cells.sum())


def test_nothing_dominates_nothing() -> None:
    assert hypervolume([], cost=1.0) == hypervolume([(0.9, 1.0)], cost=1.0) == 0.0
