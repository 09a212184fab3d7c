"""Trials that share a front anchor, trained on one pass over the images: where its features are too large to keep."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from restnet_search.search.candidates import Candidate
from restnet_search.search.trial import NonFiniteLoss, StitchTrainer, TrainingChoices, TrialContext, TrialOutcome
from restnet_search.stitching.initialise import StitchFit

__all__ = ["pass_order", "run_together"]


def run_together(
    jobs: Sequence[tuple[Candidate, TrainingChoices]], context: TrialContext
) -> list[TrialOutcome | NonFiniteLoss]:
    """Train and score candidates of one front anchor, each batch of images going through its front once.

    The order of images depends on the search's seed, the front anchor and the epoch alone, so that a candidate
    reaches the same alone and in any company.

    Returns:
        What became of each job, in order; one whose loss stops being finite does not end the others. ``seconds`` are
        an equal share of the time that all took.

    Raises:
        ValueError: If the front anchors differ.
    """
    if len({candidate.direction.front for candidate, _ in jobs}) != 1:
        raise ValueError("candidates that are trained together need one front anchor")
    started = time.perf_counter()
    trainers = [StitchTrainer(candidate, choices, context) for candidate, choices in jobs]
    r2 = _initialise(trainers, context)
    failed = _train(trainers, context)
    correct = _score([trainer for trainer in trainers if trainer not in failed], context)
    seconds = (time.perf_counter() - started) / len(trainers)
    return [
        failed.get(trainer)
        or TrialOutcome(trainer.stitch.eval(), correct[trainer], len(context.val), r2.get(trainer), seconds)
        for trainer in trainers
    ]


def pass_order(seed: int, front: str, epoch: int, count: int) -> Tensor:
    """The order ``(count,)`` in which all stitch layers behind a front anchor see the images in an epoch."""
    digest = hashlib.sha256(repr((seed, front, epoch)).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))
    return torch.randperm(count, generator=generator)


def _initialise(trainers: Sequence[StitchTrainer], context: TrialContext) -> dict[StitchTrainer, float]:
    """The closed-form start of all: one pass of the front anchor and one of every back anchor."""
    if context.stitch.init == "random":
        return {}
    fits = {trainer: StitchFit(trainer.stitch) for trainer in trainers}
    batch, first = context.training.batch_size, torch.arange(len(context.fit))
    front, cuts = trainers[0].candidate.direction.front, _front_cuts(trainers)
    backs = {name: _back_cuts(trainers, name) for name in {t.candidate.direction.back: None for t in trainers}}
    targets = [context.store.batches_at(name, wanted, context.fit, batch) for name, wanted in backs.items()]
    sources = context.store.batches_at(front, cuts, context.train, batch, first)
    for found, *wanted in zip(sources, *targets, strict=True):
        source = dict(zip(cuts, found, strict=True))
        target = {
            (name, cut): values
            for (name, back_cuts), features in zip(backs.items(), wanted, strict=True)
            for cut, values in zip(back_cuts, features, strict=True)
        }
        for trainer, fit in fits.items():
            candidate = trainer.candidate
            fit.update(source[candidate.front_cut], target[candidate.direction.back, candidate.back_cut])
    return {trainer: fit.solve(context.stitch.ridge) for trainer, fit in fits.items()}


def _train(trainers: Sequence[StitchTrainer], context: TrialContext) -> dict[StitchTrainer, NonFiniteLoss]:
    failed: dict[StitchTrainer, NonFiniteLoss] = {}
    front = trainers[0].candidate.direction.front
    for epoch in range(max(trainer.choices.epochs for trainer in trainers)):
        active = [trainer for trainer in trainers if trainer.choices.epochs > epoch and trainer not in failed]
        if not active:
            break
        cuts, order = _front_cuts(active), pass_order(context.seed, front, epoch, len(context.train))
        features = context.store.batches_at(front, cuts, context.train, context.batch, order, context.view_of(epoch))
        for found, indices in zip(features, order.split(context.batch), strict=True):
            at, labels = dict(zip(cuts, found, strict=True)), context.train.labels[indices]
            for trainer in active:
                if trainer in failed:
                    continue
                try:
                    trainer.step(at[trainer.candidate.front_cut], labels)
                except NonFiniteLoss as error:
                    failed[trainer] = error
    return failed


def _score(trainers: Sequence[StitchTrainer], context: TrialContext) -> dict[StitchTrainer, int]:
    if not trainers:
        return {}
    correct = dict.fromkeys(trainers, 0)
    front, cuts = trainers[0].candidate.direction.front, _front_cuts(trainers)
    batch = context.training.batch_size
    features = context.store.batches_at(front, cuts, context.val, batch)
    for found, labels in zip(features, context.val.labels.split(batch), strict=True):
        at = dict(zip(cuts, found, strict=True))
        for trainer in trainers:
            correct[trainer] += int((trainer.predict(at[trainer.candidate.front_cut]) == labels).sum())
    return correct


def _front_cuts(trainers: Sequence[StitchTrainer]) -> list[int]:
    return sorted({trainer.candidate.front_cut for trainer in trainers})


def _back_cuts(trainers: Sequence[StitchTrainer], back: str) -> list[int]:
    return sorted({t.candidate.back_cut for t in trainers if t.candidate.direction.back == back})
