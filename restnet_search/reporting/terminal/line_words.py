"""The line between the anchors in words: how many hybrids lie above it, and where the pick lies."""

from __future__ import annotations

from collections import Counter
from statistics import fmean

from restnet_search.reporting.model.line_summary import LineSummary
from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.phrases import percent, points
from restnet_search.search.run.records import HybridRecord
from restnet_search.units import format_count

__all__ = ["line_fact", "line_note", "line_verdict"]


def line_fact(report: Report) -> str | None:
    """Say how many Pareto hybrids lie above the line, and by how much on average; None where a run has no anchors."""
    line, hybrids = report.measured_line, report.pareto_hybrids
    if line is None:
        return None
    if not hybrids:
        return "no hybrid is in a Pareto set"
    known = [line.heights[hybrid.id] for hybrid in hybrids if hybrid.id in line.heights]
    outside = len(hybrids) - len(known)
    beyond = f"{outside} {'has' if outside == 1 else 'have'} fewer or more MACs than any anchor, and no height"
    if not known:
        return f"none of {len(hybrids)} Pareto hybrids can be compared with the line between the anchors: {beyond}"
    above = sum(one.height > 0 for one in known)
    splits = Counter(one.split for one in known)
    where = ", ".join(f"{name} ({count})" if len(splits) > 1 else name for name, count in splits.items())
    text = (
        f"{above} of {len(known)} Pareto hybrids {'lies' if above == 1 else 'lie'} above the line between the anchors "
        f"({_over(line)}, on {where}), mean {points(fmean(one.height for one in known))} points"
    )
    return f"{text}; {beyond}" if outside else text


def line_verdict(report: Report, hybrid: HybridRecord) -> str | None:
    """Say where a hybrid lies against the line; None where a run has no anchors."""
    line = report.measured_line
    if line is None:
        return None
    if (known := line.heights.get(hybrid.id)) is None:
        return "Its MACs are outside the range of the anchors', so it cannot be compared with the line between them."
    tenths = points(known.height)
    where = "on" if tenths == "0.0" else f"{tenths.lstrip('+-')} points {'above' if known.height > 0 else 'below'}"
    return (
        f"It lies {where} the line between the anchors: a straight mix of the anchors' accuracies at its "
        f"{format_count(hybrid.macs)} MACs, {_over(line)}, would be {percent(known.line)} % on {known.split}."
    )


def line_note(report: Report) -> str | None:
    """Say how the line is drawn; None where a run has no anchors."""
    line = report.measured_line
    if line is None:
        return None
    through = {names for names in line.anchors.values() if names}
    named = " on test, ".join(", ".join(names) for names in dict.fromkeys(line.anchors.values()))
    named += " on val" if len(through) > 1 else ""
    return (
        f"line: points above the line between the anchors, which is straight {_over(line)} from one to the next of "
        f"those that no other one dominates ({named}), and level beyond them. It is of test, or of val (v) where a "
        "hybrid was not scored on test."
    )


def _over(line: LineSummary) -> str:
    return "over log MACs" if line.scale == "log" else "over MACs"
