"""Facts of a network for its export, taken from the results of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from restnet_search.errors import BudgetError
from restnet_search.units import parse_budget

if TYPE_CHECKING:
    from restnet_search.export import Accuracy, ChosenNetwork
    from restnet_search.export.network.runtime_cost import Latency
    from restnet_search.reporting.model.run_report import Entry, Report

__all__ = ["as_named", "choose_network"]


def as_named(text: str) -> str:
    """Return a budget as reports name it: ``85MMACs`` is ``85MFLOPs``; any other text stays."""
    try:
        return parse_budget(text).name
    except BudgetError:
        return text


def choose_network(report: Report, entry: Entry) -> ChosenNetwork:
    """Return what an export needs to know of a network: id, costs, accuracies, data type of memory, latency."""
    from restnet_search.costs.cost import Cost
    from restnet_search.export import ChosenNetwork

    cost = Cost(int(entry.macs), int(entry.params))
    dtype = report.search.memory_dtype or "float32"
    return ChosenNetwork(entry.id, cost, tuple(_accuracies(entry)), dtype, _latency(report, entry))


def _accuracies(entry: Entry) -> list[Accuracy]:
    from restnet_search.export import Accuracy

    scores = [Accuracy("val", entry.val.top1, entry.val.n)]
    if entry.test is not None:
        scores.append(Accuracy("test", entry.test.top1, entry.test.n, entry.test.ci95))
    return scores


def _latency(report: Report, entry: Entry) -> Latency | None:
    """Return the latency of the whole network if it was measured, else the sum of its parts."""
    from restnet_search.export.network.runtime_cost import Latency

    note = report.search.latency
    if note is None:
        return None
    on = replace(note.on, runtime="device") if note.foreign else note.on
    if entry.measured is not None:
        return Latency(entry.measured.median, on, entry.measured.p95, entry.measured.runs)
    return None if entry.latency is None else Latency(entry.latency, on)
