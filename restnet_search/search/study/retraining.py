"""Retraining: after the trials the best hybrids of each budget are trained again, front and all (``tune: hybrid``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from restnet_search.search.run.records import HybridRecord, retrained_id
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.study.listed_trials import Listed, train_listed
from restnet_search.search.study.training_run import TrainingRun
from restnet_search.search.training.choices import control_choices
from restnet_search.space.schema import SearchSpace
from restnet_search.units import DeviceBudget

__all__ = ["best_of_budgets", "retrain", "to_retrain"]


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
    """Train what is left of the best hybrids again.

    Each begins at the closed form of its stitch point, as a trial does. What has more trials in a later session may
    have other best hybrids: then these are trained, too, and all are kept.
    """
    ended = {record.id for record in run.study.retrained} | run.study.failed_listed.keys()
    waiting = [one for one in to_retrain(run) if one.id not in ended]
    if waiting:
        train_listed(run, [[one] for one in waiting], task="Retraining the best", noun="retraining")


def to_retrain(run: TrainingRun) -> list[Listed]:
    """List all retrainings that the trials call for, finished ones, too."""
    study, space = run.study, run.session.space
    chosen = best_of_budgets(study.records, run.session.budgets, space.retrain.hybrids)
    by_key = {candidate.key: candidate for candidate in study.candidates}
    choices = retraining_choices(space)
    return [Listed(retrained_id(one.id), (by_key[one.key[:-1]], choices), retrains=one.id) for one in chosen]


def retraining_choices(space: SearchSpace) -> TrainingChoices:
    """Return how the best are trained again: as controls are, but all of them, for the epochs of ``retrain``."""
    return replace(control_choices(space.training), tune="hybrid", epochs=space.retrain.epochs, match_epochs=0)
