"""The report's sentences: plain text from the report object, for every renderer. Pure functions."""

from __future__ import annotations

from restnet_search.licenses import TRAINED_HERE, shown
from restnet_search.reporting.computing import computing
from restnet_search.reporting.report import (
    AnchorEntry,
    BudgetEntry,
    Entry,
    FeatureReuse,
    HybridEntry,
    LatencyNote,
    RankerEntry,
    Report,
    SkippedImages,
)
from restnet_search.reporting.statistics import difference_interval
from restnet_search.space.schema import TUNED
from restnet_search.units import CONVENTION, format_bytes, format_count, format_seconds

__all__ = [
    "ONLY_STITCH",
    "SHORT_PATH",
    "budget_limits",
    "device_columns",
    "device_cost",
    "duration",
    "features_reused",
    "gain",
    "licences",
    "network",
    "next_commands",
    "parts",
    "percent",
    "points",
    "ranker_caveat",
    "ranker_verdict",
    "reading_notes",
    "search_facts",
    "skipped_sentence",
    "strategy",
    "verdict",
]

SHORT_PATH = 12
"""Module paths up to this many characters stand in a table; for longer ones the cut point's index does."""


ONLY_STITCH = "Of a hybrid, only the stitch layer was trained: front and back are the anchors' own."


def duration(seconds: float) -> str:
    """Format wall time: ``0.4 s``, ``42 s``, ``8 min 20 s``, ``1 h 05 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def percent(fraction: float) -> str:
    """Format a fraction as a percentage without its sign: ``82.5``."""
    return f"{100 * fraction:.1f}"


def points(fraction: float) -> str:
    """Format a difference of fractions in percentage points: ``+2.9``, ``-0.4``, ``0.0``."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def parts(entry: Entry, *, paths: bool = True) -> tuple[str, ...]:
    """Name an entry's parts: ``("resnet8[..layer1.0]", "resnet56[layer2.0..]")``, or the anchor's name alone.

    A cut point is named by its module path where that is short and ``paths`` is set, else by its index. What was tuned
    beside the stitch layer stands behind the back, and the kind of the stitch layer where a run has several.
    """
    if isinstance(entry, AnchorEntry):
        return (entry.name,)
    front, back = (
        side.path if paths and 0 < len(side.path) <= SHORT_PATH else str(side.cut) for side in (entry.front, entry.back)
    )
    said = [entry.stitch.kind] if entry.stitch.named else []
    said += [] if entry.tune == "stitch" else [entry.tune]
    tuned = f" ({', '.join(said)})" if said else ""
    return f"{entry.front.anchor}[..{front}]", f"{entry.back.anchor}[{back}..]{tuned}"


def network(entry: Entry) -> str:
    """Name an entry by its parts in one line: ``resnet8[..1] + resnet56[10..]``, or the anchor's name."""
    return " + ".join(parts(entry))


def gain(entry: Entry, reference: Entry) -> float | None:
    """Return how much ``entry`` is above ``reference`` on test, as a fraction; None if one was not scored there."""
    if entry.test is None or reference.test is None:
        return None
    return entry.test.top1 - reference.test.top1


def search_facts(report: Report) -> list[tuple[str, str]]:
    """Return what was searched and what it cost, as (label, sentence)."""
    search, trials = report.search, report.trials
    cuts = ", ".join(f"{name} {count}" for name, count in search.cut_points.items())
    over = f"{search.over_budget:,} over every budget (never trained)" if search.over_budget else "none over budget"
    kept = "candidate" if search.candidates == 1 else "candidates"
    ended = f"{trials.finished} finished, {trials.failed} failed, {trials.skipped} skipped"
    ended += f", and {trials.controls} controls" if trials.controls else ""
    stages = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in search.seconds.items())
    images = ", ".join(f"{split} {count:,}" for split, count in search.images.items())
    return [
        ("space", f"{report.space}, seed {report.seed}, objectives {', '.join(search.objectives)}"),
        ("cut points", cuts or "none"),
        ("strategy", strategy(report)),
        *([("workers", f"{search.workers} worker processes trained; times are wall-clock")] if search.workers else []),
        (
            "stitch points",
            f"{search.stitch_points:,}: {over}; {search.candidates:,} {kept} kept by {search.ranker}",
        ),
        ("trials", f"{ended}; {search.training_images_seen:,} training images seen"),
        *([("computing", computing(search.device, search.compute))] if search.compute else []),
        *([("features", features_reused(search.features))] if search.features else []),
        ("images", images or "none"),
        *(("left out", skipped_sentence(skipped)) for skipped in search.skipped_images),
        *(("data", note) for note in search.data_notes),
        ("time", f"{duration(sum(search.seconds.values()))} on {search.device}" + (f": {stages}" if stages else "")),
    ]


def strategy(report: Report) -> str:
    """Say how hybrids were trained: each stitch layer by itself, or all of them together."""
    joint = report.search.joint
    if report.search.strategy != "joint":
        return "independent: each stitch layer was trained by itself"
    if joint is None:
        return "joint: stitch layers are shared by neighbours and trained together (SN-Net)"
    points = sum(hybrid.strategy == "joint" for hybrid in report.hybrids)
    return (
        f"joint, as SN-Net: {points:,} stitch points share {joint.stitch_layers:,} stitch layers, trained together in "
        f"{joint.steps:,} steps on {joint.images:,} images; controls were trained by themselves"
    )


def skipped_sentence(skipped: SkippedImages) -> str:
    """Say how many images of a split could not be read: ``train: 3 of 4,000 cannot be read: a.jpg, b.jpg, c.jpg``."""
    more = skipped.count - len(skipped.first)
    files = ", ".join(skipped.first) + (f" and {more:,} more" if more else "")
    return f"{skipped.split}: {skipped.count:,} of {skipped.of:,} images cannot be read: {files}"


def features_reused(reuse: FeatureReuse) -> str:
    """Say what keeping features saved: images forwarded against what forwarding them every time would have been."""
    said = f"{reuse.used:,} images' features used, {reuse.forwarded:,} images forwarded for them"
    if reuse.forwarded and reuse.used > reuse.forwarded:
        said += f" ({reuse.used / reuse.forwarded:.1f} times fewer)"
    return said + (f"; {reuse.read:,} {'file' if reuse.read == 1 else 'files'} read from disk" if reuse.read else "")


def budget_limits(budget: BudgetEntry) -> str:
    """Say what a budget allows: ``at most 85.0M MACs and 1.00M params``."""
    limits = [(budget.limits.macs, "MACs"), (budget.limits.params, "params")]
    held = [f"{format_count(limit)} {unit}" for limit, unit in limits if limit is not None]
    if budget.limits.memory is not None:
        held.append(f"{format_bytes(budget.limits.memory)} of memory")
    if budget.limits.latency is not None:
        held.append(f"{format_seconds(budget.limits.latency)} of latency")
    return f"at most {' and '.join(held)}" if held else "no limit"


def licences(report: Report) -> tuple[list[str], str | None]:
    """Say whose licence each anchor's weights have, a line each, and warn where one shuts out commercial use.

    Nothing is said where all weights were trained here: then there is no publisher.
    """
    if all(anchor.licence == TRAINED_HERE for anchor in report.anchors):
        return [], None
    lines = [f"Weights of {anchor.name}: {shown(anchor.licence)}" for anchor in report.anchors]
    restricted = sorted({name for hybrid in report.hybrids for name in hybrid.non_commercial})
    if not restricted:
        return lines, None
    count = sum(bool(hybrid.non_commercial) for hybrid in report.hybrids)
    told = f"the weights of {' and '.join(restricted)}"
    return lines, f"NOT FOR COMMERCIAL USE: {count} of {len(report.hybrids)} hybrids hold {told}."


def verdict(report: Report, budget: BudgetEntry) -> list[str]:
    """Say what to take under a budget, and whether a hybrid beats the anchors there."""
    inside = [entry for entry in report.entries if budget.allows(entry)]
    if budget.pick is None or not inside:
        return [f"Nothing fits: no anchor and no trained hybrid needs {budget_limits(budget)}.", _smallest(report)]
    picked = report.entry(budget.pick)
    sentences: list[str] = []
    if budget.best_anchor is None:
        sentences.append(f"No anchor fits this budget, so there is none to compare with. {_smallest(report)}")
    if isinstance(picked, AnchorEntry):
        sentences += _anchor_verdict(report, budget, picked, inside)
    else:
        sentences += _hybrid_verdict(report, budget, picked)
    return sentences


def _smallest(report: Report) -> str:
    small = min(report.anchors, key=lambda anchor: anchor.macs)
    costs = f"{format_count(small.macs)} MACs and {format_count(small.params)} params"
    return f"The smallest anchor, {small.name}, needs {costs}."


def _anchor_verdict(report: Report, budget: BudgetEntry, picked: AnchorEntry, inside: list[Entry]) -> list[str]:
    tried = sum(isinstance(entry, HybridEntry) for entry in inside)
    if not tried:
        return [f"Pick: the anchor {picked.name}. No trained hybrid fits this budget."]
    sentences = [
        f"Pick: the anchor {picked.name}. No hybrid beats the anchors within this budget: "
        f"none of the {tried} trained here is more accurate on val."
    ]
    cheaper = sum(isinstance(report.entry(id), HybridEntry) for id in budget.pareto)
    if cheaper:
        noun = "hybrid of the Pareto set is a cheaper trade-off" if cheaper == 1 else (
            "hybrids of the Pareto set are cheaper trade-offs"
        )  # fmt: skip
        sentences.append(f"{cheaper} {noun}.")
    return sentences


def _hybrid_verdict(report: Report, budget: BudgetEntry, picked: HybridEntry) -> list[str]:
    opening = f"Pick: {picked.id}, {network(picked)}."
    if budget.best_anchor is None:
        return [opening]
    anchor = report.entry(budget.best_anchor)
    if picked.val.top1 <= anchor.val.top1:
        cheaper = " at less cost" if picked.macs < anchor.macs else ""
        opening += f" No hybrid beats the anchors on val; this one equals {anchor.id}{cheaper}."
    difference = gain(picked, anchor)
    if picked.test is None or anchor.test is None or difference is None:
        return [opening, "It was not scored on test."]
    counts = (round(picked.test.top1 * picked.test.n), round(anchor.test.top1 * anchor.test.n))
    low, high = difference_interval(counts, (picked.test.n, anchor.test.n))
    interval = f"95 % interval {points(low)} to {points(high)}"
    if difference > 0:
        certainty = "more than chance explains" if low > 0 else "which chance alone could explain"
        return [opening, f"On test it is {points(difference)} points above {anchor.id} ({interval}), {certainty}."]
    where = "level with" if difference == 0 else f"{points(difference)} points against"
    return [opening, f"On test it does not beat the anchors: {where} {anchor.id} ({interval})."]


def ranker_verdict(ranker: RankerEntry) -> str:
    """Say what a ranker's scores were worth against the accuracies reached."""
    inside = ranker.within_front
    if ranker.n == 0:
        return f"{ranker.name}: no stitch point was scored and trained, so nothing can be said of it."
    if ranker.spearman is None:
        overall = f"Spearman over all {ranker.n} trained stitch points is undefined (fewer than 3, or all alike)."
    else:
        overall = (
            f"Spearman {ranker.spearman:+.2f} between its scores and the val accuracies of all {ranker.n} trained "
            f"stitch points: {_strength(ranker.spearman)}."
        )
    if inside.fronts == 0:
        return f"{ranker.name}: {overall} No front was trained with two partners, so its choice of partner is untested."
    fronts = "front" if inside.fronts == 1 else "fronts"
    hits = (
        f"its first choice of partner was the best trained one in {inside.top1_hits} of {inside.fronts} {fronts} "
        f"(guessing: {inside.chance_hits:.1f})"
    )
    if inside.spearman is None:
        return f"{ranker.name}: {overall} Within a front {hits}."
    return (
        f"{ranker.name}: {overall} Within a front {hits}; mean Spearman there {inside.spearman:+.2f} "
        f"(fronts with 3 partners or more: {inside.spearman_fronts})."
    )


def ranker_caveat(ranker: RankerEntry) -> str:
    """Say what the figures of rankers cannot say, and how to read their table."""
    drawn = f", but for {ranker.at_random} drawn at random" if ranker.at_random else ""
    return (
        "Only stitch points that were trained count, and the search's own ranker (*) chose them"
        f"{drawn}: other rankers might have chosen better ones that nobody trained. best of first k: points on val by "
        "which the best of a ranker's first k trained stitch points is below the best trained one; in a front: its "
        "first choice of partner, on average."
    )


def _strength(correlation: float) -> str:
    if correlation <= -0.2:
        return "its order is the wrong way round"
    if correlation < 0.2:
        return "no better than drawing lots"
    if correlation < 0.4:
        return "a weak guide"
    return "a fair guide" if correlation < 0.7 else "a good guide"


def device_columns(report: Report) -> tuple[str, ...]:
    """The kinds of device cost that a table shows beside MACs and parameters: those that were asked for."""
    return tuple(kind for kind in ("memory", "latency") if report.search.uses(kind, report.budgets))


def device_cost(entry: Entry, kind: str) -> str:
    """Format an entry's memory or latency; a latency that was measured whole wins over a sum of parts (``~``)."""
    if kind == "memory":
        return "-" if entry.memory is None else format_bytes(entry.memory)
    if entry.measured is not None:
        return format_seconds(entry.measured.median)
    return "-" if entry.latency is None else f"~{format_seconds(entry.latency)}"


def _device_notes(report: Report) -> list[str]:
    notes: list[str] = []
    columns = device_columns(report)
    if "memory" in columns:
        notes.append(
            f"Peak memory: weights + largest live activations at batch 1, {report.search.memory_dtype or 'float32'};"
            " nothing fused or in place, and without what a runtime needs for itself."
        )
    note = report.search.latency
    if "latency" in columns and note is not None:
        threads = f"{note.threads} thread{'s' * (note.threads != 1)}"
        notes.append(
            f"Latency: median of {note.runs} runs, {note.runtime}, {threads}, batch {note.batch}, {note.machine}. The "
            f"search summed {note.parts} measured parts (~); {_latency_error(note)} Budgets hold for these sums."
        )
        if whole := [(entry.id, entry.measured) for entry in report.entries if entry.measured is not None]:
            slow = ", ".join(f"{id} {format_seconds(timing.p95)}" for id, timing in whole)
            notes.append(
                "Latencies without ~ were measured whole, after the search: anchors and Pareto sets. Their 95th"
                f" percentiles: {slow}. Parts took turns among {note.parts}, these among {len(whole)}: small networks"
                " may run faster than their sums say."
            )
        notes += _exceeding(report)
    return notes


def _latency_error(note: LatencyNote) -> str:
    if note.error_median is None or note.error_max is None:
        return "how far such sums are off was not checked."
    return (
        f"on {note.checked} whole hybrids such sums were off by {percent(note.error_median)} % (median), at most "
        f"{percent(note.error_max)} %."
    )


def _exceeding(report: Report) -> list[str]:
    """Say which members of a Pareto set took longer, measured whole, than their budget allows."""
    sentences: list[str] = []
    for budget in report.budgets:
        limit = budget.limits.latency
        members = [report.entry(id) for id in budget.pareto]
        late = [e.id for e in members if limit is not None and e.measured is not None and e.measured.median > limit]
        if late:
            sentences.append(f"Measured whole, {', '.join(late)} took longer than the budget {budget.name} allows.")
    return sentences


def reading_notes(report: Report) -> list[str]:
    """Return what a reader must know to read the tables, the FLOPs convention among it."""
    tunes = [TUNED[name] for name in dict.fromkeys(hybrid.tune for hybrid in report.hybrids) if name in TUNED]
    named = "In brackets the kind of the stitch layer. " if any(h.stitch.named for h in report.hybrids) else ""
    return [
        f"{CONVENTION} Costs are per image.",
        *_device_notes(report),
        "A[..x] + B[y..]: A up to and with cut point x, the stitch layer, then B after its cut point y. "
        + named
        + (f"In brackets what was tuned beside the stitch layer: {'; '.join(tunes)}." if tunes else ONLY_STITCH),
        "Hybrids were searched, compared and picked on val. Test was left alone until the Pareto set was final, and "
        "scored once; its brackets are 95 % Wilson intervals.",
    ]


def next_commands(report: Report) -> list[tuple[str, str]]:
    """Return (command, what it does) to type next; exporting where there is a hybrid to export."""
    picks = [budget.pick for budget in report.budgets if budget.pick is not None]
    hybrids = [entry.id for entry in map(report.entry, picks) if isinstance(entry, HybridEntry)]
    if hybrids:
        return [(f"restnet-search export {report.run}", f"write the pick {hybrids[0]} as ONNX and safetensors")]
    others = [id for budget in report.budgets for id in budget.pareto if isinstance(report.entry(id), HybridEntry)]
    if others:
        return [(f"restnet-search export {report.run} {others[-1]}", "write that hybrid as ONNX and safetensors")]
    return [(f"restnet-search report {report.run} --json", "read every hybrid that was trained")]
