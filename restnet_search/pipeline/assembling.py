"""Assemble the report of a search from what it found and measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import TypeVar

from restnet_search.costs.latency_table import LatencyTable
from restnet_search.data import DataSplits
from restnet_search.data.class_names import ClassOrder
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.pipeline.rivals import RivalScores
from restnet_search.pipeline.scoring import Networks, Search
from restnet_search.reporting.assemble.build import build_report
from restnet_search.reporting.assemble.rung_judgement import judge_rung
from restnet_search.reporting.model.judgements import Failure, Trials
from restnet_search.reporting.model.run_report import SCHEMA_VERSION, Report
from restnet_search.reporting.model.summary import (
    ComputeSummary,
    DataSummary,
    JointSummary,
    LatencyNote,
    SearchSummary,
    SkippedImages,
)
from restnet_search.search.points.stitch_points import directions_of
from restnet_search.search.run.finetuned_states import shared_state, with_finetuned
from restnet_search.search.run.records import (
    CacheStatistics,
    Direction,
    Dropped,
    HybridRecord,
    Part,
    RungSummary,
)
from restnet_search.search.run.rival_records import Rivals
from restnet_search.search.run.versions import describe_environment
from restnet_search.space.effort import own_keys

__all__ = ["assemble_report"]

_NAMED = 5  # unreadable images that a report names


def _skipped_images(data: DataSplits) -> tuple[SkippedImages, ...]:
    sizes = {split.name: len(split) for split in (data.train, data.val, data.test)}
    return tuple(
        SkippedImages(name, len(images), len(images) + sizes[name], tuple(one.name for one in images[:_NAMED]))
        for name, images in data.unreadable.items()
    )


def _data_summary(data: DataSplits, order: ClassOrder | None) -> DataSummary | None:
    inventory = data.inventory
    if inventory is None:
        return None
    summary = DataSummary(
        classes=inventory.classes,
        skipped_files={
            split: {one.kind: one.count for one in kinds} for split, kinds in inventory.skipped.items() if kinds
        },
        shared_images={f"{one.split} in {one.other}": one.share for one in inventory.overlaps},
        absent_classes=inventory.absent,
    )
    if order is None:
        return summary
    return replace(summary, class_order=order.name, order_accuracy=order.accuracy, reordered_anchors=order.reordered)


def _latency_note(table: LatencyTable | None, *, foreign: bool) -> LatencyNote | None:
    if table is None:
        return None
    errors = table.errors
    return LatencyNote(
        on=table.on,
        parts=len(table.parts),
        runs=max(timing.runs for timing in table.parts.values()),
        checked=len(errors),
        error_median=median(errors) if errors else None,
        error_max=errors[-1] if errors else None,
        foreign=foreign,
    )


def _compute_summary(search: Search) -> ComputeSummary:
    compute, formats = search.prepared.compute, search.prepared.formats
    return ComputeSummary(
        precision=compute.precision,
        compiled=compute.compiled,
        channels_last=tuple(name for name, choice in formats.items() if choice.channels_last),
        gains={name: choice.gain for name, choice in formats.items() if choice.gain is not None},
    )


def assemble_report(search: Search, networks: Networks, rivals: RivalScores) -> Report:
    """Freeze everything that a search found and measured.

    Args:
        search: The search, ended.
        networks: Anchors and hybrids, scored.
        rivals: What is set beside its picks.
    """
    session, study, graphs = search.session, search.study, search.prepared.graphs
    total = study.add_counts("seconds", session.clock.seconds)
    seconds = {stage: round(spent, 3) for stage, spent in total.items()}
    measured = Report(
        schema_version=SCHEMA_VERSION,
        run=session.folder.name,
        created=session.setup.inputs.created,
        command=session.setup.inputs.command,
        space=session.space.name,
        seed=session.space.search.seed,
        environment=describe_environment(),
        search=_search_summary(search, seconds),
        anchors=networks.anchors,
        rankers=(),
        trials=_trials(search),
        hybrids=with_finetuned(session.folder, (_with_paths(hybrid, graphs) for hybrid in networks.hybrids)),
        budgets=(),
        controls=tuple(_with_paths(control, graphs) for control in study.controls if control.control == "self"),
        rungs=_rungs(search),
        dropped=tuple(_with_paths(dropped, graphs) for dropped in search.halving.dropped),
        shared=shared_state(session.folder),
        rivals=Rivals(distilled=rivals.distilled),
    )
    return build_report(
        measured,
        session.budgets,
        ranker_scores=_ranker_scores(search),
        candidates=_candidates_by_direction(search),
        predictions=rivals.predictions,
    )


def _search_summary(search: Search, seconds: Mapping[str, float]) -> SearchSummary:
    space = search.session.space
    return SearchSummary(
        ranker=space.ranker.kind,
        objectives=tuple(space.objectives),
        device=search.prepared.compute.name,
        seconds=seconds,
        cut_points={name: len(graph.cut_points) for name, graph in search.prepared.graphs.items()},
        stitch_points=search.enumeration.stitch_points,
        candidates=len(search.enumeration.candidates),
        over_budget=search.enumeration.over_budget,
        images={"train": len(search.images.train), "val": len(search.images.val), "test": len(search.images.test)},
        training_images_seen=search.images_seen,
        skipped_images=_skipped_images(search.images.data),
        data_notes=(*search.images.data.notes, *([order.reason] if (order := search.prepared.class_order) else [])),
        features=search.study.noted("features", CacheStatistics),
        ranking_seconds=dict(search.ranking.seconds) | {"features": search.ranking.features_seconds},
        ranking_images=search.ranking.images,
        memory_dtype=search.prices.dtype,
        latency=_latency_note(search.prices.table, foreign=search.prices.foreign),
        strategy=space.search.strategy,
        workers=count if (count := search.session.workers) > 1 else None,
        lost_workers=tuple(search.study.noted("lost workers", list[str]) or ()),
        joint=search.study.noted("joint", JointSummary),
        compute=_compute_summary(search),
        data=_data_summary(search.images.data, search.prepared.class_order),
        effort=space.effort,
        effort_but=own_keys(space.effort, space.training, space.retrain),
    )


def _trials(search: Search) -> Trials:
    failures = search.study.failures
    return Trials(
        finished=len(search.study.records),
        failed=len(failures),
        skipped=search.study.skipped,
        failures=tuple(Failure(number, reason) for number, reason in failures),
        retrained=len(search.study.retrained),
        retrainings_failed=search.study.failed_retrainings,
        controls=len(search.study.controls),
        controls_planned=len(search.controls),
    )


_R = TypeVar("_R", HybridRecord, Dropped)


def _with_paths(record: _R, graphs: Mapping[str, AnchorGraph]) -> _R:
    """Give the cut points of a record their module paths, which the study leaves out."""

    def located(part: Part) -> Part:
        return replace(part, path=graphs[part.anchor].cut_points[part.cut].path)

    return replace(record, front=located(record.front), back=located(record.back))


def _rungs(search: Search) -> tuple[RungSummary, ...]:
    """Return the cost table and the ranker, the rungs that were run, and full training."""
    enumeration, records, halving = search.enumeration, search.study.records, search.halving
    ranked = len(enumeration.candidates) + enumeration.ranked_out
    own = search.ranking.seconds.get(search.session.space.ranker.kind, 0.0) + search.ranking.features_seconds
    trained = len({(record.front, record.back) for record in records})
    return (
        RungSummary("cost", enumeration.stitch_points, ranked, 0.0),
        RungSummary("ranker", ranked, len(enumeration.candidates), round(own, 3)),
        *(judge_rung(rung, halving.reached.get(rung.name, {}), search.study.compared) for rung in halving.rungs),
        RungSummary("full", len(halving.survivors), trained, round(sum(record.seconds for record in records), 3)),
    )


def _candidates_by_direction(search: Search) -> dict[Direction, int]:
    """Count the candidates of each direction; one that was offered and has none counts 0."""
    kept = Counter(candidate.direction for candidate in search.enumeration.candidates)
    return {direction: kept[direction] for direction in directions_of(search.session.space, search.prepared.costs)}


def _ranker_scores(search: Search) -> dict[str, dict[str, float]]:
    """Return ranker -> hybrid id -> score; the search's own ranker first."""
    own = search.session.space.ranker.kind
    scores = {
        name: {r.id: r.scores[name] for r in search.study.compared if name in r.scores}
        for name in search.ranking.scores
    }
    # a study that was begun before scores of all rankers were kept holds that of its own
    scores[own] |= {r.id: r.score for r in search.study.compared if r.id not in scores[own] and r.score is not None}
    return scores
