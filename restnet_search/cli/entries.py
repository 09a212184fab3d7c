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
    from restnet_search.search.run.records import SharedRoute, SharedState

__all__ = ["as_named", "choose_network"]


def as_named(text: str) -> str:
    """Return a budget as reports name it: ``85MMACs`` is ``85MFLOPs``; any other text stays."""
    try:
        return parse_budget(text).name
    except BudgetError:
        return text


def choose_network(
    report: Report, entry: Entry, *, stitch_only: bool = False, shared: SharedState | None = None
) -> ChosenNetwork:
    """Return what an export needs to know of a network: id, costs, accuracies, data type of memory, latency.

    Accuracies are those of the fine-tuned state where one was kept, unless ``stitch_only`` asks for the search's, or
    ``shared`` holds those of the routes that were trained together.
    """
    from restnet_search.costs.cost import Cost
    from restnet_search.export import ChosenNetwork

    cost = Cost(int(entry.macs), int(entry.params))
    dtype = report.search.memory_dtype or "float32"
    scores = tuple(_accuracies(entry if shared is None else shared.routes[entry.id], stitch_only=stitch_only))
    return ChosenNetwork(entry.id, cost, scores, dtype, _latency(report, entry), stitch_only)


def _accuracies(entry: Entry | SharedRoute, *, stitch_only: bool) -> list[Accuracy]:
    from restnet_search.export import Accuracy

    finetuned = getattr(entry, "finetuned", None)  # anchors have none
    scored = finetuned if finetuned is not None and finetuned.kept and not stitch_only else entry
    scores = [Accuracy("val", scored.val.top1, scored.val.n)]
    if scored.test is not None:
        scores.append(Accuracy("test", scored.test.top1, scored.test.n, scored.test.ci95))
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
