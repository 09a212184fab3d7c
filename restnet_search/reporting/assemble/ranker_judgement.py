"""A ranker against the accuracies that trained hybrids reached."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from restnet_search.reporting.assemble.statistics import regret_of_first, spearman, within_front
from restnet_search.reporting.model.judgements import RankerEntry
from restnet_search.search.run.records import HybridRecord, Part

__all__ = ["judge_ranker"]

_FIRST = (1, 3, 5)  # how many first choices of a ranker are judged together


def judge_ranker(name: str, scores: Mapping[str, float], hybrids: Sequence[HybridRecord]) -> RankerEntry:
    """Compare scores and ``val`` accuracies; a stitch point trained more than once counts with its best hybrid.

    Args:
        name: Of the ranker.
        scores: By hybrid, higher is better; those that are not finite are left out.
        hybrids: All that were trained.

    Raises:
        ValueError: If a score is for an unknown hybrid.
    """
    if unknown := sorted(scores.keys() - {hybrid.id for hybrid in hybrids}):
        raise ValueError(f"the ranker {name} scores hybrids that do not exist: {unknown}")
    best: dict[tuple[Part, Part], tuple[float, float]] = {}
    drawn: set[tuple[Part, Part]] = set()
    for hybrid in hybrids:
        score = scores.get(hybrid.id)
        if score is None or not math.isfinite(score):
            continue
        key = (hybrid.front, hybrid.back)
        drawn |= {key} if hybrid.control == "random" else set()
        if key not in best or hybrid.val.top1 > best[key][1]:
            best[key] = (score, hybrid.val.top1)
    points = [((front, back.anchor), *values) for (front, back), values in best.items()]
    pairs = list(best.values())
    correlation = spearman([score for score, _ in pairs], [top1 for _, top1 in pairs])
    regret = {str(k): lost for k in _FIRST if (lost := regret_of_first(pairs, k)) is not None}
    return RankerEntry(name, correlation, within_front(points), len(best), regret, len(drawn))
