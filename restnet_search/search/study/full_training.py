"""Full training: open the study, train the hybrids by the space's strategy, then the controls."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict

import torch

from restnet_search.registry import STRATEGIES
from restnet_search.search.halving.halving import Halving
from restnet_search.search.points.controls import Control
from restnet_search.search.prepare.images import SearchImages
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.run.session import Session
from restnet_search.search.study.candidate_grid import RungScores
from restnet_search.search.study.control_trials import train_controls
from restnet_search.search.study.retraining import retrain, to_retrain
from restnet_search.search.study.study import SearchStudy
from restnet_search.search.study.training_run import Strategy, TrainingRun
from restnet_search.search.training.choices import control_choices
from restnet_search.search.training.context import TrialContext, TrialImages
from restnet_search.search.training.jobs import Engine
from restnet_search.search.training.trial_setup import fill_store, open_context, with_teachers

__all__ = ["images_to_see", "open_study", "open_training", "train_rest", "train_trials"]


def open_study(session: Session, halving: Halving) -> SearchStudy:
    """Open the study of the candidates that halving kept."""
    rungs = RungScores(halving.scores, comparable=halving.trained)
    study = SearchStudy.open(session.folder.study, halving.survivors, session.space, rungs, session.trials)
    if halving.statistics is not None:
        study.add_counts("features", asdict(halving.statistics))
    return study


def open_training(
    session: Session,
    prepared: Prepared,
    images: SearchImages,
    study: SearchStudy,
    controls: Sequence[Control],
    engine: Engine,
) -> TrainingRun:
    """Open the training of what the study has still to try; what its trials share is ready then.

    Args:
        session: Of the search.
        prepared: The anchors.
        images: Of the search.
        study: With the candidates.
        controls: To train at the end; of ``search.timeout``, the time that they will take is kept back for them.
        engine: Trains all hybrids.
    """
    with session.clock.stage("trials"):
        context = _open_context(session, prepared, images, study)
        if session.workers > 1 and study.unfinished:
            engine.start()  # they get ready meanwhile
            fill_store(study.candidates, context, engine, prepared.macs, session.progress)
        context = with_teachers(context, session, prepared, engine)
        timeout = session.space.search.timeout or float("inf")
        deadline = time.monotonic() + timeout - session.clock.seconds["halving"]
        return TrainingRun(session, study, context, engine, controls, deadline)


def train_trials(run: TrainingRun) -> None:
    """Train what the study has still to try, by the strategy that the space names.

    A finished trial's stitch layer is on disk before the study says that it finished, so a kill at any moment loses at
    most the trials under way. A trial whose loss is not finite fails with its reason, and the next one is asked.
    """
    session = run.session
    with session.clock.stage("trials"):
        strategy: Strategy = STRATEGIES.get(session.space.search.strategy, trust_code=session.setup.sources.trust_code)
        strategy(run)


def train_rest(run: TrainingRun) -> None:
    """Train what follows the trials: the best again, then the controls."""
    clock = run.session.clock
    with clock.stage("retraining"):
        retrain(run)
    with clock.stage("trials"):
        train_controls(run)
        run.study.add_counts("features", asdict(run.context.store.statistics))


def images_to_see(run: TrainingRun, *, ended: bool) -> int | None:
    """Count the training images of all trials, retrainings and controls, each as often as it is seen.

    What fails counts like what does not: the number is the same whoever asks, before a kill and after it.

    Args:
        run: The training.
        ended: Whether its trials have ended.

    Returns:
        The number; None where it depends on the trials, and these have not ended.
    """
    each, choices = len(run.context.train), control_choices(run.context.training)
    after = len(run.controls) * choices.epochs
    if (before := _epochs_known(run)) is not None:
        return each * (before + after)
    if not ended:
        return None
    after += len(to_retrain(run)) * run.session.space.retrain.epochs
    return each * after + sum(record.images_seen for record in run.study.records)


def _epochs_known(run: TrainingRun) -> int | None:
    """Count the epochs of trials and retrainings; None where trials choose them, or budgets may share their best."""
    session, space = run.session, run.session.space
    training, search, points = space.training, space.search, len(run.study.candidates)
    (least, most), retrained = training.epochs, space.retrain.hybrids
    alike = search.strategy == "independent" and least == most and "hybrid" not in training.tune
    if not alike or search.timeout or (retrained and len(session.budgets) > 1):
        return None
    trials = min(session.trials, points * len(training.tune))
    return trials * most + min(retrained, points) * space.retrain.epochs


def _open_context(session: Session, prepared: Prepared, images: SearchImages, study: SearchStudy) -> TrialContext:
    fit = images.train.subset(torch.arange(min(session.space.stitch.images, len(images.train))))
    splits = TrialImages(images.train, fit, images.val)
    return open_context(session, prepared, study.candidates, splits, before=study.elapsed)
