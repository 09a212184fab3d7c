"""Score what a search found, and assemble the report from it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median

from torch import Tensor, nn

from restnet_search.anchors.kind import architecture_kind
from restnet_search.costs.latency import LatencyTable
from restnet_search.data import DataSplits, Split
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.progress import Progress
from restnet_search.reporting.build import AnchorResult, HybridResult, Outcome, build_report, finalists
from restnet_search.reporting.report import (
    ComputeSummary,
    DroppedEntry,
    Failure,
    FeatureReuse,
    JointSummary,
    LatencyNote,
    MeasuredLatency,
    Part,
    Report,
    RungEntry,
    SearchSummary,
    SkippedImages,
    Stitch,
    Trials,
)
from restnet_search.reporting.ways import Way
from restnet_search.search.candidates import Enumeration, directions_of
from restnet_search.search.controls import Control
from restnet_search.search.device_costs import DeviceCosts
from restnet_search.search.early import Early
from restnet_search.search.environment import describe_environment
from restnet_search.search.hybrids import restore_hybrid
from restnet_search.search.latency import measure_networks
from restnet_search.search.memory_format import FormatChoice
from restnet_search.search.opening import workers_of
from restnet_search.search.prepare import Prepared
from restnet_search.search.ranking import Ranking
from restnet_search.search.records import TrialRecord
from restnet_search.search.run_folder import RunFolder, RunInputs
from restnet_search.search.study import SearchStudy, values_of
from restnet_search.search.trial import score_network
from restnet_search.space.schema import SearchSpace
from restnet_search.units import DeviceBudget

__all__ = ["Search", "assemble_report", "score_anchors", "score_finalists"]

_NAMED = 5  # unreadable images that a report names

_log = logging.getLogger("restnet_search")


@dataclass(frozen=True)
class Search:
    """One search under way; ``train`` are the images that rankers and trials see."""

    space: SearchSpace
    folder: RunFolder
    budgets: tuple[DeviceBudget, ...]
    data: DataSplits
    train: Split
    prepared: Prepared
    enumeration: Enumeration
    study: SearchStudy
    controls: tuple[Control, ...]
    ranking: Ranking
    device: DeviceCosts
    early: Early
    formats: Mapping[str, FormatChoice] = field(default_factory=dict)

    @property
    def hybrids(self) -> list[TrialRecord]:
        """What was trained of the anchors' hybrids: the search's own, then the random controls, which are some, too."""
        return [*self.study.records, *(record for record in self.study.controls if record.control == "random")]


def score_anchors(search: Search, progress: Progress) -> list[AnchorResult]:
    """Score the anchors on val and test, once per run, and put them into the study as reference points."""
    results: list[AnchorResult] = []
    with progress.task("Scoring anchors", total=2 * len(search.prepared.anchors)) as task:
        for name, cut in search.prepared.anchors.items():
            outcomes: dict[str, Outcome] = {}
            for split in (search.data.val, search.data.test):
                key = f"{split.name}:{name}"
                if (correct := search.study.noted(key)) is None:
                    correct = score_network(
                        cut.anchor.model, cut.anchor.preprocessing, split, compute=search.prepared.compute
                    )
                    search.study.note(key, correct)
                outcomes[split.name] = Outcome(correct, len(split))
                task.advance()
            cost = search.device.anchor(name, search.prepared.costs[name].total)
            val = outcomes[search.data.val.name]
            search.study.add_anchor(name, values_of(search.space.objectives, val.top1, cost))
            model = cut.anchor.model_name
            facts = {"licence": cut.anchor.licence, "kind": architecture_kind(cut.anchor.model)}
            test = outcomes[search.data.test.name]
            spent = {"memory": cost.memory, "latency": cost.latency}
            results.append(AnchorResult(name, model, cost.macs, cost.params, val, test, **facts, **spent))
            _log.info("anchor %s: %d MACs, val %.4f", name, cost.macs, val.top1)
    return results


def score_finalists(search: Search, anchors: Sequence[AnchorResult], progress: Progress) -> list[HybridResult]:
    """Score the hybrids of every budget's Pareto set on test, each once; the others have no test score."""
    graphs, records = search.prepared.graphs, {record.id: record for record in search.hybrids}
    hybrids = [_hybrid_result(record, graphs) for record in records.values()]
    chosen = finalists(anchors, hybrids, search.budgets, search.space.objectives)
    test: dict[str, Outcome] = {}
    with progress.task("Scoring the Pareto set on test", total=max(len(chosen), 1)) as task:
        for id in chosen:
            key = f"test:{id}"
            if (correct := search.study.noted(key)) is None:
                record = records[id]
                front, back = (record.front, record.front_cut), (record.back, record.back_cut)
                hybrid = restore_hybrid(graphs, record.stitch_kind, front, back, search.folder.stitch(id))
                preprocessing, compute = (
                    search.prepared.anchors[record.front].anchor.preprocessing,
                    search.prepared.compute,
                )
                correct = score_network(compute.place(hybrid), preprocessing, search.data.test, compute=compute)
                search.study.note(key, correct)
            test[id] = Outcome(correct, len(search.data.test))
            task.advance()
    return [_hybrid_result(record, graphs, test.get(record.id)) for record in records.values()]


def measure_finalists(
    search: Search, anchors: Sequence[AnchorResult], hybrids: Sequence[HybridResult], progress: Progress
) -> tuple[list[AnchorResult], list[HybridResult]]:
    """Measure the latency of the anchors and of every budget's Pareto set whole, interleaved, once per run.

    Nothing is measured where nothing asks for latency, or where it comes from another device's table.
    """
    table = search.device.table
    if table is None or search.device.foreign:
        return list(anchors), list(hybrids)
    chosen = finalists(anchors, hybrids, search.budgets, search.space.objectives)
    if (noted := search.study.noted("latency")) is None or set(noted) != {*chosen, *(a.id for a in anchors)}:
        graphs, records = search.prepared.graphs, {record.id: record for record in search.hybrids}
        networks: dict[str, tuple[nn.Module, Tensor]] = {
            name: (g.traced.module, g.traced.example(table.batch)) for name, g in graphs.items()
        }
        for id in chosen:
            record = records[id]
            front, back = (record.front, record.front_cut), (record.back, record.back_cut)
            hybrid = restore_hybrid(graphs, record.stitch_kind, front, back, search.folder.stitch(id))
            networks[id] = (hybrid, graphs[record.front].traced.example(table.batch))
        spec = search.space.latency.model_copy(update={"runtime": table.runtime})
        noted = {id: asdict(timing) for id, timing in measure_networks(networks, spec, progress).items()}
        search.study.note("latency", noted)
    found = {id: MeasuredLatency(**timing) for id, timing in noted.items()}
    measured_anchors = [replace(anchor, measured=found.get(anchor.id)) for anchor in anchors]
    return measured_anchors, [replace(hybrid, measured=found.get(hybrid.id)) for hybrid in hybrids]


def _hybrid_result(record: TrialRecord, graphs: Mapping[str, AnchorGraph], test: Outcome | None = None) -> HybridResult:
    return HybridResult(
        id=record.id,
        front=Part(record.front, record.front_cut, graphs[record.front].cut_points[record.front_cut].path),
        back=Part(record.back, record.back_cut, graphs[record.back].cut_points[record.back_cut].path),
        order=record.order,
        stitch=Stitch(record.stitch_kind, record.stitch_params),
        macs=record.macs,
        params=record.params,
        val=Outcome(record.correct, record.n),
        test=test,
        seconds=record.seconds,
        score=record.score,
        rank=None if record.control == "self" else record.rank + 1,
        lr=record.lr,
        epochs=record.epochs,
        images=record.images,
        tune=record.tune,
        match_epochs=record.match_epochs or None,
        distill=record.distill or None,
        scores=record.scores,
        control=record.control,
        memory=record.memory,
        latency=record.latency,
        strategy=record.strategy,
        finished=record.finished,
    )


def _skipped_images(data: DataSplits) -> tuple[SkippedImages, ...]:
    sizes = {split.name: len(split) for split in (data.train, data.val, data.test)}
    return tuple(
        SkippedImages(name, len(found), len(found) + sizes[name], tuple(one.name for one in found[:_NAMED]))
        for name, found in data.unreadable.items()
    )


def _latency_note(table: LatencyTable | None, *, foreign: bool) -> LatencyNote | None:
    if table is None:
        return None
    errors = table.errors
    return LatencyNote(
        runtime=table.runtime,
        threads=table.threads,
        batch=table.batch,
        machine=table.machine,
        parts=len(table.parts),
        runs=max(timing.runs for timing in table.parts.values()),
        checked=len(errors),
        error_median=median(errors) if errors else None,
        error_max=errors[-1] if errors else None,
        foreign=foreign,
    )


def _compute_summary(search: Search) -> ComputeSummary:
    compute, formats = search.prepared.compute, search.formats
    return ComputeSummary(
        precision=compute.precision,
        compiled=compute.compiled,
        channels_last=tuple(name for name, choice in formats.items() if choice.channels_last),
        gains={name: choice.gain for name, choice in formats.items() if choice.gain is not None},
    )


def assemble_report(
    search: Search,
    inputs: RunInputs,
    anchors: Sequence[AnchorResult],
    hybrids: Sequence[HybridResult],
    seconds: Mapping[str, float],
) -> Report:
    """Freeze everything that the search found and measured."""
    records, failures = search.study.records, search.study.failures
    controls, graphs = search.study.controls, search.prepared.graphs
    return build_report(
        run=search.folder.name,
        created=inputs.created,
        command=inputs.command,
        space=search.space.name,
        seed=search.space.search.seed,
        environment=describe_environment(),
        search=SearchSummary(
            ranker=search.space.ranker.kind,
            objectives=tuple(search.space.objectives),
            device=search.prepared.compute.name,
            seconds=seconds,
            cut_points={name: len(graph.cut_points) for name, graph in search.prepared.graphs.items()},
            stitch_points=search.enumeration.stitch_points,
            candidates=len(search.enumeration.candidates),
            over_budget=search.enumeration.over_budget,
            images={"train": len(search.train), "val": len(search.data.val), "test": len(search.data.test)},
            training_images_seen=search.early.images_seen + sum(r.images * r.epochs for r in (*records, *controls)),
            skipped_images=_skipped_images(search.data),
            data_notes=search.data.notes,
            features=FeatureReuse(**counts) if (counts := search.study.noted("features")) else None,
            ranking_seconds=dict(search.ranking.seconds) | {"features": search.ranking.features_seconds},
            ranking_images=search.ranking.images,
            memory_dtype=search.device.dtype,
            latency=_latency_note(search.device.table, foreign=search.device.foreign),
            strategy=search.space.search.strategy,
            workers=count if (count := workers_of(search.space)) > 1 else None,
            joint=JointSummary(**facts) if (facts := search.study.noted("joint")) else None,
            compute=_compute_summary(search),
        ),
        anchors=anchors,
        hybrids=hybrids,
        budgets=search.budgets,
        trials=Trials(
            finished=len(records),
            failed=len(failures),
            skipped=search.study.skipped,
            failures=tuple(Failure(number, reason) for number, reason in failures),
            controls=len(controls),
            controls_planned=len(search.controls),
        ),
        candidates=_candidates_by_way(search),
        ranker_scores=_ranker_scores(search),
        controls=[_hybrid_result(record, graphs) for record in controls if record.control == "self"],
        rungs=_rungs(search),
        dropped=_dropped(search),
    )


def _rungs(search: Search) -> list[RungEntry]:
    """The cost table and the ranker, the rungs that were run, and full training."""
    found, records, early = search.enumeration, search.study.records, search.early
    ranked = len(found.candidates) + found.ranked_out
    own = search.ranking.seconds.get(search.space.ranker.kind, 0.0) + search.ranking.features_seconds
    trained = len({(record.front, record.front_cut, record.back, record.back_cut) for record in records})
    return [
        RungEntry("cost", found.stitch_points, ranked, 0.0),
        RungEntry("ranker", ranked, len(found.candidates), round(own, 3)),
        *(RungEntry(rung.name, rung.entered, rung.kept, rung.seconds) for rung in early.rungs),
        RungEntry("full", len(early.survivors), trained, round(sum(record.seconds for record in records), 3)),
    ]


def _dropped(search: Search) -> list[DroppedEntry]:
    def part(anchor: str, cut: int) -> Part:
        return Part(anchor, cut, search.prepared.graphs[anchor].cut_points[cut].path)

    return [
        DroppedEntry(
            front=part(d.front, d.front_cut),
            back=part(d.back, d.back_cut),
            order=d.order,
            macs=d.macs,
            rung=d.rung,
            score=d.score,
            reason=d.reason,
            n=d.n,
            kind=d.kind,
        )
        for d in search.early.dropped
    ]


def _candidates_by_way(search: Search) -> dict[Way, int]:
    """How many candidates each way round each pair has; a way that was offered and has none counts 0."""
    kept = Counter(candidate.direction for candidate in search.enumeration.candidates)
    ways = directions_of(search.space, search.prepared.costs)
    return {(way.front, way.back, way.order): kept[way] for way in ways}


def _ranker_scores(search: Search) -> dict[str, dict[str, float]]:
    """Ranker -> hybrid id -> score; the search's own ranker first."""
    names = list(search.ranking.scores)
    own = search.space.ranker.kind
    scores = {name: {r.id: r.scores[name] for r in search.hybrids if name in r.scores} for name in names}
    # a study that was begun before scores of all rankers were kept holds that of its own
    scores[own] |= {r.id: r.score for r in search.hybrids if r.id not in scores[own] and r.score is not None}
    return scores
