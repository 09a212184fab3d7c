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
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.search.candidates import Candidate
from restnet_search.search.features import FeatureStore
from restnet_search.space.schema import StitchSpec, TrainingSpec
from restnet_search.stitching.initialise import fit_stitch
from restnet_search.stitching.layer import StitchLayer

__all__ = [
    "NonFiniteLoss",
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


@dataclass(frozen=True)
class TrialOutcome:
    """A trained stitch layer and how its hybrid scored; ``r2`` is that of the closed-form start (None if random)."""

    stitch: StitchLayer
    correct: int
    seen: int
    r2: float | None
    seconds: float


def run_trial(candidate: Candidate, choices: TrainingChoices, context: TrialContext) -> TrialOutcome:
    """Train the candidate's stitch layer and score the hybrid.

    The random generator depends on the search's seed and the stitch point alone, so a trial gives the same result
    whenever it runs.

    Raises:
        NonFiniteLoss: If the loss stops being a finite number.
    """
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(_seed_of(candidate, context.seed))
    back = context.graphs[candidate.direction.back].back(candidate.back_cut).requires_grad_(False)
    stitch, r2 = _initialise(candidate, context, generator)
    _train(stitch, back, candidate, choices, context, generator)
    correct = _score(stitch, back, candidate, context)
    return TrialOutcome(stitch, correct, len(context.val), r2, time.perf_counter() - started)


def _seed_of(candidate: Candidate, seed: int) -> int:
    digest = hashlib.sha256(repr((seed, candidate.key)).encode()).digest()
    return int.from_bytes(digest[:4], "little")


def _initialise(
    candidate: Candidate, context: TrialContext, generator: torch.Generator
) -> tuple[StitchLayer, float | None]:
    stitch = StitchLayer(candidate.plan, generator)
    if context.stitch.init == "random":
        return stitch, None
    batch, first = context.training.batch_size, torch.arange(len(context.fit))
    front, back = candidate.direction.front, candidate.direction.back
    pairs = zip(
        context.store.batches(front, candidate.front_cut, context.train, batch, first),
        context.store.batches(back, candidate.back_cut, context.fit, batch),
        strict=True,
    )
    return stitch, fit_stitch(stitch, pairs, ridge=context.stitch.ridge)


def _train(
    stitch: StitchLayer,
    back: nn.Module,
    candidate: Candidate,
    choices: TrainingChoices,
    context: TrialContext,
    generator: torch.Generator,
) -> None:
    """AdamW on the stitch layer alone, one cosine cycle with warm-up to ``choices.lr``."""
    batch = min(context.training.batch_size, len(context.train))
    steps = choices.epochs * math.ceil(len(context.train) / batch)
    if steps == 0:
        return
    stitch.train()
    optimiser = torch.optim.AdamW(stitch.parameters(), lr=choices.lr, weight_decay=context.training.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, choices.lr, total_steps=max(steps, 2))
    for _ in range(choices.epochs):
        order = torch.randperm(len(context.train), generator=generator)
        features = context.store.batches(candidate.direction.front, candidate.front_cut, context.train, batch, order)
        for x, indices in zip(features, order.split(batch), strict=True):
            loss = F.cross_entropy(back(stitch(x)), context.train.labels[indices])
            if not math.isfinite(loss.item()):
                raise NonFiniteLoss(f"the loss became {loss.item()} at learning rate {choices.lr:.3g}")
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(stitch.parameters(), _GRADIENT_NORM)
            optimiser.step()
            schedule.step()
    stitch.eval()


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
