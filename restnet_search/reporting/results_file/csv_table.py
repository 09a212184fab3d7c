"""``pareto.csv``: one row per budget and member of its Pareto set."""

from __future__ import annotations

import csv
import io

from restnet_search.plain.escaping import csv_cell
from restnet_search.reporting.model.budget_sets import BudgetEntry
from restnet_search.reporting.model.run_report import Entry, Report
from restnet_search.search.run.records import AnchorRecord

__all__ = ["pareto_csv"]

_COLUMNS: tuple[str, ...] = (
    "budget", "id", "kind", "front", "front_cut", "back", "back_cut", "order", "macs", "params",
    "val_top1", "val_n", "test_top1", "test_low", "test_high", "test_n", "pick", "memory", "latency",
    "measured_median", "measured_p95", "tune", "exported_macs",
    "line_split", "line", "height", "gain", "gain_low", "gain_high",
)  # fmt: skip


def pareto_csv(report: Report) -> str:
    """Return the table as text; accuracies are fractions."""
    buffer = io.StringIO()
    writer: csv.DictWriter[str] = csv.DictWriter(buffer, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for budget in report.budgets:
        for id in budget.pareto:
            cells = (_row(budget, report.entry(id)) | _rivals(report, budget, id)).items()
            writer.writerow({key: csv_cell(cell) if isinstance(cell, str) else cell for key, cell in cells})
    return buffer.getvalue()


def _row(budget: BudgetEntry, entry: Entry) -> dict[str, object]:
    row: dict[str, object] = {
        "budget": budget.name,
        "id": entry.id,
        "macs": entry.macs,
        "params": entry.params,
        "val_top1": entry.val.top1,
        "val_n": entry.val.n,
        "pick": str(entry.id == budget.pick).lower(),
    }
    if isinstance(entry, AnchorRecord):
        row["kind"] = "anchor"
    else:
        row |= {"kind": "hybrid", "order": entry.order, "tune": entry.tune}
        row |= {"front": entry.front.anchor, "front_cut": entry.front.cut}
        row |= {"back": entry.back.anchor, "back_cut": entry.back.cut}
    row |= {kind: value for kind in ("memory", "latency") if (value := getattr(entry, kind)) is not None}
    if entry.measured is not None:
        row |= {"measured_median": entry.measured.median, "measured_p95": entry.measured.p95}
    if entry.exported_macs is not None:
        row["exported_macs"] = entry.exported_macs
    if entry.test is not None:
        low, high = entry.test.ci95
        row |= {"test_top1": entry.test.top1, "test_low": low, "test_high": high, "test_n": entry.test.n}
    return row


def _rivals(report: Report, budget: BudgetEntry, id: str) -> dict[str, object]:
    """Return a hybrid's height above the line between the anchors, and an entry's gain over the best anchor on test."""
    row: dict[str, object] = {}
    line = report.measured_line
    if line is not None and (height := line.heights.get(id)) is not None:
        row |= {"line_split": height.split, "line": height.line, "height": height.height}
    if (gain := budget.gains.get(id)) is not None:
        row |= {"gain": gain.difference, "gain_low": gain.ci95[0], "gain_high": gain.ci95[1]}
    return row
