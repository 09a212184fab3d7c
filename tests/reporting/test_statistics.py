from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, kendalltau, rankdata

from restnet_search.reporting.assemble.statistics import difference_interval, spearman, wilson_interval, within_front

counts = st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
finite = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))


@given(counts, st.floats(0.5, 0.999))
def test_wilson_equals_scipy(count: tuple[int, int], confidence: float) -> None:
    successes, n = count
    oracle = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, n, confidence) == pytest.approx((oracle.low, oracle.high), abs=1e-9)


@given(counts)
def test_wilson_holds_the_proportion_and_stays_within_zero_and_one(count: tuple[int, int]) -> None:
    low, high = wilson_interval(*count)
    assert 0 <= low <= count[0] / count[1] <= high <= 1


@pytest.mark.parametrize(("successes", "n", "confidence"), [(0, 0, 0.95), (-1, 5, 0.95), (6, 5, 0.95), (1, 5, 1.0)])
def test_wilson_rejects_impossible_counts(successes: int, n: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="came"):
        wilson_interval(successes, n, confidence)


def test_difference_interval_reproduces_newcombes_published_example() -> None:
    # Newcombe (1998), Statistics in Medicine 17:873-890, table II, method 10: 56/70 - 48/80.
    assert difference_interval((56, 48), (70, 80)) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@given(counts, counts)
def test_difference_interval_changes_sign_when_the_sides_are_swapped(a: tuple[int, int], b: tuple[int, int]) -> None:
    low, high = difference_interval((a[0], b[0]), (a[1], b[1]))
    swapped = difference_interval((b[0], a[0]), (b[1], a[1]))
    assert (-high, -low) == pytest.approx(swapped, abs=1e-12)


@given(st.lists(st.tuples(finite, finite), min_size=3, max_size=30))
def test_spearman_is_pearson_of_the_ranks(pairs: list[tuple[float, float]]) -> None:
    first, second = (list(side) for side in zip(*pairs, strict=True))
    result = spearman(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert result is None
    else:
        assert result == pytest.approx(np.corrcoef(rankdata(first), rankdata(second))[0, 1], abs=1e-9)


@pytest.mark.parametrize(
    ("first", "second"), [([], []), ([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [4] * 3)]
)
def test_spearman_is_none_where_undefined(first: list[float], second: list[float]) -> None:
    assert spearman(first, second) is None


def test_spearman_refuses_what_it_cannot_rank() -> None:
    with pytest.raises(ValueError, match="finite"):
        spearman([1, 2, math.nan], [1, 2, 3])
    with pytest.raises(ValueError, match="as many"):
        spearman([1, 2, 3], [1, 2])


def test_within_front_counts_hits_where_there_is_a_choice_and_averages_where_there_is_an_order() -> None:
    points = [
        ("a", 0.9, 0.8), ("a", 0.5, 0.7), ("a", 0.1, 0.6),  # right order: Spearman 1, hit
        ("b", 0.9, 0.6), ("b", 0.5, 0.7), ("b", 0.1, 0.8),  # reversed: Spearman -1, miss
        ("c", 0.9, 0.8), ("c", 0.5, 0.7),  # two partners: hit, no Spearman
        ("d", 0.9, 0.8),  # no choice
        ("e", 0.9, 0.8), ("e", 0.5, 0.7), ("e", 0.3, 0.75),  # Spearman 0.5, hit
    ]  # fmt: skip
    result = within_front(points)
    assert (result.fronts, result.top1_hits, result.spearman_fronts) == (4, 3, 3)
    assert result.spearman == pytest.approx(0.5 / 3)
    assert result.chance_hits == pytest.approx(1 / 3 + 1 / 3 + 1 / 2 + 1 / 3)


def test_a_ranker_that_cannot_decide_scores_no_hit_unless_every_choice_is_right() -> None:
    undecided = [("a", 0.5, 0.7), ("a", 0.5, 0.8)]
    assert within_front(undecided).top1_hits == 0
    assert within_front([("a", 0.5, 0.8), ("a", 0.5, 0.8)]).top1_hits == 1


def test_within_front_of_nothing_is_undefined_not_zero() -> None:
    result = within_front([])
    assert (result.spearman, result.top1_hits, result.fronts) == (None, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 2), finite, finite), max_size=25))
def test_within_front_ignores_order_of_points_and_monotone_changes_of_score(
    points: list[tuple[int, float, float]],
) -> None:
    changed = [(front, 3 * score + 1, accuracy) for front, score, accuracy in reversed(points)]
    first, second = within_front(points), within_front(changed)
    assert (first.top1_hits, first.fronts, first.spearman_fronts) == (
        second.top1_hits, second.fronts, second.spearman_fronts,
    )  # fmt: skip
    assert first.spearman == (None if second.spearman is None else pytest.approx(second.spearman))


def test_spearman_agrees_in_sign_with_kendall_on_a_clear_trend() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(50)
    accuracies = scores + 0.1 * rng.random(50)
    result = spearman(scores.tolist(), accuracies.tolist())
    kendall: Any = kendalltau(scores, accuracies)
    assert result is not None and 0.8 < kendall.statistic < result
