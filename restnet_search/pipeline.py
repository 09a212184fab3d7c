"""The main job, in order: data, anchors, ranking, candidates, trials, final scores, report. It prints nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from restnet_search.data import DataSplits, load_data
from restnet_search.errors import BudgetError
from restnet_search.progress import Progress
from restnet_search.reporting.build import AnchorResult, HybridResult, Outcome, build_report, finalists
from restnet_search.reporting.report import Failure, Part, Report, SearchSummary, Stitch, Trials
from restnet_search.reporting.serialize import write_results
from restnet_search.search.candidates import Enumeration, enumerate_candidates
from restnet_search.search.environment import describe_environment
from restnet_search.search.features import FeatureStore
from restnet_search.search.hybrids import assemble, load_stitch, plan_between
from restnet_search.search.prepare import CodeAndWeights, Prepared, prepare, remember_anchors
from restnet_search.search.ranking import score_pairs
from restnet_search.search.run_folder import RunFolder, RunInputs
from restnet_search.search.session import run_trials
from restnet_search.search.study import SearchStudy, TrialRecord, values_of
from restnet_search.search.trial import TrialContext, score_network
from restnet_search.space.schema import SearchSpace
from restnet_search.units import UNLIMITED, DeviceBudget, format_count, parse_budget

__all__ = ["FEATURE_BYTES", "run_search"]

FEATURE_BYTES = 4 * 2**30
"""Memory that kept features may take, in bytes."""

_log = logging.getLogger("restnet_search")


@dataclass(frozen=True)
class _Search:
    """One search under way."""

    space: SearchSpace
    folder: RunFolder
    budgets: tuple[DeviceBudget, ...]
    data: DataSplits
    prepared: Prepared
    enumeration: Enumeration
    study: SearchStudy


def run_search(
    space: SearchSpace,
    folder: RunFolder,
    inputs: RunInputs,
    sources: CodeAndWeights,
    progress: Progress,
    *,
    feature_bytes: int = FEATURE_BYTES,
) -> Report:
    """Run or resume the search of a run folder and write its results.

    Args:
        space: The resolved space, as :meth:`RunFolder.read` gives it back.
        folder: Created before; the study in it decides what is still to do.
        inputs: What the run was started with.
        sources: Where anchors come from.
        progress: Shows the long steps.
        feature_bytes: Memory that kept features may take.

    Returns:
        The report, as written to ``results.json``.

    Raises:
        RestnetError: If the data, an anchor or the budgets cannot be used.
    """
    seconds: dict[str, float] = {}
    budgets = tuple(parse_budget(text) for text in space.budgets) or (UNLIMITED,)
    with folder.locked(), _logged(folder):
        with _timed(seconds, "fit"):
            data = load_data(space.data)
            prepared = prepare(space, data, sources, progress)
            remember_anchors(folder, prepared)
        train = _training_images(space, data)
        with _timed(seconds, "similarity"):
            scores = score_pairs(space.ranker, prepared.anchors, train, seed=space.search.seed, progress=progress)
        points = {name: graph.cut_points for name, graph in prepared.graphs.items()}
        enumeration = enumerate_candidates(space, budgets, points, prepared.costs, scores)
        _require_candidates(enumeration, budgets)
        study = SearchStudy.open(folder.study, enumeration.candidates, space.objectives, space.training, space.search)
        search = _Search(space, folder, budgets, data, prepared, enumeration, study)
        with _timed(seconds, "anchors"):
            anchors = _score_anchors(search, progress)
        with _timed(seconds, "trials"):
            context = TrialContext(
                graphs=prepared.graphs,
                store=FeatureStore(prepared.anchors, feature_bytes),
                train=train,
                fit=train.subset(torch.arange(min(space.stitch.images, len(train)))),
                val=data.val,
                stitch=space.stitch,
                training=space.training,
                seed=space.search.seed,
            )
            run_trials(study, context, folder, space, progress)
        with _timed(seconds, "scoring"):
            hybrids = _score_finalists(search, anchors, progress)
        report = _report(search, inputs, anchors, hybrids, _total_seconds(study, seconds), len(train))
        write_results(report, folder.path)
    return report


def _training_images(space: SearchSpace, data: DataSplits):  # noqa: ANN202
    """The images that rankers and trials see: a seeded draw of ``training.images``."""
    generator = torch.Generator().manual_seed(space.search.seed)
    count = min(max(space.training.images, 1), len(data.train))
    return data.train.subset(torch.randperm(len(data.train), generator=generator)[:count])


def _require_candidates(enumeration: Enumeration, budgets: Sequence[DeviceBudget]) -> None:
    if enumeration.candidates:
        return
    names = " or ".join(budget.name for budget in budgets)
    cheapest = enumeration.cheapest
    if cheapest is None:
        raise BudgetError(
            "The anchors have no stitch point: no two of their cut points can be joined.",
            hint="look at `restnet-search anchors inspect MODEL`, and widen cut_points in the space",
        )
    raise BudgetError(
        f"No hybrid of these anchors fits {names} (and costs less than the larger anchor).",
        expected=f"a budget of at least {format_count(cheapest.macs)}FLOPs and {format_count(cheapest.params)} params",
        hint="raise --budget, or add a smaller anchor to the space",
    )


def _score_anchors(search: _Search, progress: Progress) -> list[AnchorResult]:
    """Score the anchors on val and test, once per run, and put them into the study as reference points."""
    results: list[AnchorResult] = []
    with progress.task("Scoring anchors", total=2 * len(search.prepared.anchors)) as task:
        for name, cut in search.prepared.anchors.items():
            outcomes: dict[str, Outcome] = {}
            for split in (search.data.val, search.data.test):
                key = f"{split.name}:{name}"
                if (correct := search.study.noted(key)) is None:
                    correct = score_network(cut.anchor.model, cut.anchor.view, split)
                    search.study.note(key, correct)
                outcomes[split.name] = Outcome(correct, len(split))
                task.advance()
            cost = search.prepared.costs[name].total
            val = outcomes[search.data.val.name]
            search.study.add_anchor(name, values_of(search.space.objectives, val.top1, cost))
            model = cut.anchor.model_name
            results.append(AnchorResult(name, model, cost.macs, cost.params, val, outcomes[search.data.test.name]))
            _log.info("anchor %s: %d MACs, val %.4f", name, cost.macs, val.top1)
    return results


def _score_finalists(search: _Search, anchors: Sequence[AnchorResult], progress: Progress) -> list[HybridResult]:
    """Score the hybrids of every budget's Pareto set on test, each once; the others have no test score."""
    graphs, records = search.prepared.graphs, {record.id: record for record in search.study.records}
    hybrids = [_hybrid_result(record, graphs) for record in records.values()]
    chosen = finalists(anchors, hybrids, search.budgets, search.space.objectives)
    test: dict[str, Outcome] = {}
    with progress.task("Scoring the Pareto set on test", total=max(len(chosen), 1)) as task:
        for id in chosen:
            key = f"test:{id}"
            if (correct := search.study.noted(key)) is None:
                record = records[id]
                front, back = (record.front, record.front_cut), (record.back, record.back_cut)
                plan = plan_between(graphs, record.stitch_kind, front, back)
                hybrid = assemble(graphs, front, load_stitch(plan, search.folder.stitch(id)), back)
                correct = score_network(hybrid, search.prepared.anchors[record.front].anchor.view, search.data.test)
                search.study.note(key, correct)
            test[id] = Outcome(correct, len(search.data.test))
            task.advance()
    return [_hybrid_result(record, graphs, test.get(record.id)) for record in records.values()]


def _hybrid_result(record: TrialRecord, graphs, test: Outcome | None = None) -> HybridResult:  # noqa: ANN001
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
        rank=record.rank + 1,
        lr=record.lr,
        epochs=record.epochs,
        images=record.images,
    )


def _report(
    search: _Search,
    inputs: RunInputs,
    anchors: Sequence[AnchorResult],
    hybrids: Sequence[HybridResult],
    seconds: dict[str, float],
    train_images: int,
) -> Report:
    records, failures = search.study.records, search.study.failures
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
            device="cpu",
            seconds=seconds,
            cut_points={name: len(graph.cut_points) for name, graph in search.prepared.graphs.items()},
            stitch_points=search.enumeration.stitch_points,
            candidates=len(search.enumeration.candidates),
            over_budget=search.enumeration.over_budget,
            images={"train": train_images, "val": len(search.data.val), "test": len(search.data.test)},
            training_images_seen=sum(record.images * record.epochs for record in records),
        ),
        anchors=anchors,
        hybrids=hybrids,
        budgets=search.budgets,
        trials=Trials(
            finished=len(records),
            failed=len(failures),
            skipped=search.study.skipped,
            failures=tuple(Failure(number, reason) for number, reason in failures),
        ),
    )


def _total_seconds(study: SearchStudy, seconds: dict[str, float]) -> dict[str, float]:
    """Wall time by stage over all sittings of a run that was resumed."""
    before = study.noted("seconds") or {}
    total = {stage: round(before.get(stage, 0.0) + spent, 3) for stage, spent in seconds.items()}
    study.note("seconds", total)
    return total


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - started


@contextmanager
def _logged(folder: RunFolder) -> Iterator[None]:
    handler = logging.FileHandler(folder.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    try:
        yield
    finally:
        _log.removeHandler(handler)
        handler.close()
