"""A rung of successive halving against the accuracies that trained hybrids reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from restnet_search.reporting.assemble.statistics import regret_of_first, spearman
from restnet_search.search.run.records import HybridRecord, RungSummary

__all__ = ["judge_rung"]


def judge_rung(
    rung: RungSummary, scores: Mapping[tuple[str, int, str, int, str], float], hybrids: Iterable[HybridRecord]
) -> RungSummary:
    """Say what the scores of a rung foretold of those that were trained; a candidate counts with its best hybrid.

    Args:
        rung: As it was run.
        scores: Its accuracies on val, by candidate; those that had none are left out.
        hybrids: All that were trained.
    """
    best: dict[tuple[str, int, str, int, str], float] = {}
    for hybrid in hybrids:
        key = hybrid.key[:5]
        best[key] = max(best.get(key, 0.0), hybrid.val.top1)
    pairs = [(scores[key], top1) for key, top1 in best.items() if key in scores]
    agreement = spearman([score for score, _ in pairs], [top1 for _, top1 in pairs])
    return replace(rung, agreement=agreement, regret=regret_of_first(pairs, 1), judged=len(pairs))
