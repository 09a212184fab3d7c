"""One trial: initialise a stitch layer, train it alone, score the hybrid on val."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restnet_search.data import Split, View
from restnet_search.data.augmented_views import AugmentedView
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.search.candidates import Candidate
from restnet_search.search.features import FeatureStore
from restnet_search.space.schema import StitchSpec, TrainingSpec
from restnet_search.stitching.initialise import fit_stitch
from restnet_search.stitching.layer import StitchLayer

__all__ = [
    "NonFiniteLoss",
    "StitchTrainer",
    "TrainingChoices",
    "TrialContext",
    "TrialOutcome",
    "count_correct",
    "run_trial",
    "score_network",
]

_GRADIENT_NORM = 1.0


class NonFiniteLoss(Exception):
    """The loss of a trial became infinite or not a number; the trial fails, the search goes on."""


@dataclass(frozen=True)
class TrainingChoices:
    """What Optuna chooses beside the stitch point: peak learning rate and passes over the training images."""

    lr: float
    epochs: int


@dataclass(frozen=True)
class TrialContext:
    """What all trials of a search share.

    ``fit`` holds the first images of ``train``: what the closed-form start is solved on.
    """

    graphs: dict[str, AnchorGraph]
    store: FeatureStore
    train: Split
    fit: Split
    val: Split
    stitch: StitchSpec
    training: TrainingSpec
    seed: int

    @property
    def batch(self) -> int:
        """Training images per step."""
        return min(self.training.batch_size, len(self.train))

    def view_of(self, epoch: int) -> AugmentedView | None:
        """How the training images are changed in an epoch: ``training.views`` take turns, the first is the image."""
        index = epoch % self.training.views
        return AugmentedView(index, self.seed) if index else None


@dataclass(frozen=True)
class TrialOutcome:
    """A trained stitch layer and how its hybrid scored; ``r2`` is that of the closed-form start (None if random)."""

    stitch: StitchLayer
    correct: int
    seen: int
    r2: float | None
    seconds: float


class StitchTrainer:
    """One stitch layer under training: AdamW on it alone, one cosine cycle with warm-up to ``choices.lr``.

    The random generator depends on the search's seed and the stitch point alone, so a trial gives the same result
    whenever it runs.
    """

    def __init__(self, candidate: Candidate, choices: TrainingChoices, context: TrialContext) -> None:
        self.candidate, self.choices = candidate, choices
        self.generator = torch.Generator().manual_seed(_seed_of(candidate, context.seed))
        self.back = context.graphs[candidate.direction.back].back(candidate.back_cut).requires_grad_(False)
        self.stitch = StitchLayer(candidate.plan, self.generator)
        steps = choices.epochs * math.ceil(len(context.train) / context.batch)
        decay = context.training.weight_decay
        self._optimiser = torch.optim.AdamW(self.stitch.parameters(), lr=choices.lr, weight_decay=decay)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(self._optimiser, choices.lr, total_steps=max(steps, 2))

    def step(self, features: Tensor, labels: Tensor) -> None:
        """Train on one batch of front features.

        Raises:
            NonFiniteLoss: If the loss is no finite number.
        """
        loss = F.cross_entropy(self.back(self.stitch(features)), labels)
        if not math.isfinite(loss.item()):
            raise NonFiniteLoss(f"the loss became {loss.item()} at learning rate {self.choices.lr:.3g}")
        self._optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.stitch.parameters(), _GRADIENT_NORM)
        self._optimiser.step()
        self._schedule.step()

    @torch.no_grad()
    def predict(self, features: Tensor) -> Tensor:
        """The classes ``(b,)`` that the hybrid puts first."""
        return self.back(self.stitch(features)).argmax(dim=1)


def run_trial(candidate: Candidate, choices: TrainingChoices, context: TrialContext) -> TrialOutcome:
    """Train the candidate's stitch layer and score the hybrid.

    Raises:
        NonFiniteLoss: If the loss stops being a finite number.
    """
    started = time.perf_counter()
    trainer = StitchTrainer(candidate, choices, context)
    r2 = _initialise(trainer.stitch, candidate, context)
    _train(trainer, context)
    correct = _score(trainer.stitch, trainer.back, candidate, context)
    return TrialOutcome(trainer.stitch.eval(), correct, len(context.val), r2, time.perf_counter() - started)


def _seed_of(candidate: Candidate, seed: int) -> int:
    digest = hashlib.sha256(repr((seed, candidate.key)).encode()).digest()
    return int.from_bytes(digest[:4], "little")


def _initialise(stitch: StitchLayer, candidate: Candidate, context: TrialContext) -> float | None:
    if context.stitch.init == "random":
        return None
    batch, first = context.training.batch_size, torch.arange(len(context.fit))
    front, back = candidate.direction.front, candidate.direction.back
    pairs = zip(
        context.store.batches(front, candidate.front_cut, context.train, batch, first),
        context.store.batches(back, candidate.back_cut, context.fit, batch),
        strict=True,
    )
    return fit_stitch(stitch, pairs, ridge=context.stitch.ridge)


def _train(trainer: StitchTrainer, context: TrialContext) -> None:
    front, cut = trainer.candidate.direction.front, trainer.candidate.front_cut
    for epoch in range(trainer.choices.epochs):
        order = torch.randperm(len(context.train), generator=trainer.generator)
        features = context.store.batches(front, cut, context.train, context.batch, order, context.view_of(epoch))
        for x, indices in zip(features, order.split(context.batch), strict=True):
            trainer.step(x, context.train.labels[indices])


def _score(stitch: StitchLayer, back: nn.Module, candidate: Candidate, context: TrialContext) -> int:
    features = context.store.batches(
        candidate.direction.front, candidate.front_cut, context.val, context.training.batch_size
    )
    return count_correct((back(stitch(x)) for x in features), context.val.labels)


def score_network(network: nn.Module, view: View, split: Split, batch_size: int = 250) -> int:
    """How many of a split's images a network classifies correctly, from the pixels."""
    return count_correct((network(images) for images in split.batches(view, batch_size)), split.labels)


@torch.no_grad()
def count_correct(logits: Iterable[Tensor], labels: Tensor) -> int:
    """How many labels the logits of consecutive batches put first."""
    predicted = torch.cat([batch.argmax(dim=1) for batch in logits])
    return int((predicted == labels).sum())
