"""Facts of a run in words: what was searched, what it cost, whose weights it used, and how to read its tables."""

from __future__ import annotations

import shlex

from restnet_search.costs.cost_phrases import as_counted_and_exported, named_uncounted, reparameterized
from restnet_search.licenses import TRAINED_HERE, shown
from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.model.summary import ComputeSummary, LatencyNote, SkippedImages
from restnet_search.reporting.phrases import device_columns, percent
from restnet_search.reporting.terminal.line_words import line_fact, line_note
from restnet_search.search.run.records import CacheStatistics, HybridRecord
from restnet_search.space.effort import EFFORTS
from restnet_search.space.schema import TUNED
from restnet_search.units import CONVENTION, format_duration, format_seconds

__all__ = [
    "anchor_warnings",
    "computing",
    "effort",
    "features_reused",
    "licenses",
    "next_commands",
    "reading_notes",
    "search_facts",
    "strategy",
]

_ONLY_STITCH = "Of a hybrid, only the stitch layer was trained: front and back are the anchors' own."


def search_facts(report: Report) -> list[tuple[str, str]]:
    """Return what was searched and what it cost, as (label, sentence)."""
    search, trials = report.search, report.trials
    cuts = ", ".join(f"{name} {count}" for name, count in search.cut_points.items())
    over = f"{search.over_budget:,} over every budget (never trained)" if search.over_budget else "none over budget"
    kept = "candidate" if search.candidates == 1 else "candidates"
    ended = f"{trials.finished} finished, {trials.failed} failed, {trials.skipped} skipped"
    ended += f", {trials.retrained} retrained with their fronts" if trials.retrained else ""
    ended += f", and {trials.controls} controls" if trials.controls else ""
    stages = ", ".join(f"{stage} {format_duration(seconds)}" for stage, seconds in search.seconds.items())
    total = format_duration(sum(search.seconds.values()))
    images = ", ".join(f"{split} {count:,}" for split, count in search.images.items())
    return [
        ("space", f"{report.space}, seed {report.seed}, objectives {', '.join(search.objectives)}"),
        *([("weights", weights)] if (weights := _weights(report)) else []),
        ("cut points", cuts or "none"),
        ("strategy", strategy(report)),
        *([("effort", sentence)] if (sentence := effort(report)) else []),
        *([("workers", f"{search.workers} worker processes trained; times are wall-clock")] if search.workers else []),
        *(("worker lost", sentence) for sentence in search.lost_workers),
        (
            "stitch points",
            f"{search.stitch_points:,}: {over}; {search.candidates:,} {kept} kept by {search.ranker}",
        ),
        ("trials", f"{ended}; {search.training_images_seen:,} training images seen"),
        *(("retraining", f"{id} failed: {reason}") for id, reason in trials.retrainings_failed.items()),
        *([("the line", fact)] if (fact := line_fact(report)) else []),
        *_costs_of_anchors(report),
        *([("computing", computing(search.device, search.compute))] if search.compute else []),
        *([("features", features_reused(search.features))] if search.features else []),
        ("images", images or "none"),
        *(("left out", _skipped_sentence(skipped)) for skipped in search.skipped_images),
        *(("data", note) for note in search.data_notes),
        ("time", f"{total} on {search.device}" + (f": {stages}" if stages else "")),
    ]


def _costs_of_anchors(report: Report) -> list[tuple[str, str]]:
    """Say which anchors were fused, which could not be, and what their costs leave out."""
    facts: list[tuple[str, str]] = []
    for anchor in report.anchors:
        if anchor.cost_as_trained is not None:
            facts.append(("anchor", f"{anchor.name} is {reparameterized(anchor.cost_as_trained.macs, anchor.macs)}"))
        if anchor.kept_branches:
            facts.append(("anchor", f"{anchor.name} is not re-parameterised: {anchor.kept_branches}"))
        if anchor.uncounted:
            named = named_uncounted(anchor.uncounted, anchor.macs)
            facts.append(("not counted", f"{anchor.name}: {named} of its MACs at one a value"))
    return facts


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


def effort(report: Report) -> str:
    """Say what the effort changed and cost, and what the space set itself; empty for runs of earlier versions."""
    name, own = report.search.effort, report.search.effort_but
    if name is None:
        return ""
    level = next((level for known, level in EFFORTS.items() if known == name), None)
    but = f" (the space sets {', '.join(own)} itself)" if own else ""
    return (f"{name}: {level.says}" if level else name) + but


def _skipped_sentence(skipped: SkippedImages) -> str:
    """Say how many images of a split could not be read: ``train: 3 of 4,000 cannot be read: a.jpg, b.jpg, c.jpg``."""
    more = skipped.count - len(skipped.first)
    files = ", ".join(skipped.first) + (f" and {more:,} more" if more else "")
    return f"{skipped.split}: {skipped.count:,} of {skipped.of:,} images cannot be read: {files}"


def features_reused(reuse: CacheStatistics) -> str:
    """Say what keeping features saved: images forwarded against what forwarding them every time would have been."""
    text = f"{reuse.used:,} images' features used, {reuse.forwarded:,} images forwarded for them"
    if reuse.forwarded and reuse.used > reuse.forwarded:
        text += f" ({reuse.used / reuse.forwarded:.1f} times fewer)"
    return text + (f"; {reuse.read:,} {'file' if reuse.read == 1 else 'files'} read from disk" if reuse.read else "")


def computing(device: str, summary: ComputeSummary) -> str:
    """Say where and how: ``cpu, trained in float32, scored in float32; channels first; fronts not compiled``."""
    fronts = "fronts compiled" if summary.compiled else "fronts not compiled"
    return f"{device}, trained in {summary.precision}, scored in float32; {_formats(summary)}; {fronts}"


def _formats(summary: ComputeSummary) -> str:
    chosen = f"channels last: {', '.join(summary.channels_last)}" if summary.channels_last else "channels first"
    gains = ", ".join(f"{name} {gain:g}" for name, gain in summary.gains.items())
    return chosen + (f" (channels last is times as fast: {gains})" if gains else "")


def licenses(report: Report) -> tuple[list[str], str | None]:
    """Say whose license each anchor's weights have, a line each, and warn where one shuts out commercial use.

    Nothing is said where all weights were trained here: then there is no publisher.
    """
    if all(anchor.license == TRAINED_HERE for anchor in report.anchors):
        return [], None
    lines = [
        f"Weights of {anchor.name}: {'license unknown' if anchor.license is None else shown(anchor.license)}"
        for anchor in report.anchors
    ]
    restricted = [report.non_commercial[hybrid.id] for hybrid in report.hybrids if hybrid.id in report.non_commercial]
    if not restricted:
        return lines, None
    weights = f"the weights of {' and '.join(sorted({name for names in restricted for name in names}))}"
    return lines, f"NOT FOR COMMERCIAL USE: {len(restricted)} of {len(report.hybrids)} hybrids hold {weights}."


def anchor_warnings(report: Report) -> list[str]:
    """Say which anchors were searched though their weights, or their answers on val, are no better than chance."""
    warnings: list[str] = []
    for anchor in report.anchors:
        reached = f"{percent(anchor.val.top1)} % of {anchor.val.n:,} val images"
        if anchor.is_untrained:
            random = "its weights are random" if anchor.weights == "random" else "it answers as if it were"
            warnings.append(
                f"UNTRAINED: {anchor.name}: {random} ({reached}). Gains over it and hybrids with its parts mean little."
            )
        elif anchor.standing == "too few images":
            warnings.append(f"{anchor.name}: val has too few images to tell it from chance ({reached}).")
    return warnings


def _weights(report: Report) -> str:
    """Say where each anchor's weights are from; "" where the run does not."""
    return ", ".join(f"{anchor.name} {anchor.weights}" for anchor in report.anchors if anchor.weights is not None)


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
        notes.append(
            f"Latency: median of {note.runs} runs, {note.on}. The "
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
        limit = budget.limits.get("latency")
        members = [report.entry(id) for id in budget.pareto]
        late = [e.id for e in members if limit is not None and e.measured is not None and e.measured.median > limit]
        if late:
            sentences.append(f"Measured whole, {', '.join(late)} took longer than the budget {budget.name} allows.")
    return sentences


def reading_notes(report: Report) -> list[str]:
    """Return what a reader must know to read the tables, the FLOPs convention among it."""
    tunes = [TUNED[name] for name in dict.fromkeys(hybrid.tune for hybrid in report.hybrids) if name in TUNED]
    named = "In brackets the kind of the stitch layer. " if len(report.stitch_kinds) > 1 else ""
    return [
        " ".join([f"{CONVENTION} Costs are per image.", *_as_exported(report)]),
        *_device_notes(report),
        "A[..x] + B[y..]: A up to and with cut point x, the stitch layer, then B after its cut point y. "
        + named
        + (f"In brackets what was tuned beside the stitch layer: {'; '.join(tunes)}." if tunes else _ONLY_STITCH),
        *([note] if (note := line_note(report)) else []),
        "Hybrids were searched, compared and picked on val. Test was left alone until the Pareto set was final, and "
        f"scored once; its brackets are 95 % Wilson intervals. {_of_differences(report)}",
    ]


def _of_differences(report: Report) -> str:
    """Say how intervals of differences were computed."""
    if all(anchor.test.answers for anchor in report.anchors):
        return "Differences have Tango's interval for pairs: both networks were scored on the same images."
    return (
        "Differences have Newcombe's interval of independent samples, which is too wide: an earlier version, which "
        "scored this run, did not keep which images were right."
    )


def _as_exported(report: Report) -> list[str]:
    """Say what of the counted MACs exports fold away: of the picks, or of the anchors where there is none."""
    picks = [report.entry(id) for id in dict.fromkeys(budget.pick for budget in report.budgets) if id is not None]
    counted = [(one.id, one.macs, one.exported_macs) for one in picks or report.anchors]
    named = [
        f"{id} {as_counted_and_exported(macs, exported)}"
        for id, macs, exported in counted
        if exported is not None and exported != macs
    ]
    return [f"Budgets hold for MACs as counted, batch-norms included: {'; '.join(named)}."] if named else []


def next_commands(report: Report) -> list[tuple[str, str]]:
    """Return (command, what it does) to type next; exporting where there is a hybrid to export."""
    picks = [budget.pick for budget in report.budgets if budget.pick is not None]
    hybrids = [entry.id for entry in map(report.entry, picks) if isinstance(entry, HybridRecord)]
    if hybrids:
        export = (
            shlex.join(["restnet-search", "export", report.run]),
            f"write the pick {hybrids[0]} as ONNX and safetensors",
        )
        finetune = shlex.join(["restnet-search", "finetune", report.run])
        return [export, *([(finetune, "train all of it first")] if report.hybrid(hybrids[0]).finetuned is None else [])]
    others = [id for budget in report.budgets for id in budget.pareto if isinstance(report.entry(id), HybridRecord)]
    if others:
        return [
            (
                shlex.join(["restnet-search", "export", report.run, others[-1]]),
                "write that hybrid as ONNX and safetensors",
            )
        ]
    return [(shlex.join(["restnet-search", "report", report.run, "--json"]), "read every hybrid that was trained")]
