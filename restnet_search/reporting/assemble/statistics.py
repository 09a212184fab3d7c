"""Statistics of the report: intervals of accuracies, and how well a ranker foresaw them. Pure functions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from statistics import fmean
from typing import Any

from restnet_search.reporting.model.judgements import WithinFront
from restnet_search.search.run.records import FinalScore

__all__ = [
    "difference_interval",
    "final_score",
    "kendall",
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


def final_score(correct: int, n: int) -> FinalScore:
    """Return the score of ``correct`` among ``n`` test images, with its interval.

    Raises:
        ValueError: As :func:`wilson_interval`.
    """
    return FinalScore(correct / n, wilson_interval(correct, n), n)


def difference_interval(
    successes: tuple[int, int], n: tuple[int, int], confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval [low, high] of the difference of two proportions, first minus second.

    Formula: Newcombe (1998), method 10, from two Wilson intervals. It takes the samples as independent, which is
    cautious for two networks scored on the same images, since they tend to fail on the same ones.

    Raises:
        ValueError: As :func:`wilson_interval`.
    """
    (low_a, high_a), (low_b, high_b) = (wilson_interval(k, m, confidence) for k, m in zip(successes, n, strict=True))
    a, b = (k / m for k, m in zip(successes, n, strict=True))
    return (a - b) - math.hypot(a - low_a, high_b - b), (a - b) + math.hypot(high_a - a, b - low_b)


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
