"""The main job, in order: data, anchors, ranking, candidates, rungs, trials, final scores, report. Prints nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict

import torch

from restnet_search.compute import Compute, open_compute
from restnet_search.data import DataSplits, load_data
from restnet_search.errors import BudgetError
from restnet_search.progress import Progress
from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.results_file.codec import write_results
from restnet_search.scoring import Search, assemble_report, measure_finalists, score_anchors, score_finalists
from restnet_search.search.halving.halving import EarlyJob, decide_early
from restnet_search.search.points.candidates import Enumeration, enumerate_candidates
from restnet_search.search.points.controls import plan_controls
from restnet_search.search.points.device_costs import device_costs
from restnet_search.search.prepare.prepared import Prepared, prepare, remember_anchors
from restnet_search.search.prepare.prepared.memory_format import FormatChoice, choose_formats
from restnet_search.search.prepare.prepared.placement import anchors_on_cpu, move_to_device
from restnet_search.search.ranking import draw_training_images, rank_pairs, rankers_of_search
from restnet_search.search.run.clock import Clock
from restnet_search.search.run.run_folder import AnchorSources, RunFolder, RunInputs
from restnet_search.search.run.session import run_trials
from restnet_search.search.study.study import SearchStudy
from restnet_search.search.training.trial_setup import fill_store, open_context, workers_of
from restnet_search.search.workers.worker_pool import WorkerPool
from restnet_search.search.workers.worker_pool.worker import AnchorRecipe
from restnet_search.space.schema import SearchSpace
from restnet_search.units import (
    UNLIMITED,
    DeviceBudget,
    format_bytes,
    format_count,
    format_seconds,
    parse_budget,
    round_up,
)

__all__ = ["run_search"]

_log = logging.getLogger("restnet_search")


def run_search(
    space: SearchSpace,
    folder: RunFolder,
    inputs: RunInputs,
    sources: AnchorSources,
    progress: Progress,
) -> Report:
    """Run or resume the search of a run folder and write its results.

    With ``compute.workers`` above 1, processes are started by ``spawn``, which runs the calling script's
    top level anew in each: a script calls this function below ``if __name__ == "__main__":``.

    Args:
        space: The resolved space, as :meth:`RunFolder.read` gives it back.
        folder: Created before; the study in it decides what is still to do.
        inputs: What the run was started with.
        sources: Where anchors come from, and the folder for fitted anchors and features.
        progress: Shows the long steps.

    Returns:
        The report, as written to ``results.json``.

    Raises:
        RestnetError: If the data, an anchor or the budgets cannot be used.
    """
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    budgets = tuple(parse_budget(text) for text in space.budgets) or (UNLIMITED,)
    warn = _warner(progress)
    compute = open_compute(space.compute, warn)
    with folder.locked(), _logged(folder), ExitStack() as stack:
        with _timed(seconds, "fit"):
            data = load_data(space.data, progress=progress)
            _log_data(data)
            prepared = prepare(space, data, sources, progress, compute)
            remember_anchors(folder, prepared)
            formats = _settled(space, prepared, compute, folder, progress)
        train = draw_training_images(space, data)
        with _timed(seconds, "similarity"):
            names = rankers_of_search(space.ranker, prepared.anchors, train)
            ranking = rank_pairs(
                space.ranker,
                names,
                prepared.anchors,
                train,
                seed=space.search.seed,
                progress=progress,
                compute=compute,
            )
        points = {name: graph.cut_points for name, graph in prepared.graphs.items()}
        chosen = ranking.scores[space.ranker.kind]
        with _timed(seconds, "device costs"), anchors_on_cpu(prepared.anchors, compute, formats):
            device = device_costs(space, budgets, prepared, folder, progress)
        enumeration = enumerate_candidates(space, budgets, points, prepared.costs, chosen, ranking.scores, device)
        _require_candidates(enumeration, budgets)
        controls = plan_controls(space, points, prepared.costs, enumeration, device)
        workers = stack.enter_context(_workers(AnchorRecipe(folder, space, inputs, sources, formats), progress, warn))
        with _timed(seconds, "early"):
            job = EarlyJob(space, prepared, train, data.val, sources.cache, progress, warn, workers)
            early = decide_early(job, folder.study, enumeration)
        kept = early.survivors
        study = SearchStudy.open(folder.study, kept, space.objectives, space.training, space.search, early.merits)
        if early.statistics is not None:
            study.add_counts("features", asdict(early.statistics))
        search = Search(
            space, folder, budgets, data, train, prepared, enumeration, study, controls, ranking, device, early, formats
        )
        with _timed(seconds, "trials"):
            fit = train.subset(torch.arange(min(space.stitch.images, len(train))))
            context = open_context(
                space,
                prepared,
                kept,
                (train, fit, data.val),
                cache=sources.cache,
                progress=progress,
                warn=warn,
                clock=Clock(started, before=study.elapsed),
            )
            if workers is not None and study.unfinished:
                workers.start()  # they get ready meanwhile
                fill_store(kept, context, progress)
            run_trials(study, context, folder, space, progress, controls, spent=seconds["early"], workers=workers)
            study.add_counts("features", asdict(context.store.statistics))
            stack.close()
        with _timed(seconds, "anchors"):
            anchors = score_anchors(search, progress)
        with _timed(seconds, "scoring"):
            hybrids = score_finalists(search, anchors, progress)
            with anchors_on_cpu(prepared.anchors, compute, formats):
                anchors, hybrids = measure_finalists(search, anchors, hybrids, progress)
        report = assemble_report(search, inputs, anchors, hybrids, _total_seconds(study, seconds))
        write_results(report, folder.path)
    return report


def _settled(
    space: SearchSpace, prepared: Prepared, compute: Compute, folder: RunFolder, progress: Progress
) -> dict[str, FormatChoice]:
    """Move the anchors to where they run, in the memory formats that are faster there; returns these."""
    move_to_device(prepared.anchors, compute)
    macs = {name: cost.total.macs for name, cost in prepared.costs.items()}
    formats = choose_formats(space.compute.channels_last, prepared.anchors, macs, compute, folder.formats, progress)
    move_to_device(prepared.anchors, compute, formats)
    return formats


def _log_data(data: DataSplits) -> None:
    for note in data.notes:
        _log.warning("data: %s", note)
    for split, found in data.unreadable.items():
        for unreadable in found:
            _log.warning("left out of %s: %s", split, unreadable.reason)


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
    least = [f"{format_count(round_up(cheapest.macs))}FLOPs"]
    if enumeration.least_memory is not None:
        least.append(f"{format_bytes(round_up(enumeration.least_memory))} of memory")
    if enumeration.least_latency is not None:
        least.append(f"{format_seconds(round_up(enumeration.least_latency))} of latency")
    raise BudgetError(
        f"No hybrid of these anchors fits {names} (and costs less than the larger anchor).",
        expected=f"a budget of at least {' and '.join(least)}; the cheapest hybrid has "
        f"{format_count(round_up(cheapest.params))} params",
        hint="raise --budget, or add a smaller anchor to the space",
    )


def _total_seconds(study: SearchStudy, seconds: dict[str, float]) -> dict[str, float]:
    """Wall time by stage over all sittings of a run that was resumed."""
    before = study.noted("seconds") or {}
    total = {stage: round(before.get(stage, 0.0) + spent, 3) for stage, spent in seconds.items()}
    study.note("seconds", total)
    return total


def _warner(progress: Progress) -> Callable[[str], None]:
    said: set[str] = set()

    def warn(message: str) -> None:
        if message not in said:  # early decisions and trials open a store each
            _log.warning(message)
            progress.log(message)
            said.add(message)

    return warn


@contextmanager
def _workers(recipe: AnchorRecipe, progress: Progress, warn: Callable[[str], None]) -> Iterator[WorkerPool | None]:
    """The processes that train trials; None where this one does. They end with the block."""
    count = workers_of(recipe.space)
    if count == 1:
        if recipe.space.compute.workers > 1:
            warn("Joint training is one network in one process: workers have nothing to do (compute.workers).")
        yield None
        return
    with WorkerPool(recipe, count, progress, warn) as pool:
        if not recipe.folder.study.exists():  # nothing is done yet: they get ready while this process decides early
            pool.start()
        yield pool


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
