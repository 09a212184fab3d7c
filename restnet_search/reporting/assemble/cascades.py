"""Cascades of two anchors at the MACs of a pick or a budget: pure functions of what both predict for val and test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, permutations
from typing import Literal, NamedTuple

from restnet_search.plain.answers import Answers
from restnet_search.plain.predictions import Predictions
from restnet_search.reporting.assemble.statistics import final_score
from restnet_search.reporting.model.budget_sets import BudgetEntry
from restnet_search.search.run.records import AnchorRecord, Cost, Score
from restnet_search.search.run.rival_records import Cascade

__all__ = ["SplitPredictions", "Threshold", "cascade_entries", "choose_threshold"]

SplitPredictions = Mapping[str, Predictions]
"""Predictions of one network by split: ``val`` and ``test``."""


@dataclass(frozen=True)
class Threshold:
    """A threshold of confidence, below which an image is left to the large network.

    Attributes:
        value: Between 0 and 1; it lies halfway between two confidences that were seen, so that rounding moves no image.
        deferred: Number of images below it.
        correct: Number of images that the cascade then classifies correctly.
    """

    value: float
    deferred: int
    correct: int


def choose_threshold(small: Predictions, large: Predictions, most: int) -> Threshold | None:
    """Return the threshold with the most correct answers that leaves at most ``most`` images to the large network.

    Of equal ones the cheapest is taken, which leaves the fewest. Images of equal confidence go the same way. None where
    no threshold leaves some images to each: that would be one network alone.

    Raises:
        ValueError: If the two saw other images.
    """
    import numpy as np

    if small.images != large.images or len(small) != len(large):
        raise ValueError("a cascade needs predictions of both networks for the same images")
    order = np.argsort(small.confidence, kind="stable")
    confidence = small.confidence[order]
    # correct[k]: the k least sure images are left to the large network, the others are not
    won = np.concatenate([[0], np.cumsum(large.correct[order].astype(int) - small.correct[order].astype(int))])
    correct = won + int(small.correct.sum())
    counts = np.flatnonzero(confidence[1:] > confidence[:-1]) + 1
    counts = counts[counts <= most]
    if not len(counts):
        return None
    deferred = int(counts[np.argmax(correct[counts])])  # the first of the best
    value = (confidence[deferred - 1] + confidence[deferred]) / 2
    return Threshold(float(value), deferred, int(correct[deferred]))


def cascade_entries(
    anchors: Sequence[AnchorRecord],
    budgets: Sequence[BudgetEntry],
    picks: Mapping[str, int],
    seen: Mapping[str, SplitPredictions],
) -> tuple[Cascade, ...]:
    """Return the best cascade on val beside every pick: one at its MACs, one at the MACs that its budget allows.

    Args:
        anchors: Of the search.
        budgets: Its budgets.
        picks: MACs of the pick of every budget that has one, by the budget's name.
        seen: Predictions of the anchors; those without any take no part.
    """
    known = [anchor for anchor in anchors if anchor.name in seen]
    pairs = [(small, large) for small, large in permutations(known, 2) if small.macs < large.macs]
    best: list[Cascade] = []
    for limit in chain.from_iterable(_limits(budget, picks) for budget in budgets):
        possible = [one for pair in pairs if (one := _cascade(limit, *pair, seen)) is not None]
        best += sorted(possible, key=lambda one: (-one.val.top1, one.mean_macs["val"], one.small, one.large))[:1]
    return tuple(best)


class _Limit(NamedTuple):
    budget: str
    at: Literal["pick", "budget"]
    macs: int


def _limits(budget: BudgetEntry, picks: Mapping[str, int]) -> Iterator[_Limit]:
    if budget.name in picks:
        yield _Limit(budget.name, "pick", picks[budget.name])
    if "macs" in budget.limits:
        yield _Limit(budget.name, "budget", int(budget.limits["macs"]))


def _cascade(
    limit: _Limit, small: AnchorRecord, large: AnchorRecord, seen: Mapping[str, SplitPredictions]
) -> Cascade | None:
    """Return the cascade of two anchors with the best threshold on val within a limit; None where there is none."""
    import numpy as np

    val, test = ((seen[small.name][split], seen[large.name][split]) for split in ("val", "test"))
    chosen = choose_threshold(*val, most=(limit.macs - small.macs) * len(val[0]) // large.macs)
    if chosen is None:
        return None
    left = test[0].confidence < chosen.value
    answers = Answers.of(np.where(left, test[1].correct, test[0].correct).tolist(), test[0].images)
    deferred = {"val": chosen.deferred / len(val[0]), "test": float(left.mean())}
    return Cascade(
        budget=limit.budget,
        at=limit.at,
        limit=limit.macs,
        small=small.name,
        large=large.name,
        threshold=chosen.value,
        deferred=deferred,
        mean_macs={split: small.macs + share * large.macs for split, share in deferred.items()},
        cost=Cost(small.macs + large.macs, small.params + large.params),
        val=Score.of(chosen.correct, len(val[0])),
        test=final_score(answers, answers.n),
    )
