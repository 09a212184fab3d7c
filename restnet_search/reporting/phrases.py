"""Words and figures of the report: small pure functions for every renderer."""

from __future__ import annotations

from decimal import Decimal

from restnet_search.reporting.model.budget_sets import BudgetEntry
from restnet_search.reporting.model.comparison import Comparison
from restnet_search.reporting.model.run_report import Entry, Report
from restnet_search.search.run.records import AnchorRecord, part_names
from restnet_search.units import format_bytes, format_count, format_seconds

__all__ = [
    "SHORT_PATH",
    "anchor_name",
    "budget_limits",
    "cut_name",
    "device_columns",
    "device_cost",
    "device_titles",
    "difference",
    "gain",
    "height",
    "interval",
    "is_above_chance",
    "memory_dtype",
    "network",
    "parts",
    "percent",
    "points",
]

SHORT_PATH = 12
"""Module paths up to this many characters stand in a table; for longer ones the cut point's index does."""


def percent(fraction: float) -> str:
    """Format a fraction as a percentage without its sign: ``82.5``."""
    return f"{100 * fraction:.1f}"


def points(fraction: float) -> str:
    """Format a difference of fractions in percentage points: ``+2.9``, ``-0.4``, ``0.0``."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def difference(first: float, second: float) -> str:
    """Format how far a fraction is above another, in percentage points, as their percentages are shown: 84.1 - 84.2 is
    -0.1, whatever their further digits are, for readers subtract what they see.
    """
    return points(float(Decimal(percent(first)) - Decimal(percent(second))) / 100)


def is_above_chance(low: float) -> bool:
    """Say whether an interval of a difference, as it is shown, lies above zero; one that touches it does not."""
    return Decimal(percent(low)) > 0


def cut_name(path: str, cut: int) -> str:
    """Name a cut point by its module path where that is known and short, else by its index."""
    return path if 0 < len(path) <= SHORT_PATH else str(cut)


def parts(report: Report, entry: Entry, *, paths: bool = True) -> tuple[str, ...]:
    """Name an entry's parts: ``("resnet8[..layer1.0]", "resnet56[layer2.0..]")``, or the anchor's name alone.

    What was tuned beside the stitch layer stands behind the back, and the kind of the stitch layer where hybrids of the
    run have several.

    Args:
        report: That the entry is of.
        entry: An anchor or a hybrid.
        paths: Name cut points by short module paths; else by their indices alone.
    """
    if isinstance(entry, AnchorRecord):
        return (anchor_name(entry),)
    end, start = (cut_name(side.path if paths else "", side.cut) for side in (entry.front, entry.back))
    front, back = part_names(entry.front.anchor, end, entry.back.anchor, start)
    notes = [entry.stitch.kind] if len(report.stitch_kinds) > 1 else []
    notes += [] if entry.tune == "stitch" else [entry.tune]
    return front, back + (f" ({', '.join(notes)})" if notes else "")


def anchor_name(anchor: AnchorRecord) -> str:
    """Name an anchor as tables do: one whose weights say nothing of the images is marked."""
    return f"{anchor.name} (untrained)" if anchor.is_untrained else anchor.name


def network(report: Report, entry: Entry) -> str:
    """Name an entry by its parts in one line: ``resnet8[..1] + resnet56[10..]``, or the anchor's name."""
    return " + ".join(parts(report, entry))


def gain(entry: Entry, reference: Entry) -> str | None:
    """Format how far ``entry`` is above ``reference`` on test, in points; None if one was not scored there."""
    if entry.test is None or reference.test is None:
        return None
    return difference(entry.test.top1, reference.test.top1)


def interval(comparison: Comparison) -> str:
    """Say how sure a difference is, as ``95 % interval -0.2 to +5.4: only it is right on 23 images, only vit on 10``;
    where the run does not say which images were right, that is said.
    """
    low, high = map(points, comparison.ci95)
    text = f"95 % interval {low} to {high}"
    pairs = comparison.paired
    if pairs is None:
        return f"{text}, too wide: the run does not say which images each was right on"
    images = "image" if pairs.only_first == 1 else "images"
    ours, theirs = f"{pairs.only_first:,} {images}", f"{pairs.only_second:,}"
    return f"{text}: only it is right on {ours}, only {comparison.second} on {theirs}"


def height(report: Report, entry: Entry) -> str:
    """Format a hybrid's height above the line between the anchors in points, ``v`` behind it where it is of val; ``-``
    for anchors, and outside the range of their MACs.
    """
    line = report.measured_line
    known = None if line is None else line.heights.get(entry.id)
    if known is None:
        return "-"
    return points(known.height) + ("v" if known.split == "val" else "")


def budget_limits(report: Report, budget: BudgetEntry) -> str:
    """Say what a budget allows, and how that is counted: ``at most 85.0M MACs and 1.00MB of memory in int8``."""
    limits = [(budget.limits.get("macs"), "MACs"), (budget.limits.get("params"), "params")]
    held = [f"{format_count(limit)} {unit}" for limit, unit in limits if limit is not None]
    if "memory" in budget.limits:
        held.append(f"{format_bytes(budget.limits['memory'])} of memory in {memory_dtype(report)}")
    if "latency" in budget.limits:
        note = report.search.latency
        where = f" on {note.on}" if note is not None else ""
        held.append(f"{format_seconds(budget.limits['latency'])} of latency{where}")
    return f"at most {' and '.join(held)}" if held else "no limit"


def device_columns(report: Report) -> tuple[str, ...]:
    """Return the kinds of device cost that a table shows beside MACs and parameters: those that were asked for."""
    return tuple(kind for kind in ("memory", "latency") if report.uses(kind))


def memory_dtype(report: Report) -> str:
    """Return what memory is counted in."""
    return report.search.memory_dtype or "float32"


def device_titles(report: Report) -> tuple[str, ...]:
    """Return the titles of :func:`device_columns`, each with what it is counted in or measured on."""
    note = report.search.latency
    where = "" if note is None else "\non its device" if note.foreign else f"\n{note.on.runtime}"
    titles = {"memory": f"memory\n{memory_dtype(report)}", "latency": f"latency{where}"}
    return tuple(titles[kind] for kind in device_columns(report))


def device_cost(entry: Entry, kind: str) -> str:
    """Format an entry's memory or latency; a latency that was measured whole wins over a sum of parts (``~``)."""
    if kind == "memory":
        return "-" if entry.memory is None else format_bytes(entry.memory)
    if entry.measured is not None:
        return format_seconds(entry.measured.median)
    return "-" if entry.latency is None else f"~{format_seconds(entry.latency)}"
