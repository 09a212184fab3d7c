"""Regret, area and combined rankers of the exhaustively trained grids, by hand."""

from __future__ import annotations

import math

import pytest

from tests.benchmarks.regret_tables import area, combined, kept_by, regret


def row(front: str, front_cut: int, back_cut: int, macs: int, trained: float, score: float = 0.0) -> dict[str, object]:
    back = "b" if front == "a" else "a"
    names = {"front": front, "front_cut": front_cut, "back": back, "back_cut": back_cut}
    return {**names, "macs": macs, "trained": trained, "closed_form": score, "short": score + 0.1}


ROWS = [
    row("a", 0, 0, 10, 0.5, 0.4),
    row("a", 0, 1, 20, 0.6, 0.5),
    row("b", 1, 0, 40, 0.8, 0.3),
    row("b", 1, 1, 80, 0.7, 0.2),
]


def test_regret_is_that_of_every_budget_over_log_macs() -> None:
    """Budgets from 10 to 20, 20 to 40 and 40 to 80, equally wide; without the third they lack 0, 0 and 20 points."""
    found = regret(ROWS, [True, True, False, False])
    assert (found.count, found.best, found.mean) == (2, pytest.approx(20), pytest.approx(20 / 3))
    found = regret(ROWS, [False, False, True, False])
    assert (found.best, found.mean) == (0, pytest.approx((50 + 60 + 0) / 3))
    assert regret(ROWS, [True] * 4).mean == 0


def test_area_is_a_share_of_that_of_all() -> None:
    ceiling = math.log(80) + 1 - math.log(10)
    whole = 0.5 * ceiling + 0.1 * (ceiling - math.log(2)) + 0.2 * (ceiling - math.log(4))
    assert area(ROWS, [True, False, False, False]) == pytest.approx(100 * 0.5 * ceiling / whole)
    assert area(ROWS, [True, True, True, False]) == pytest.approx(100)


def test_a_combined_ranker_orders_fronts_by_the_one_and_partners_by_the_other() -> None:
    rows = [row("a", cut, partner, 10, 0.5) for cut in (0, 1) for partner in (0, 1, 2)]
    partner, front = [0.1, 0.9, 0.5, 0.3, 0.2, 0.1], [9.0, 0.1, 9.0, 0.7, 0.0, 0.0]
    scores = combined(rows, partner, front)
    order = sorted(range(6), key=lambda index: -scores[index])
    assert order == [3, 4, 5, 1, 2, 0]  # front 1 first: 0.7 at its first partner beats the 0.1 of the other's


def test_one_list_drops_the_order_that_starts_lower_and_a_list_for_each_keeps_it() -> None:
    rows = [row("a", cut, 0, 30 + cut, 0.6, 0.5 + cut / 100) for cut in range(20)]
    rows += [row("b", cut, 0, 12 + cut, 0.5, 0.4 - cut / 100) for cut in range(5)]
    rows += [row("b", 9, 0, 45, 0.9, 0.3)]
    assert not kept_by(rows, "closed_form", "one list", 0.1)[-1]
    assert all(kept_by(rows, "closed_form", rule, 0.1)[-1] for rule in ("per direction", "both", "both, and fronts"))
