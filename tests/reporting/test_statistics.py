from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, kendalltau, norm, rankdata

from restnet_search.reporting.assemble.statistics import (
    difference_interval,
    paired_interval,
    spearman,
    wilson_interval,
    within_front,
)

from . import interval_coverage

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


@pytest.mark.parametrize(
    ("counts", "confidence", "published"),
    [
        # Fagerland, Lydersen and Laake (2014), Statistics in Medicine 33:2850-2875: before and after a transplantation
        ((1, 7, 21), 0.95, (-0.517, -0.026)),
        # the same authors' Statistical Analysis of Contingency Tables (2017), chapter 8: Cavo et al. (2012)
        ((6, 16, 161), 0.95, (-0.1240, -0.0054)),
        # R's PropCIs::scoreci.mp(25, 28, 618, 0.90), whose difference is the second's share minus the first's
        ((28, 25, 618), 0.90, (-0.0148, 0.0247)),
    ],
)
def test_paired_interval_reproduces_published_examples(
    counts: tuple[int, int, int], confidence: float, published: tuple[float, float]
) -> None:
    digits = 5 * 10.0 ** -(1 + max(len(str(end).split(".")[1]) for end in published))
    assert paired_interval(*counts, confidence) == pytest.approx(published, abs=digits)


discordant = st.integers(2, 3000).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda b: st.tuples(st.just(b), st.integers(0, n - b), st.just(n)))
)


def most_likely(only_first: int, only_second: int, n: int, difference: float) -> float:
    """Share of items that only the second has, most likely under a difference: found by search, not by a formula."""
    agreeing = n - only_first - only_second

    def unlikely(share: float) -> float:
        terms = ((only_first, share + difference), (only_second, share), (agreeing, 1 - difference - 2 * share))
        return -sum(count * math.log(max(chance, 1e-300)) for count, chance in terms if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    found: Any = minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    return found.x


@settings(max_examples=60, deadline=None)
@given(discordant, st.floats(0.5, 0.99))
def test_ends_of_the_paired_interval_are_where_the_score_test_just_rejects(
    counts: tuple[int, int, int], confidence: float
) -> None:
    only_first, only_second, n = counts
    limit = norm.ppf((1 + confidence) / 2)
    for end in paired_interval(*counts, confidence):
        if abs(end) > 0.999:
            continue  # everything is discordant in one direction: there is nothing beyond
        share = most_likely(only_first, only_second, n, end)
        variance = n * (2 * share + end - end**2)
        assert abs(only_first - only_second - n * end) / math.sqrt(variance) == pytest.approx(limit, rel=2e-3)


@given(discordant)
def test_paired_interval_excludes_zero_exactly_where_mcnemars_test_finds_a_difference(
    counts: tuple[int, int, int],
) -> None:
    only_first, only_second, _ = counts
    low, high = paired_interval(*counts)
    statistic = abs(only_first - only_second) / math.sqrt(max(only_first + only_second, 1))
    if abs(statistic - norm.ppf(0.975)) > 1e-9:
        assert (low > 0 or high < 0) == (statistic > norm.ppf(0.975))


@given(discordant)
def test_paired_interval_changes_sign_when_the_sides_are_swapped(counts: tuple[int, int, int]) -> None:
    (low, high), (first, second, n) = paired_interval(*counts), counts
    assert -1 <= low <= (first - second) / n + 1e-9 and (first - second) / n - 1e-9 <= high <= 1
    assert paired_interval(second, first, n) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize(("n", "b", "c"), [(50, 0, 0), (500, 0, 0), (50, 50, 0)])
def test_paired_interval_without_any_discordant_pair_has_a_closed_form(n: int, b: int, c: int) -> None:
    z2 = norm.ppf(0.975) ** 2
    expected = (-z2 / (n + z2), z2 / (n + z2)) if b == 0 else ((n - z2) / (n + z2), 1.0)
    assert paired_interval(b, c, n) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n", [500, 2500])
@pytest.mark.parametrize("chances", interval_coverage.CASES[:3])
def test_paired_interval_covers_what_it_says_and_is_narrower_than_of_independent_samples(
    n: int, chances: tuple[float, float, float]
) -> None:
    """Coverage over 4,000 drawn tables: its standard error is 0.35 points."""
    drawn, truth = interval_coverage.tables(n, chances, 4000, seed=7), chances[1] - chances[2]
    distinct, times = np.unique(drawn, axis=0, return_counts=True)
    intervals = np.array([paired_interval(int(first), int(second), n) for _, first, second, _ in distinct])
    held = (intervals[:, 0] <= truth) & (truth <= intervals[:, 1])
    assert 0.94 <= np.average(held, weights=times) <= 0.96
    assert (held == interval_coverage.tango_holds(distinct, truth)).all()
    low, high = interval_coverage.independent(distinct)
    assert ((intervals[:, 1] - intervals[:, 0]) < (high - low)).all()


def test_tangos_interval_covers_nearer_to_what_it_says_than_the_others() -> None:
    """The other intervals of the comparison reproduce published examples, too."""
    cavo = np.array([[59, 6, 16, 80]])  # chapter 8 of Statistical Analysis of Contingency Tables (2017)
    assert [end[0] for end in interval_coverage.newcombe(cavo)] == pytest.approx([-0.1186, -0.0046], abs=5e-5)
    off: dict[str, list[float]] = {}
    for chances in interval_coverage.CASES:
        for name, share in interval_coverage.coverage(500, chances, draws=10_000).items():
            off.setdefault(name, []).append(abs(share - 0.95))
    worst = {name: max(gaps) for name, gaps in off.items()}
    assert worst["Tango"] < 0.015 < worst["Newcombe, pairs"] < 0.05 <= worst["independent"] + 1e-9


@pytest.mark.parametrize(
    ("counts", "confidence"), [((0, 0, 0), 0.95), ((-1, 0, 5), 0.95), ((3, 3, 5), 0.95), ((1, 1, 5), 0.0)]
)
def test_paired_interval_rejects_impossible_counts(counts: tuple[int, int, int], confidence: float) -> None:
    with pytest.raises(ValueError, match="came"):
        paired_interval(*counts, confidence)


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
