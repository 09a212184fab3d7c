"""A trial: start a stitch layer in closed form, train it alone, score the hybrid on val.

There is one way to train a candidate. Candidates of one front anchor may be trained side by side, so that each batch of
images goes through their front once; a trial alone is a group of one. Batches come in an order that depends on the
search's seed, the front anchor and the epoch, so a candidate reaches the same alone, in any company, in any process,
and wherever the features of its front are kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from restnet_search.data import Split
from restnet_search.data.augmented_views import AugmentedView
from restnet_search.search.points.candidates import Candidate
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.training.context import TrialContext
from restnet_search.search.training.seeds import generator_for
from restnet_search.search.training.stitch_trainer import (
    DivergedTraining,
    FailedTrial,
    NonFiniteLoss,
    StitchTrainer,
    TrialOutcome,
)
from restnet_search.stitching.initialize import StitchFit
from restnet_search.stitching.tuning import STATISTICS_IMAGES

__all__ = ["image_order", "is_cached", "run_trials"]


def is_cached(candidate: Candidate, context: TrialContext) -> bool:
    """Say whether the features of its front can be cached; else trials of one front anchor better share a pass."""
    return context.store.can_cache(candidate.direction.front, candidate.front_cut, context.train)


def run_trials(
    trials: Sequence[tuple[Candidate, TrainingChoices]], context: TrialContext
) -> list[TrialOutcome | FailedTrial]:
    """Train and score candidates of one front anchor, each batch of images going through its front once.

    Args:
        trials: One or more.
        context: What the trials of the search share.

    Returns:
        The outcome of each, in order; one whose loss stops being finite does not end the others. ``seconds`` are an
        equal share of the time that all took.

    Raises:
        ValueError: If the front anchors differ.
    """
    if len({candidate.direction.front for candidate, _ in trials}) != 1:
        raise ValueError("trials that run side by side need one front anchor")
    started = time.perf_counter()
    trainers = [StitchTrainer(candidate, choices, context) for candidate, choices in trials]
    r2 = _initialize(trainers, context)
    failed = _match(trainers, context)
    _reestimate([trainer for trainer in trainers if trainer not in failed], context)
    failed |= _train([trainer for trainer in trainers if trainer not in failed], context)
    _reestimate([one for one in trainers if one.normalizes_by_batch and one not in failed], context)
    failed |= _diverged([trainer for trainer in trainers if trainer not in failed])
    correct = _score([trainer for trainer in trainers if trainer not in failed], context)
    seconds = (time.perf_counter() - started) / len(trainers)
    return [failed.get(trainer) or trainer.outcome(correct[trainer], r2.get(trainer), seconds) for trainer in trainers]


def image_order(seed: int, front: str, epoch: int, count: int) -> Tensor:
    """Return the order ``(count,)`` in which all stitch layers behind a front anchor see the images in an epoch."""
    return torch.randperm(count, generator=generator_for(seed, front, epoch))


def _initialize(trainers: Sequence[StitchTrainer], context: TrialContext) -> dict[StitchTrainer, float]:
    """The closed-form start of all: one pass of the front anchor and one of every back anchor."""
    solved, whitened = context.stitch.init == "lstsq", context.training.whiten
    if not (solved or whitened):
        return {}
    fits = {trainer: StitchFit(trainer.stitch, context.stitch.ridge) for trainer in trainers}
    wanted = {trainer: (trainer.candidate.direction.back, trainer.candidate.back_cut) for trainer in trainers}
    for source, target in _aligned(wanted, context, context.fit, torch.arange(len(context.fit))):
        for trainer, fit in fits.items():
            fit.update(source[trainer.candidate.front_cut], target[wanted[trainer]])
    r2 = {trainer: fit.solve() for trainer, fit in fits.items()} if solved else {}
    for trainer, fit in fits.items() if whitened else ():
        trainer.whiten(fit.moments())
    return r2


def _diverged(trainers: Sequence[StitchTrainer]) -> dict[StitchTrainer, FailedTrial]:
    failed: dict[StitchTrainer, FailedTrial] = {}
    for trainer in trainers:
        try:
            trainer.require_convergence()
        except DivergedTraining as error:
            failed[trainer] = error
    return failed


def _match(trainers: Sequence[StitchTrainer], context: TrialContext) -> dict[StitchTrainer, FailedTrial]:
    failed: dict[StitchTrainer, FailedTrial] = {}
    front = trainers[0].candidate.direction.front
    for epoch in range(max((trainer.choices.match_epochs for trainer in trainers), default=0)):
        matching = [trainer for trainer in trainers if trainer.choices.match_epochs > epoch and trainer not in failed]
        if not matching:
            break
        order = image_order(context.seed, f"{front} matched", epoch, len(context.train))
        wanted = {trainer: (trainer.candidate.direction.back, trainer.match_cut) for trainer in matching}
        for source, target in _aligned(wanted, context, context.train, order):
            for trainer in matching:
                if trainer in failed:
                    continue
                try:
                    trainer.match(source[trainer.candidate.front_cut], target[wanted[trainer]])
                except NonFiniteLoss as error:
                    failed[trainer] = error
    return failed


def _aligned(
    wanted: Mapping[StitchTrainer, tuple[str, int]], context: TrialContext, images: Split, order: Tensor
) -> Iterator[tuple[dict[int, Tensor], dict[tuple[str, int], Tensor]]]:
    """Features of the front anchor by cut, and of the back anchors by name and cut, for the same training images.

    One pass of the front anchor and one of every back anchor; ``images`` are the first of the training images.
    ``wanted`` says, for each trainer, which features of its back anchor: name and cut.
    """
    batch, trainers = context.batch, list(wanted)
    front, cuts = trainers[0].candidate.direction.front, _front_cuts(trainers)
    backs = {name: sorted({cut for other, cut in wanted.values() if other == name}) for name, _ in wanted.values()}
    targets = [context.store.batches_at(name, at, images, batch, order) for name, at in backs.items()]
    sources = context.store.batches_at(front, cuts, context.train, batch, order)
    for fronts, *back_features in zip(sources, *targets, strict=True):
        yield (
            dict(zip(cuts, fronts, strict=True)),
            {
                (name, cut): values
                for (name, back_cuts), features in zip(backs.items(), back_features, strict=True)
                for cut, values in zip(back_cuts, features, strict=True)
            },
        )


@torch.no_grad()
def _reestimate(trainers: Sequence[StitchTrainer], context: TrialContext) -> None:
    """New batch-norm statistics for all that have some of their own, on the first ``STATISTICS_IMAGES``."""
    fits = {trainer: fit for trainer in trainers if (fit := trainer.statistics_fit()) is not None}
    if not fits:
        return
    some = torch.arange(min(STATISTICS_IMAGES, len(context.train)))
    for inputs in _inputs(list(fits), context, context.train, context.batch, some):
        for trainer, fit in fits.items():
            trainer.see_statistics(fit, inputs[trainer])
    for trainer, fit in fits.items():
        trainer.use_statistics(fit.result())


def _train(trainers: Sequence[StitchTrainer], context: TrialContext) -> dict[StitchTrainer, FailedTrial]:
    failed: dict[StitchTrainer, FailedTrial] = {}
    for epoch in range(max((trainer.choices.epochs for trainer in trainers), default=0)):
        front = trainers[0].candidate.direction.front
        active = [trainer for trainer in trainers if trainer.choices.epochs > epoch and trainer not in failed]
        if not active:
            break
        order = image_order(context.seed, front, epoch, len(context.train))
        batches = _inputs(active, context, context.train, context.batch, order, context.view_of(epoch))
        for inputs, indices in zip(batches, order.split(context.batch), strict=True):
            for trainer in active:
                if trainer in failed:
                    continue
                try:
                    trainer.step(inputs[trainer], indices)
                except NonFiniteLoss as error:
                    failed[trainer] = error
    return failed


def _score(trainers: Sequence[StitchTrainer], context: TrialContext) -> dict[StitchTrainer, int]:
    if not trainers:
        return {}
    correct = dict.fromkeys(trainers, 0)
    batch = context.training.batch_size
    batches = _inputs(trainers, context, context.val, batch)
    for inputs, labels in zip(batches, context.val.labels.split(batch), strict=True):
        for trainer in trainers:
            correct[trainer] += int((trainer.predict(inputs[trainer]) == labels).sum())
    return correct


def _inputs(
    trainers: Sequence[StitchTrainer],
    context: TrialContext,
    images: Split,
    batch: int,
    order: Tensor | None = None,
    view: AugmentedView | None = None,
) -> Iterator[dict[StitchTrainer, Tensor]]:
    """Yield what each trainer takes of every batch: features of its front, or images where it trains the front, too."""
    front = trainers[0].candidate.direction.front
    whole = [trainer for trainer in trainers if trainer.takes_images]
    frozen = [trainer for trainer in trainers if not trainer.takes_images]
    cuts = _front_cuts(frozen)
    passing = context.store.batches_at(front, cuts, images, batch, order, view) if frozen else None
    seen = context.store.images(front, images, batch, order, view) if whole else None
    for _ in range(math.ceil(len(images if order is None else order) / batch)):
        inputs: dict[StitchTrainer, Tensor] = {}
        if passing is not None:
            at = dict(zip(cuts, next(passing), strict=True))
            inputs = {trainer: at[trainer.candidate.front_cut] for trainer in frozen}
        if seen is not None:
            inputs |= dict.fromkeys(whole, next(seen))
        yield inputs


def _front_cuts(trainers: Sequence[StitchTrainer]) -> list[int]:
    return sorted({trainer.candidate.front_cut for trainer in trainers})
