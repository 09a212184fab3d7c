"""The pick of a budget beside its rivals on test: the distilled anchor, and cascades of two anchors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from restnet_search.reporting.assemble.comparing import compare_scores
from restnet_search.reporting.model.budget_sets import BudgetEntry
from restnet_search.reporting.model.run_report import Entry
from restnet_search.search.run.records import FinalScore
from restnet_search.search.run.rival_records import Rivals

__all__ = ["with_rivals"]


def with_rivals(budget: BudgetEntry, entries: Mapping[str, Entry], rivals: Rivals) -> BudgetEntry:
    """Return a budget with its pick compared with each rival; without, where there is no pick that was scored on test.

    The distilled anchor is a rival where the budget allows it, a cascade where it stands beside the budget.
    """
    picked = None if budget.pick is None else entries[budget.pick]
    if picked is None or picked.test is None:
        return budget
    scores: dict[str, FinalScore] = {one.id: one.test for one in rivals.cascades_beside(budget.name)}
    if rivals.distilled is not None and budget.allows(rivals.distilled.network):
        scores = {rivals.distilled.network.id: rivals.distilled.network.test} | scores
    compared = {id: compare_scores((picked.id, picked.test), (id, test)) for id, test in scores.items()}
    return replace(budget, rivals=compared)
