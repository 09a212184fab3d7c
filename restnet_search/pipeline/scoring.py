"""Score what a search found: anchors and Pareto sets on val and test, and latency where it was asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from torch import Tensor, nn

from restnet_search.anchors.architecture_kind import architecture_kind
from restnet_search.data import Split
from restnet_search.export.folding.fold_network import folded_cost
from restnet_search.plain.bounds import Natural
from restnet_search.reporting.assemble.build import finalists
from restnet_search.reporting.assemble.statistics import final_score
from restnet_search.search.halving.halving import Halving
from restnet_search.search.points.candidates import Enumeration
from restnet_search.search.points.controls import Control
from restnet_search.search.points.device_costs import DeviceCosts
from restnet_search.search.points.latency_measurement import measure_networks
from restnet_search.search.prepare.hybrids import restore_hybrid
from restnet_search.search.prepare.images import SearchImages
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.ranking import Ranking
from restnet_search.search.run.records import AnchorRecord, Answers, Cost, FinalScore, HybridRecord, Score, Timing
from restnet_search.search.run.session import Session
from restnet_search.search.study.anchor_predictions import anchor_predictions
from restnet_search.search.study.kept_answers import keep_answers, kept_answers
from restnet_search.search.study.study import SearchStudy
from restnet_search.search.training.accuracy import predictions_of_network
from restnet_search.stitching.layer import Hybrid

__all__ = ["AnchorOnVal", "Networks", "Search", "score_anchors_on_val", "score_networks"]

_log = logging.getLogger("restnet_search")


@dataclass(frozen=True)
class Search:
    """A search whose hybrids are trained: all that its scores and its report are made of.

    Attributes:
        session: Of the search.
        images: Its data.
        prepared: Its anchors.
        ranking: Scores of stitch points before any training.
        prices: Memory and latency of parts.
        enumeration: The candidates, and what became of the other stitch points.
        controls: That were planned.
        halving: The candidates that were dropped and kept.
        study: The hybrids that were trained.
    """

    session: Session
    images: SearchImages
    prepared: Prepared
    ranking: Ranking
    prices: DeviceCosts
    enumeration: Enumeration
    controls: tuple[Control, ...]
    halving: Halving
    study: SearchStudy

    @property
    def images_seen(self) -> int:
        """Training images that short and full trainings, retrainings and controls saw, each as often as they did."""
        trained = (*self.study.records, *self.study.retrained, *self.study.controls)
        return self.halving.images_seen + sum(record.images_seen for record in trained)


@dataclass(frozen=True)
class Networks:
    """The anchors, scored on val and test, and the hybrids, of which those of Pareto sets are scored on test."""

    anchors: tuple[AnchorRecord, ...]
    hybrids: tuple[HybridRecord, ...]


def score_networks(search: Search) -> Networks:
    """Score the anchors on val and test and the hybrids of every budget's Pareto set on test, each once per run.

    The other hybrids have no test score. Where the search measured latencies here, those networks are measured whole.
    """
    with search.session.clock.stage("anchors"):
        anchors = _score_anchors(search)
    with search.session.clock.stage("scoring"):
        chosen = finalists(anchors, search.study.hybrids, search.session.budgets, search.session.space.objectives)
        test = _score_finalists(search, chosen)
        timings = _measure_finalists(search, chosen)
        exported = _count_exported(search, chosen)
    return Networks(
        tuple(
            replace(anchor, measured=timings.get(anchor.id), exported_macs=exported[anchor.id]) for anchor in anchors
        ),
        tuple(
            replace(
                hybrid,
                test=test.get(hybrid.id),
                measured=timings.get(hybrid.id),
                exported_macs=exported.get(hybrid.id),
            )
            for hybrid in search.study.hybrids
        ),
    )


@dataclass(frozen=True)
class AnchorOnVal:
    """An anchor while test is still left alone: its costs, and its accuracy on val."""

    name: str
    cost: Cost
    val: Score


def score_anchors_on_val(search: Search) -> list[AnchorOnVal]:
    """Score the anchors on val, once per run."""
    val, stage = search.images.val, search.session.clock.stage("anchors")
    with stage, search.session.progress.task("Anchors on val", total=len(search.prepared.anchors)) as task:
        scored: list[AnchorOnVal] = []
        for name in search.prepared.anchors:
            cost = search.prices.anchor(name, search.prepared.costs[name].total)
            scored.append(AnchorOnVal(name, cost, Score.of(_count(_answers(search, name, val)), len(val))))
            task.advance()
        return scored


def _score_anchors(search: Search) -> list[AnchorRecord]:
    """Score the anchors on val and test, and put them into the study as reference points."""
    study, images = search.study, search.images
    results: list[AnchorRecord] = []
    with search.session.progress.task("Scoring anchors", total=len(search.prepared.anchors)) as task:
        for name, cut in search.prepared.anchors.items():
            cost = search.prices.anchor(name, search.prepared.costs[name].total)
            val = Score.of(_count(_answers(search, name, images.val)), len(images.val))
            study.add_anchor(name, val.top1, cost)
            record = AnchorRecord(
                name=name,
                model=cut.anchor.recipe.model_name,
                cost=cost,
                val=val,
                test=final_score(_answers(search, name, images.test), len(images.test)),
                license=cut.anchor.license,
                kind=architecture_kind(cut.anchor.model),
                cost_as_trained=search.prepared.costs[name].as_trained,
                kept_branches=cut.anchor.kept_branches,
                uncounted=search.prepared.costs[name].notable,
                weights=cut.anchor.weights.source,
                standing=cut.anchor.standing,
            )
            results.append(record)
            _log.info("anchor %s: %d MACs, val %.4f", name, cost.macs, val.top1)
            task.advance()
    return results


def _answers(search: Search, name: str, split: Split) -> int | Answers:
    """Return which images of a split an anchor has right; the study keeps it."""
    if (kept := kept_answers(search.study, name, split)) is not None:
        return kept
    anchor = search.prepared.anchors[name].anchor
    given = anchor_predictions(search.session.folder, anchor, split, search.prepared.compute)
    return keep_answers(search.study, name, split, given.answers)


def _score_finalists(search: Search, chosen: Sequence[str]) -> dict[str, FinalScore]:
    records = {record.id: record for record in search.study.hybrids}
    test, compute = search.images.test, search.prepared.compute
    scores: dict[str, FinalScore] = {}
    with search.session.progress.task("Scoring the Pareto set on test", total=max(len(chosen), 1)) as task:
        for id in chosen:
            if (kept := kept_answers(search.study, id, test)) is None:
                preprocessing = search.prepared.anchors[records[id].front.anchor].anchor.preprocessing
                hybrid = compute.place(_restore(search, records[id]))
                given = predictions_of_network(hybrid, preprocessing, test, compute=compute).answers
                kept = keep_answers(search.study, id, test, given)
            scores[id] = final_score(kept, len(test))
            task.advance()
    return scores


def _count(answers: int | Answers) -> int:
    return answers.correct if isinstance(answers, Answers) else answers


def _measure_finalists(search: Search, chosen: Sequence[str]) -> Mapping[str, Timing]:
    """Measure the anchors and the chosen hybrids, interleaved; nothing where the table is another device's, or none."""
    table, study = search.prices.table, search.study
    if table is None or search.prices.foreign:
        return {}
    wanted = {*chosen, *search.prepared.anchors}
    if (noted := study.noted("latency", dict[str, Timing])) is None or set(noted) != wanted:
        graphs, records = search.prepared.graphs, {record.id: record for record in study.hybrids}
        spec = search.session.space.latency.model_copy(update={"runtime": table.on.runtime})
        with search.prepared.on_cpu():
            networks: dict[str, tuple[nn.Module, Tensor]] = {
                name: (graph.traced.module, graph.traced.example(table.on.batch)) for name, graph in graphs.items()
            }
            for id in chosen:
                example = graphs[records[id].front.anchor].traced.example(table.on.batch)
                networks[id] = (_restore(search, records[id]), example)
            timings = measure_networks(networks, spec, search.session.progress)
        study.note("latency", {id: asdict(timing) for id, timing in timings.items()})
        return timings
    return noted


def _count_exported(search: Search, chosen: Sequence[str]) -> Mapping[str, int]:
    """Count the MACs of the anchors and the chosen hybrids as exports with a graph hold them: folded."""
    study, graphs = search.study, search.prepared.graphs
    noted = study.noted("exported_macs", dict[str, Natural])
    if noted is None or set(noted) != {*chosen, *graphs}:
        records = {record.id: record for record in study.hybrids}
        with search.prepared.on_cpu():
            noted = {
                name: folded_cost(graph.traced.module, graph.traced.image_size).macs for name, graph in graphs.items()
            }
            for id in chosen:
                size = graphs[records[id].front.anchor].traced.image_size
                noted[id] = folded_cost(_restore(search, records[id]), size).macs
        study.note("exported_macs", noted)
    return noted


def _restore(search: Search, record: HybridRecord) -> Hybrid:
    front, back = (record.front.anchor, record.front.cut), (record.back.anchor, record.back.cut)
    file = search.session.folder.stitch(record.id)
    return restore_hybrid(search.prepared.graphs, record.stitch.kind, front, back, file, record.stitch.sha256)
