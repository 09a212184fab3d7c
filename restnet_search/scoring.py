"""Score what a search found, and assemble the report from it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import TypeVar

from torch import Tensor, nn

from restnet_search.anchors.architecture_kind import architecture_kind
from restnet_search.costs.latency_table import LatencyTable
from restnet_search.data import DataSplits, Split
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.progress import Progress
from restnet_search.reporting.assemble.build import build_report, finalists
from restnet_search.reporting.assemble.statistics import final_score
from restnet_search.reporting.model.judgements import Failure, Trials
from restnet_search.reporting.model.run_report import SCHEMA_VERSION, Report
from restnet_search.reporting.model.summary import (
    ComputeSummary,
    FeatureReuse,
    JointSummary,
    LatencyNote,
    SearchSummary,
    SkippedImages,
)
from restnet_search.search.halving.halving import Early
from restnet_search.search.points.candidates import Enumeration, directions_of
from restnet_search.search.points.controls import Control
from restnet_search.search.points.device_costs import DeviceCosts
from restnet_search.search.points.latency_measurement import measure_networks
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.prepare.prepared.hybrids import restore_hybrid
from restnet_search.search.prepare.prepared.memory_format import FormatChoice
from restnet_search.search.ranking import Ranking
from restnet_search.search.run.records import (
    AnchorRecord,
    Direction,
    Dropped,
    FinalScore,
    HybridRecord,
    Part,
    RungSummary,
    Score,
    Timing,
)
from restnet_search.search.run.run_folder import RunFolder, RunInputs
from restnet_search.search.run.versions import describe_environment
from restnet_search.search.study.study import SearchStudy, values_of
from restnet_search.search.training.trial import score_network
from restnet_search.search.training.trial_setup import workers_of
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
    def hybrids(self) -> list[HybridRecord]:
        """What was trained of the anchors' hybrids: the search's own, then the random controls, which are some, too."""
        return [*self.study.records, *(record for record in self.study.controls if record.control == "random")]


def score_anchors(search: Search, progress: Progress) -> list[AnchorRecord]:
    """Score the anchors on val and test, once per run, and put them into the study as reference points."""
    results: list[AnchorRecord] = []
    with progress.task("Scoring anchors", total=2 * len(search.prepared.anchors)) as task:
        for name, cut in search.prepared.anchors.items():
            correct_on: dict[str, int] = {}
            for split in (search.data.val, search.data.test):
                key = f"{split.name}:{name}"
                if (correct := search.study.noted(key)) is None:
                    correct = score_network(
                        cut.anchor.model, cut.anchor.preprocessing, split, compute=search.prepared.compute
                    )
                    search.study.note(key, correct)
                correct_on[split.name] = correct
                task.advance()
            cost = search.device.anchor(name, search.prepared.costs[name].total)
            val = Score.of(correct_on[search.data.val.name], len(search.data.val))
            search.study.add_anchor(name, values_of(search.space.objectives, val.top1, cost))
            model = cut.anchor.model_name
            facts = {"license": cut.anchor.license, "kind": architecture_kind(cut.anchor.model)}
            test = final_score(correct_on[search.data.test.name], len(search.data.test))
            spent = {"memory": cost.memory, "latency": cost.latency}
            results.append(AnchorRecord(name, model, cost.macs, cost.params, val, test, **facts, **spent))
            _log.info("anchor %s: %d MACs, val %.4f", name, cost.macs, val.top1)
    return results


def score_finalists(search: Search, anchors: Sequence[AnchorRecord], progress: Progress) -> list[HybridRecord]:
    """Score the hybrids of every budget's Pareto set on test, each once; the others have no test score."""
    graphs, records = search.prepared.graphs, {record.id: record for record in search.hybrids}
    chosen = finalists(anchors, tuple(records.values()), search.budgets, search.space.objectives)
    test: dict[str, FinalScore] = {}
    with progress.task("Scoring the Pareto set on test", total=max(len(chosen), 1)) as task:
        for id in chosen:
            key = f"test:{id}"
            if (correct := search.study.noted(key)) is None:
                record = records[id]
                front, back = (record.front.anchor, record.front.cut), (record.back.anchor, record.back.cut)
                hybrid = restore_hybrid(graphs, record.stitch.kind, front, back, search.folder.stitch(id))
                view, compute = search.prepared.anchors[record.front.anchor].anchor.view, search.prepared.compute
                correct = score_network(compute.place(hybrid), view, search.data.test, compute=compute)
                search.study.note(key, correct)
            test[id] = final_score(correct, len(search.data.test))
            task.advance()
    return [replace(record, test=test.get(record.id)) for record in records.values()]


def measure_finalists(
    search: Search, anchors: Sequence[AnchorRecord], hybrids: Sequence[HybridRecord], progress: Progress
) -> tuple[list[AnchorRecord], list[HybridRecord]]:
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
            front, back = (record.front.anchor, record.front.cut), (record.back.anchor, record.back.cut)
            hybrid = restore_hybrid(graphs, record.stitch.kind, front, back, search.folder.stitch(id))
            networks[id] = (hybrid, graphs[record.front.anchor].traced.example(table.batch))
        spec = search.space.latency.model_copy(update={"runtime": table.runtime})
        noted = {id: asdict(timing) for id, timing in measure_networks(networks, spec, progress).items()}
        search.study.note("latency", noted)
    timings = {id: Timing(**timing) for id, timing in noted.items()}
    measured_anchors = [replace(anchor, measured=timings.get(anchor.id)) for anchor in anchors]
    return measured_anchors, [replace(hybrid, measured=timings.get(hybrid.id)) for hybrid in hybrids]


def _skipped_images(data: DataSplits) -> tuple[SkippedImages, ...]:
    sizes = {split.name: len(split) for split in (data.train, data.val, data.test)}
    return tuple(
        SkippedImages(name, len(images), len(images) + sizes[name], tuple(one.name for one in images[:_NAMED]))
        for name, images in data.unreadable.items()
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
    anchors: Sequence[AnchorRecord],
    hybrids: Sequence[HybridRecord],
    seconds: Mapping[str, float],
) -> Report:
    """Freeze everything that the search found and measured.

    Args:
        search: The search, ended.
        inputs: What the run was started with.
        anchors: Scored on val and test.
        hybrids: All that were trained; those of Pareto sets scored on test.
        seconds: Wall time by stage.
    """
    study, graphs = search.study, search.prepared.graphs
    measured = Report(
        schema_version=SCHEMA_VERSION,
        run=search.folder.name,
        created=inputs.created,
        command=inputs.command,
        space=search.space.name,
        seed=search.space.search.seed,
        environment=describe_environment(),
        search=_search_summary(search, seconds),
        anchors=tuple(anchors),
        rankers=(),
        trials=_trials(search),
        hybrids=tuple(_with_paths(hybrid, graphs) for hybrid in hybrids),
        budgets=(),
        controls=tuple(_with_paths(control, graphs) for control in study.controls if control.control == "self"),
        rungs=_rungs(search),
        dropped=tuple(_with_paths(dropped, graphs) for dropped in search.early.dropped),
    )
    return build_report(
        measured,
        search.budgets,
        ranker_scores=_ranker_scores(search),
        candidates=_candidates_by_direction(search),
    )


def _search_summary(search: Search, seconds: Mapping[str, float]) -> SearchSummary:
    trained = (*search.study.records, *search.study.controls)
    return SearchSummary(
        ranker=search.space.ranker.kind,
        objectives=tuple(search.space.objectives),
        device=search.prepared.compute.name,
        seconds=seconds,
        cut_points={name: len(graph.cut_points) for name, graph in search.prepared.graphs.items()},
        stitch_points=search.enumeration.stitch_points,
        candidates=len(search.enumeration.candidates),
        over_budget=search.enumeration.over_budget,
        images={"train": len(search.train), "val": len(search.data.val), "test": len(search.data.test)},
        training_images_seen=search.early.images_seen + sum(record.images_seen for record in trained),
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
    )


def _trials(search: Search) -> Trials:
    failures = search.study.failures
    return Trials(
        finished=len(search.study.records),
        failed=len(failures),
        skipped=search.study.skipped,
        failures=tuple(Failure(number, reason) for number, reason in failures),
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
    enumeration, records, early = search.enumeration, search.study.records, search.early
    ranked = len(enumeration.candidates) + enumeration.ranked_out
    own = search.ranking.seconds.get(search.space.ranker.kind, 0.0) + search.ranking.features_seconds
    trained = len({(record.front, record.back) for record in records})
    return (
        RungSummary("cost", enumeration.stitch_points, ranked, 0.0),
        RungSummary("ranker", ranked, len(enumeration.candidates), round(own, 3)),
        *early.rungs,
        RungSummary("full", len(early.survivors), trained, round(sum(record.seconds for record in records), 3)),
    )


def _candidates_by_direction(search: Search) -> dict[Direction, int]:
    """Count the candidates of each direction; one that was offered and has none counts 0."""
    kept = Counter(candidate.direction for candidate in search.enumeration.candidates)
    return {direction: kept[direction] for direction in directions_of(search.space, search.prepared.costs)}


def _ranker_scores(search: Search) -> dict[str, dict[str, float]]:
    """Return ranker -> hybrid id -> score; the search's own ranker first."""
    own = search.space.ranker.kind
    scores = {
        name: {r.id: r.scores[name] for r in search.hybrids if name in r.scores} for name in search.ranking.scores
    }
    # a study that was begun before scores of all rankers were kept holds that of its own
    scores[own] |= {r.id: r.score for r in search.hybrids if r.id not in scores[own] and r.score is not None}
    return scores
