"""The report of one run. Its dataclasses are the keys of ``results.json``, schema version 2.

Accuracies are fractions, MACs and parameters plain counts, times seconds. Anchors and hybrids are the records that the
search wrote; what the report derives of them stands beside them, by id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from restnet_search.errors import RunError, did_you_mean
from restnet_search.pareto.anchor_line import LineScale
from restnet_search.reporting.model.budget_sets import BudgetEntry
from restnet_search.reporting.model.judgements import OrderEntry, RankerEntry, Trials
from restnet_search.reporting.model.line_summary import LineSummary, measure_line
from restnet_search.reporting.model.summary import SearchSummary
from restnet_search.search.run.records import AnchorRecord, Dropped, HybridRecord, RungSummary, SharedState
from restnet_search.search.run.rival_records import Rivals

__all__ = ["SCHEMA_VERSION", "Entry", "Report", "with_line"]

SCHEMA_VERSION = 2

Entry = AnchorRecord | HybridRecord
_E = TypeVar("_E", AnchorRecord, HybridRecord, Entry)


@dataclass(frozen=True)
class Report:
    """Everything one search found.

    Attributes:
        schema_version: Of ``results.json``.
        run: Name of its folder.
        created: When it was started, an ISO 8601 time.
        command: What the user typed.
        space: Name of the search space.
        seed: Of the search.
        environment: Versions and machine.
        search: What was searched and what it cost.
        anchors: As they were measured.
        rankers: What each was worth.
        trials: How they ended.
        hybrids: All that were trained, random controls among them, for they are hybrids like others.
        budgets: Their Pareto sets and picks.
        orders: What each direction came to.
        controls: Anchors stitched to themselves, which enter no Pareto set and are never picked.
        rungs: From the cost table to full training.
        dropped: Candidates that no trial was spent on.
        dominated: Ids of hybrids to which another entry (anchor or hybrid) has at least the accuracy on val at no more
            cost, one of them strictly better.
        non_commercial: Hybrid -> the anchors in it whose weights' license is known to shut out commercial use; hybrids
            without any are left out.
        line: The line between the anchors and every hybrid's height above it; None in runs of earlier versions, for
            which :attr:`measured_line` measures it.
        shared: Routes that were trained together after the search (``finetune --shared``); None where none were.
        rivals: What is set beside the picks: cascades of anchors, and the distilled anchor.
    """

    schema_version: int
    run: str
    created: str
    command: str
    space: str
    seed: int
    environment: Mapping[str, str | int | float | bool | None]
    search: SearchSummary
    anchors: tuple[AnchorRecord, ...]
    rankers: tuple[RankerEntry, ...]
    trials: Trials
    hybrids: tuple[HybridRecord, ...]
    budgets: tuple[BudgetEntry, ...]
    orders: tuple[OrderEntry, ...] = ()
    controls: tuple[HybridRecord, ...] = ()
    rungs: tuple[RungSummary, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    dominated: tuple[str, ...] = ()
    non_commercial: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    line: LineSummary | None = None
    shared: SharedState | None = None
    rivals: Rivals = field(default_factory=Rivals)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Anchors, then hybrids."""
        return (*self.anchors, *self.hybrids)

    @property
    def stitch_kinds(self) -> frozenset[str]:
        """The kinds of stitch layers that hybrids and controls have."""
        return frozenset(hybrid.stitch.kind for hybrid in (*self.hybrids, *self.controls))

    @property
    def measured_line(self) -> LineSummary | None:
        """The line between the anchors, over the logarithm of MACs where the run does not hold it."""
        return self.line or measure_line(self.anchors, self.hybrids)

    @property
    def pareto_hybrids(self) -> tuple[HybridRecord, ...]:
        """The hybrids in the Pareto set of any budget."""
        members = {id for budget in self.budgets for id in budget.pareto}
        return tuple(hybrid for hybrid in self.hybrids if hybrid.id in members)

    def entry(self, id: str) -> Entry:
        """Return the anchor or hybrid of this id, or the distilled anchor.

        Raises:
            RunError: If the run has neither; names the valid ids.
        """
        distilled = self.rivals.distilled
        named = self.entries if distilled is None else (*self.entries, distilled.network)
        return _by_id(named, id, f"The run {self.run} has no anchor or hybrid {id!r}.")

    def hybrid(self, id: str) -> HybridRecord:
        """Return the hybrid of this id.

        Raises:
            RunError: If the run has none; names the valid ids.
        """
        return _by_id(self.hybrids, id, f"The run {self.run} has no hybrid {id!r}.")

    def budget(self, name: str) -> BudgetEntry:
        """Return the budget of this name.

        Raises:
            RunError: If the run has none; names the valid ones.
        """
        for budget in self.budgets:
            if budget.name == name:
                return budget
        names = [budget.name for budget in self.budgets]
        raise RunError(f"The run {self.run} has no budget {name!r}.", expected=did_you_mean(name, names))

    def uses(self, kind: str) -> bool:
        """Return True where an objective or a budget uses a kind of cost, so that tables show it."""
        limited = any(kind in budget.limits for budget in self.budgets)
        return limited or kind in self.search.objectives


def with_line(report: Report, scale: LineScale) -> Report:
    """Return the report with heights above a line of this scale."""
    return replace(report, line=measure_line(report.anchors, report.hybrids, scale))


def _by_id(entries: tuple[_E, ...], id: str, problem: str) -> _E:
    for entry in entries:
        if entry.id == id:
            return entry
    names = [entry.id for entry in entries]
    raise RunError(problem, expected=f"one of {did_you_mean(id, names)}" if names else "a run with trained hybrids")
