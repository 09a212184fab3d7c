"""Statistics of the report: intervals of accuracies, and how well a ranker foresaw them. Pure functions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from statistics import NormalDist, fmean
from typing import Any

from restnet_search.reporting.model.judgements import WithinFront
from restnet_search.search.run.records import Answers, FinalScore

__all__ = [
    "difference_interval",
    "final_score",
    "kendall",
    "paired_interval",
    "regret_of_first",
    "spearman",
    "wilson_interval",
    "within_front",
]


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval [low, high] of a proportion, as fractions.

    Formula: Wilson (1927), without continuity correction; holds its coverage near 0 and 1, where accuracies live.

    Raises:
        ValueError: If ``n`` is below 1, ``successes`` is outside [0, n], or ``confidence`` outside (0, 1).
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"need 0 <= successes <= n and n >= 1, came {successes} of {n}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, came {confidence}")
    from scipy.stats import binomtest

    low, high = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    # the ends are exact at 0 and n, where rounding may leave 1e-18
    return (0.0 if successes == 0 else float(low)), (1.0 if successes == n else float(high))


def final_score(correct: int | Answers, n: int) -> FinalScore:
    """Return the score of ``correct`` among ``n`` test images, with its interval.

    Args:
        correct: Their number, or the answers, which the score then keeps.
        n: All images.

    Raises:
        ValueError: As :func:`wilson_interval`.
    """
    answers = correct if isinstance(correct, Answers) else None
    count = correct.correct if isinstance(correct, Answers) else correct
    return FinalScore(count / n, wilson_interval(count, n), n, answers)


def difference_interval(
    successes: tuple[int, int], n: tuple[int, int], confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval [low, high] of the difference of two proportions, first minus second.

    Formula: Newcombe (1998), Statistics in Medicine 17:873-890, method 10, from two Wilson intervals. It takes the
    samples as independent. Two networks scored on the same images tend to fail on the same ones: for those it is far
    too wide, and :func:`paired_interval` is the one to use.

    Raises:
        ValueError: As :func:`wilson_interval`.
    """
    (low_a, high_a), (low_b, high_b) = (wilson_interval(k, m, confidence) for k, m in zip(successes, n, strict=True))
    a, b = (k / m for k, m in zip(successes, n, strict=True))
    return (a - b) - math.hypot(a - low_a, high_b - b), (a - b) + math.hypot(high_a - a, b - low_b)


def paired_interval(only_first: int, only_second: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval [low, high] of the difference of two proportions of the same items, first minus second.

    Formula: the score interval of Tango (1998), Statistics in Medicine 17:891-908: all differences that the score test
    does not reject. It excludes 0 exactly where McNemar's test (without a correction) finds a difference.

    Args:
        only_first: Items that the first had and the second had not; those that both or neither had do not matter.
        only_second: The other way round.
        n: All items.
        confidence: Of the interval, two-sided.

    Raises:
        ValueError: If a count is negative, there are no items, the discordant ones are more than all, or ``confidence``
            is outside (0, 1).
    """
    if n < 1 or min(only_first, only_second) < 0 or only_first + only_second > n:
        raise ValueError(f"need n >= 1 and discordant counts within it, came {only_first} and {only_second} of {n}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, came {confidence}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return -_highest_difference(only_second, only_first, n, z), _highest_difference(only_first, only_second, n, z)


def _highest_difference(only_first: int, only_second: int, n: int, z: float) -> float:
    """Return the highest difference whose score statistic is at most ``z`` in size."""
    from scipy.optimize import brentq

    def excess(difference: float) -> float:
        """Negative inside the interval: (statistic squared - z squared) times the variance."""
        slope = (2 * n - only_first + only_second) * difference - only_first - only_second
        spread = difference * (1 - difference)
        # the most likely share of `only_second` under this difference, from Tango's quadratic equation
        share = (math.sqrt(max(0.0, slope**2 + 8 * n * only_second * spread)) - slope) / (4 * n)
        return (only_first - only_second - n * difference) ** 2 - z**2 * n * (2 * share + spread)

    if only_first == n:
        return 1.0
    estimate = (only_first - only_second) / n  # inside, but where nothing is discordant an end of its own equation
    root: Any = brentq(excess, estimate + 1e-12, 1.0, xtol=1e-12)
    return float(root)


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, or None where it is undefined: fewer than 3 pairs, or a constant side.

    Raises:
        ValueError: If the lengths differ or a value is not finite.
    """
    if not _can_be_ranked(first, second):
        return None
    from scipy.stats import spearmanr

    result: Any = spearmanr(first, second)  # its type stubs do not know the fields
    return float(result.statistic)


def kendall(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Kendall's tau-b, or None where it is undefined, as in :func:`spearman`.

    Raises:
        ValueError: As :func:`spearman`.
    """
    if not _can_be_ranked(first, second):
        return None
    from scipy.stats import kendalltau

    result: Any = kendalltau(first, second)
    return float(result.statistic)


def _can_be_ranked(first: Sequence[float], second: Sequence[float]) -> bool:
    if len(first) != len(second):
        raise ValueError(f"need as many values on both sides, came {len(first)} and {len(second)}")
    if not all(map(math.isfinite, (*first, *second))):
        raise ValueError("rank correlation needs finite values")
    return len(first) >= 3 and len(set(first)) > 1 and len(set(second)) > 1


def regret_of_first(pairs: Sequence[tuple[float, float]], k: int) -> float | None:
    """Return how much accuracy the best of the first ``k`` by score lacks to the best of all, from (score, accuracy).

    Of equal scores the less accurate counts as first, for the ranker would not tell them apart. None where there
    are no more than ``k``: then nothing is left out.
    """
    if len(pairs) <= k:
        return None
    first = sorted(pairs, key=lambda pair: (-pair[0], pair[1]))[:k]
    return max(accuracy for _, accuracy in pairs) - max(accuracy for _, accuracy in first)


def within_front(points: Iterable[tuple[Hashable, float, float]]) -> WithinFront:
    """Judge a ranker front by front, from (front, ranker score, accuracy) of each trained stitch point.

    Higher scores are better. Partners that tie for the best score count as a hit only if all of them reach the
    front's best accuracy: the ranker would not tell them apart.
    """
    fronts: dict[Hashable, list[tuple[float, float]]] = defaultdict(list)
    for front, score, accuracy in points:
        fronts[front].append((score, accuracy))
    correlations: list[float] = []
    regrets: list[float] = []
    compared, hits, chance = 0, 0, 0.0
    for partners in fronts.values():
        if len(partners) < 2:
            continue
        compared += 1
        best = max(accuracy for _, accuracy in partners)
        top = max(score for score, _ in partners)
        hits += all(accuracy == best for score, accuracy in partners if score == top)
        chance += sum(accuracy == best for _, accuracy in partners) / len(partners)
        regrets.append(best - min(accuracy for score, accuracy in partners if score == top))
        correlation = spearman(*zip(*partners, strict=True))
        if correlation is not None:
            correlations.append(correlation)
    mean = fmean(correlations) if correlations else None
    regret = fmean(regrets) if regrets else None
    return WithinFront(mean, hits, compared, spearman_fronts=len(correlations), chance_hits=chance, regret=regret)
