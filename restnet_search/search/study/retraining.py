"""Retraining: after the trials the best hybrids of each budget are trained again, front and all (``tune: hybrid``)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from restnet_search.search.run.records import HybridRecord, retrained_id
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.study.training_run import TrainingRun, record_of
from restnet_search.search.training.choices import control_choices
from restnet_search.search.training.jobs import Job, run_jobs
from restnet_search.search.training.stitch_trainer import FailedTrial
from restnet_search.space.schema import SearchSpace
from restnet_search.units import DeviceBudget

__all__ = ["best_of_budgets", "retrain"]


def best_of_budgets(records: Iterable[HybridRecord], budgets: Sequence[DeviceBudget], count: int) -> list[HybridRecord]:
    """Return the ``count`` most accurate hybrids on val of each budget, one per stitch point, the best first.

    Those whose front was trained already are left out: another training would be the same again.
    """
    best: dict[tuple[object, ...], HybridRecord] = {}
    for one in sorted(records, key=lambda one: (-one.val.top1, one.macs, one.id)):
        best.setdefault(one.key[:-1], one)
    chosen: set[str] = set()
    for budget in budgets:
        chosen.update(islice((one.id for one in best.values() if one.cost.fits(budget)), count))
    return [one for one in best.values() if one.id in chosen and one.tune != "hybrid"]


def retrain(run: TrainingRun) -> None:
    """Train what is left of the best hybrids again; as with trials, their weights are on disk before their records.

    Each begins at the closed form of its stitch point, as a trial does. What has more trials in a later session may
    have other best hybrids: then these are trained, too, and all are kept.
    """
    study, session = run.study, run.session
    chosen = best_of_budgets(study.records, session.budgets, session.space.retrain.hybrids)
    ended = {record.id for record in study.retrained} | study.failed_retrainings.keys()
    waiting = [record for record in chosen if retrained_id(record.id) not in ended]
    if not waiting:
        return
    by_key = {candidate.key: candidate for candidate in study.candidates}
    choices = retraining_choices(session.space)

    def jobs() -> Iterator[Job]:
        for place, record in enumerate(waiting):
            if time.monotonic() > run.deadline:
                session.progress.log(f"{len(waiting) - place} retrainings were left out (search.timeout).")
                return
            yield Job(((by_key[record.key[:-1]], choices),))

    with session.progress.task("Retraining the best", total=len(waiting)) as task:
        for record, (outcome,) in zip(waiting, run_jobs(jobs(), run.context, run.engine), strict=False):
            id = retrained_id(record.id)
            if isinstance(outcome, FailedTrial):
                study.fail_retraining(id, str(outcome))
                session.warn(f"Retraining {id} failed: {outcome}")
                continue
            candidate = by_key[record.key[:-1]]
            made = record_of(id, candidate, choices, outcome, run.context)
            study.add_record(run.save(replace(made, retrains=record.id), outcome), candidate)
            task.advance()


def retraining_choices(space: SearchSpace) -> TrainingChoices:
    """Return how the best are trained again: as controls are, but all of them, for the epochs of ``retrain``."""
    return replace(control_choices(space.training), tune="hybrid", epochs=space.retrain.epochs, match_epochs=0)
