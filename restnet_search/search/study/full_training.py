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
from restnet_search.search.training.trial_setup import fill_store, open_context

__all__ = ["images_to_see", "open_study", "train_rest", "train_trials"]


def open_study(session: Session, halving: Halving) -> SearchStudy:
    """Open the study of the candidates that halving kept."""
    rungs = RungScores(halving.scores, comparable=halving.trained)
    study = SearchStudy.open(session.folder.study, halving.survivors, session.space, rungs, session.trials)
    if halving.statistics is not None:
        study.add_counts("features", asdict(halving.statistics))
    return study


def train_trials(
    session: Session,
    prepared: Prepared,
    images: SearchImages,
    study: SearchStudy,
    controls: Sequence[Control],
    engine: Engine,
) -> TrainingRun:
    """Train what the study has still to try, by the strategy that the space names.

    A finished trial's stitch layer is on disk before the study says that it finished, so a kill at any moment loses at
    most the trials under way. A trial whose loss is not finite fails with its reason, and the next one is asked.

    Args:
        session: Of the search.
        prepared: The anchors.
        images: Of the search.
        study: With the candidates.
        controls: To train at the end; of ``search.timeout``, the time that they will take is kept back for them.
        engine: Trains all hybrids.

    Returns:
        The run, with which :func:`train_rest` goes on.
    """
    with session.clock.stage("trials"):
        context = _open_context(session, prepared, images, study)
        if session.workers > 1 and study.unfinished:
            engine.start()  # they get ready meanwhile
            fill_store(study.candidates, context, session.progress)
        timeout = session.space.search.timeout or float("inf")
        deadline = time.monotonic() + timeout - session.clock.seconds["halving"]
        run = TrainingRun(session, study, context, engine, controls, deadline)
        strategy: Strategy = STRATEGIES.get(session.space.search.strategy, trust_code=session.setup.sources.trust_code)
        strategy(run)
    return run


def train_rest(run: TrainingRun) -> None:
    """Train what follows the trials: the best again, then the controls."""
    clock = run.session.clock
    with clock.stage("retraining"):
        retrain(run)
    with clock.stage("trials"):
        train_controls(run)
        run.study.add_counts("features", asdict(run.context.store.statistics))


def images_to_see(run: TrainingRun) -> int:
    """Count the training images of all trials, and of all retrainings and controls that are planned after them.

    Each as often as it is seen; what fails counts like what does not.
    """
    rest = [one.choices for one in to_retrain(run)]
    rest += len(run.controls) * [control_choices(run.context.training)]
    planned = len(run.context.train) * sum(choices.epochs for choices in rest)
    return planned + sum(record.images_seen for record in run.study.records)


def _open_context(session: Session, prepared: Prepared, images: SearchImages, study: SearchStudy) -> TrialContext:
    fit = images.train.subset(torch.arange(min(session.space.stitch.images, len(images.train))))
    splits = TrialImages(images.train, fit, images.val)
    return open_context(session, prepared, study.candidates, splits, before=study.elapsed)
