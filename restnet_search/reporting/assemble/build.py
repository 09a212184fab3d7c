"""From what the search measured to the whole report: Pareto sets, picks, rank correlations.

Every choice (Pareto set, pick, best anchor) is made on ``val``; ``test`` is only reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from restnet_search.licenses import non_commercial
from restnet_search.pareto.front import Point, dominated, non_dominated
from restnet_search.reporting.assemble.cascades import SplitPredictions, cascade_entries
from restnet_search.reporting.assemble.comparing import compare_scores
from restnet_search.reporting.assemble.order_counts import order_entries
from restnet_search.reporting.assemble.ranker_judgement import judge_ranker
from restnet_search.reporting.assemble.rival_comparisons import with_rivals
from restnet_search.reporting.model.budget_sets import BudgetEntry
from restnet_search.reporting.model.comparison import Comparison
from restnet_search.reporting.model.line_summary import measure_line
from restnet_search.reporting.model.run_report import Entry, Report
from restnet_search.search.run.records import AnchorRecord, Count, Direction, HybridRecord
from restnet_search.units import UNLIMITED, DeviceBudget

__all__ = ["build_report", "finalists"]


def finalists(
    anchors: Sequence[AnchorRecord],
    hybrids: Sequence[HybridRecord],
    budgets: Sequence[DeviceBudget],
    objectives: Sequence[str] = ("accuracy", "macs"),
) -> tuple[str, ...]:
    """Return the ids of the hybrids in any budget's Pareto set: the ones to score on ``test``, by rising cost."""
    chosen = {id for budget in budgets or (UNLIMITED,) for id in _pareto((*anchors, *hybrids), budget, objectives)}
    members = [hybrid for hybrid in hybrids if hybrid.id in chosen]
    return tuple(hybrid.id for hybrid in sorted(members, key=lambda hybrid: (hybrid.macs, hybrid.params, hybrid.id)))


def build_report(
    measured: Report,
    budgets: Sequence[DeviceBudget],
    *,
    ranker_scores: Mapping[str, Mapping[str, float]] | None = None,
    candidates: Mapping[Direction, int] | None = None,
    predictions: Mapping[str, SplitPredictions] | None = None,
) -> Report:
    """Add to a report what follows from its measurements.

    Args:
        measured: The report without budgets, rankers and orders. The objectives of its ``search`` decide the costs of
            every Pareto set.
        budgets: Device budgets; none at all stands for one without limits.
        ranker_scores: Ranker name -> hybrid id -> score, higher is better; by default the hybrids' own ``score``
            under the search's ranker. Scores that are not finite are left out.
        candidates: Stitch points kept for training, by direction.
        predictions: Of the anchors for the images of val and test; what cascades are made of.

    Raises:
        ValueError: If an id is used twice, an anchor has no ``test`` score, or a ranker's score is for an unknown
            hybrid.
    """
    _check_ids(measured)
    if unscored := [anchor.name for anchor in measured.anchors if anchor.test is None]:
        raise ValueError(f"the anchor {unscored[0]} has not been scored on test")
    anchors = measured.anchors
    hybrids = tuple(map(_finite, measured.hybrids))
    objectives = measured.search.objectives
    if ranker_scores is None:
        ranker_scores = {measured.search.ranker: {h.id: h.score for h in hybrids if h.score is not None}}
    sets = tuple(_budget_entry(budget, anchors, hybrids, objectives) for budget in budgets or (UNLIMITED,))
    named: dict[str, Entry] = {entry.id: entry for entry in (*anchors, *hybrids)}
    picks = {budget.name: named[budget.pick].macs for budget in sets if budget.pick is not None}
    rivals = replace(measured.rivals, cascades=cascade_entries(anchors, sets, picks, predictions or {}))
    return replace(
        measured,
        hybrids=hybrids,
        controls=tuple(map(_finite, measured.controls)),
        rankers=tuple(judge_ranker(name, scores, hybrids) for name, scores in ranker_scores.items()),
        budgets=tuple(with_rivals(budget, named, rivals) for budget in sets),
        orders=order_entries(anchors, hybrids, candidates or {}),
        dominated=_dominated(anchors, hybrids, objectives),
        non_commercial=_non_commercial(anchors, (*hybrids, *measured.controls)),
        line=measure_line(anchors, hybrids),
        rivals=rivals,
    )


def pick(entries: Sequence[Entry]) -> str | None:
    """Return the id of the most accurate entry on ``val``; ties go to fewer MACs, fewer parameters, the anchor."""
    best = min(entries, key=lambda e: (-e.val.top1, e.macs, e.params, isinstance(e, HybridRecord), e.id), default=None)
    return None if best is None else best.id


def _check_ids(report: Report) -> None:
    ids = [entry.id for entry in (*report.entries, *report.controls)]
    if twice := sorted({id for id in ids if ids.count(id) > 1}):
        raise ValueError(f"ids of anchors and hybrids must differ, came twice: {twice}")


_E = TypeVar("_E", AnchorRecord, HybridRecord, Entry)


def _finite(hybrid: HybridRecord) -> HybridRecord:
    """Leave out scores that are no numbers: JSON has none for them."""
    return replace(
        hybrid,
        score=_number(hybrid.score),
        r2=_number(hybrid.r2),
        scores={name: score for name, score in hybrid.scores.items() if math.isfinite(score)},
    )


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _count(value: Count) -> Count:
    return int(value) if float(value).is_integer() else float(value)


def _point(entry: Entry, objectives: Sequence[str]) -> Point:
    return (entry.val.top1, *(_cost(entry, name) for name in objectives if name != "accuracy"))


def _cost(entry: Entry, name: str) -> float:
    value: float | None = getattr(entry, name)
    if value is None:
        raise ValueError(f"{entry.id} has no {name}, which is an objective")
    return value


def _within(entries: Sequence[_E], budget: DeviceBudget) -> list[_E]:
    return [entry for entry in entries if entry.cost.fits(budget)]


def _pareto(entries: Sequence[Entry], budget: DeviceBudget, objectives: Sequence[str]) -> tuple[str, ...]:
    inside = _within(entries, budget)
    return tuple(inside[i].id for i in non_dominated([_point(entry, objectives) for entry in inside]))


def _dominated(
    anchors: Sequence[AnchorRecord], hybrids: Sequence[HybridRecord], objectives: Sequence[str]
) -> tuple[str, ...]:
    entries: tuple[Entry, ...] = (*anchors, *hybrids)
    flags = dominated([_point(entry, objectives) for entry in entries])
    return tuple(hybrid.id for hybrid, flag in zip(hybrids, flags[len(anchors) :], strict=True) if flag)


def _non_commercial(anchors: Sequence[AnchorRecord], hybrids: Sequence[HybridRecord]) -> dict[str, tuple[str, ...]]:
    licenses = {anchor.name: anchor.license for anchor in anchors}
    restricted = {h.id: non_commercial(licenses, (h.front.anchor, h.back.anchor)) for h in hybrids}
    return {id: names for id, names in restricted.items() if names}


def _budget_entry(
    budget: DeviceBudget,
    anchors: Sequence[AnchorRecord],
    hybrids: Sequence[HybridRecord],
    objectives: Sequence[str],
) -> BudgetEntry:
    entries: tuple[Entry, ...] = (*anchors, *hybrids)
    pareto, best = _pareto(entries, budget, objectives), pick(_within(anchors, budget))
    return BudgetEntry(
        name=budget.name,
        limits={kind: _count(limit) for kind, limit in budget.limits},
        pareto=pareto,
        pick=pick(_within(entries, budget)),
        best_anchor=best,
        gains=_gains({entry.id: entry for entry in entries}, pareto, best),
    )


def _gains(entries: Mapping[str, Entry], pareto: Sequence[str], best_anchor: str | None) -> dict[str, Comparison]:
    """Compare the other members of a Pareto set with the best anchor, those that were scored on test."""
    reference = None if best_anchor is None else entries[best_anchor].test
    if best_anchor is None or reference is None:
        return {}
    scored = {id: test for id in pareto if id != best_anchor and (test := entries[id].test) is not None}
    return {id: compare_scores((id, test), (best_anchor, reference)) for id, test in scored.items()}
