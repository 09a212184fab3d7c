"""One trial: initialise a stitch layer, train it alone, score the hybrid on val."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from restnet_search.compute import Compute
from restnet_search.data import Preprocessing, Split
from restnet_search.data.augmented_views import AugmentedView
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.search.candidates import Candidate
from restnet_search.search.clock import Clock
from restnet_search.search.features import FeatureStore
from restnet_search.search.learning import Group, Optimiser, match_loss, task_loss
from restnet_search.search.seeds import generator_for
from restnet_search.space.schema import StitchSpec, TrainingSpec, Tune
from restnet_search.stitching.initialise import fit_stitch
from restnet_search.stitching.layer import StitchLayer
from restnet_search.stitching.tuning import StatisticsFit, TunedBack

__all__ = [
    "BACK_RATES",
    "NonFiniteLoss",
    "StitchTrainer",
    "TrainingChoices",
    "TrialContext",
    "TrialOutcome",
    "count_correct",
    "predict",
    "run_trial",
    "score_network",
    "score_on_val",
]

BACK_RATES: Mapping[Tune, float] = {"stitch+norm": 3.0, "stitch+lora": 1.0, "all": 0.3}
"""Learning rate of what is tuned in the back, relative to the stitch layer's."""


_SCORING = "scoring"  # images at once are kept under this name


class NonFiniteLoss(Exception):
    """The loss of a trial became infinite or not a number; the trial fails, the search goes on."""


@dataclass(frozen=True)
class TrainingChoices:
    """What Optuna chooses beside the stitch point: peak learning rate, epochs, what is tuned, and what is followed.

    ``match_epochs`` come before ``epochs``: in them the stitch layer learns the back anchor's own features. ``distill``
    is the share of the loss that follows the larger anchor's logits.
    """

    lr: float
    epochs: int
    tune: Tune = "stitch"
    match_epochs: int = 0
    distill: float = 0.0


@dataclass(frozen=True)
class TrialContext:
    """What all trials of a search share.

    ``fit`` holds the first images of ``train``: what the closed-form start is solved on. ``teachers`` holds anchors'
    logits ``(n, classes)`` of the training images, where the loss follows them.
    ``clock`` has run since the search began.
    """

    graphs: dict[str, AnchorGraph]
    store: FeatureStore
    train: Split
    fit: Split
    val: Split
    stitch: StitchSpec
    training: TrainingSpec
    seed: int
    teachers: Mapping[str, Tensor] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)

    @property
    def compute(self) -> Compute:
        """Where trials run: where the store's features lie."""
        return self.store.compute

    @property
    def batch(self) -> int:
        """Training images per step."""
        return min(self.training.batch_size, len(self.train))

    def view_of(self, epoch: int) -> AugmentedView | None:
        """How the training images are changed in an epoch: ``training.views`` take turns, the first is the image."""
        index = epoch % self.training.views
        return AugmentedView(index, self.seed) if index else None

    def task_loss(self, candidate: Candidate, logits: Tensor, indices: Tensor, share: float) -> Tensor:
        """The loss of a hybrid's float32 logits for the training images that the indices (on the CPU) name.

        A ``share`` of the loss follows a teacher, the larger of the candidate's anchors.
        """
        take = self.compute.take
        teacher = take(self.teachers[candidate.direction.larger], indices) if share else None
        return task_loss(logits, take(self.train.labels, indices), teacher, share)


@dataclass(frozen=True)
class TrialOutcome:
    """A trained stitch layer and how its hybrid scored.

    ``tuned`` holds the tensors that the back has for itself, by name; ``r2`` is that of the closed-form start (None if
    random).
    """

    stitch: StitchLayer
    tuned: Mapping[str, Tensor]
    correct: int
    seen: int
    r2: float | None
    seconds: float


class StitchTrainer:
    """One stitch layer under training: AdamW, one cosine cycle with warm-up to ``choices.lr``.

    What is tuned in the back learns at ``BACK_RATES`` of that rate. The random generator depends on the search's seed
    and the stitch point alone, so a trial gives the same result whenever it runs.
    """

    def __init__(self, candidate: Candidate, choices: TrainingChoices, context: TrialContext) -> None:
        self.candidate, self.choices, self._context = candidate, choices, context
        self.generator = generator_for(context.seed, candidate.key)
        place = context.compute.place
        self.stitch = place(StitchLayer(candidate.plan, self.generator))
        sliced = place(context.graphs[candidate.direction.back].back(candidate.back_cut).requires_grad_(False))
        self._tuned = place(TunedBack(sliced, choices.tune, self.generator)) if choices.tune != "stitch" else None
        self.back: nn.Module = self._tuned or sliced
        steps = choices.epochs * math.ceil(len(context.train) / context.batch)
        groups = [Group(list(self.stitch.parameters()), choices.lr)]
        if self._tuned is not None and (own := list(self._tuned.parameters())):
            groups.append(Group(own, choices.lr * BACK_RATES[choices.tune]))
        self._task = Optimiser(groups, context.training.weight_decay, steps)
        matching = choices.match_epochs * math.ceil(len(context.train) / context.batch)
        self._matching = Optimiser(groups[:1], context.training.weight_decay, matching) if matching else None

    def match(self, features: Tensor, wanted: Tensor) -> None:
        """Train the stitch layer on one batch to give the back anchor's own features.

        Raises:
            NonFiniteLoss: If the loss is no finite number.
        """
        assert self._matching is not None
        variance = wanted.var()
        self._learn(
            len(features), lambda rows: match_loss(self._mapped(features[rows]), wanted[rows], variance), self._matching
        )

    def step(self, features: Tensor, indices: Tensor) -> None:
        """Train on one batch of front features, of the training images that the indices name.

        Raises:
            NonFiniteLoss: If the loss is no finite number.
        """
        self._learn(
            len(features),
            lambda rows: self._context.task_loss(
                self.candidate, self._logits(features[rows]), indices[rows], self.choices.distill
            ),
            self._task,
        )

    def _mapped(self, features: Tensor) -> Tensor:
        with self._context.compute.autocast():
            return self.stitch(features).float()

    def _logits(self, features: Tensor) -> Tensor:
        with self._context.compute.autocast():
            return self.back(self.stitch(features)).float()

    def _learn(self, count: int, loss_of: Callable[[slice], Tensor], optimiser: Optimiser) -> None:
        loss = optimiser.step(count, loss_of, self._context.compute.pieces)
        if not math.isfinite(loss):
            raise NonFiniteLoss(f"the loss became {loss} at learning rate {self.choices.lr:.3g}")

    def statistics_fit(self) -> StatisticsFit | None:
        """What re-estimates the back's batch-norm statistics; None where they stay as they are."""
        return None if self._tuned is None else StatisticsFit(self._tuned.back)

    @torch.no_grad()
    def see_statistics(self, fit: StatisticsFit, features: Tensor) -> None:
        """Show the fit a batch of front features.

        Where the batch does not fit memory, each of its pieces counts as a batch: layers behind the first then see
        what the statistics of smaller batches make, and come out a little different.
        """
        compute = self._context.compute

        def see(rows: slice) -> None:
            with compute.autocast_frozen():
                fit.update(self.stitch(features[rows]))

        for _ in compute.pieces.each("batch-norm statistics", len(features), see, least=2):
            pass

    def use_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Give the back batch-norm statistics of its own."""
        assert self._tuned is not None
        self._tuned.statistics = dict(statistics)

    def outcome(self, correct: int, r2: float | None, seconds: float) -> TrialOutcome:
        """What the training ended with, on the CPU."""
        tuned = {} if self._tuned is None else self._tuned.changed()
        tuned = {name: tensor.cpu() for name, tensor in tuned.items()}
        return TrialOutcome(
            self._context.compute.home(self.stitch.eval()), tuned, correct, len(self._context.val), r2, seconds
        )

    def predict(self, features: Tensor) -> Tensor:
        """The classes ``(b,)`` that the hybrid puts first, on the CPU."""
        return predict(self.stitch, self.back, features, self._context.compute)


def run_trial(candidate: Candidate, choices: TrainingChoices, context: TrialContext) -> TrialOutcome:
    """Train the candidate's stitch layer and score the hybrid.

    Raises:
        NonFiniteLoss: If the loss stops being a finite number.
    """
    started = time.perf_counter()
    trainer = StitchTrainer(candidate, choices, context)
    r2 = _initialise(trainer.stitch, candidate, context)
    _match(trainer, context)
    _reestimate(trainer, context)
    _train(trainer, context)
    correct = score_on_val(trainer.stitch, trainer.back, candidate, context)
    return trainer.outcome(correct, r2, time.perf_counter() - started)


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


def _match(trainer: StitchTrainer, context: TrialContext) -> None:
    candidate = trainer.candidate
    for _ in range(trainer.choices.match_epochs):
        order = torch.randperm(len(context.train), generator=trainer.generator)
        pairs = zip(
            context.store.batches(candidate.direction.front, candidate.front_cut, context.train, context.batch, order),
            context.store.batches(candidate.direction.back, candidate.back_cut, context.train, context.batch, order),
            strict=True,
        )
        for source, wanted in pairs:
            trainer.match(source, wanted)


@torch.no_grad()
def _reestimate(trainer: StitchTrainer, context: TrialContext) -> None:
    if (fit := trainer.statistics_fit()) is None:
        return
    front, cut = trainer.candidate.direction.front, trainer.candidate.front_cut
    for features in context.store.batches(front, cut, context.train, context.batch):
        trainer.see_statistics(fit, features)
    trainer.use_statistics(fit.result())


def _train(trainer: StitchTrainer, context: TrialContext) -> None:
    front, cut = trainer.candidate.direction.front, trainer.candidate.front_cut
    for epoch in range(trainer.choices.epochs):
        order = torch.randperm(len(context.train), generator=trainer.generator)
        features = context.store.batches(front, cut, context.train, context.batch, order, context.view_of(epoch))
        for x, indices in zip(features, order.split(context.batch), strict=True):
            trainer.step(x, indices)


def score_on_val(stitch: StitchLayer, back: nn.Module, candidate: Candidate, context: TrialContext) -> int:
    """How many images of val the hybrid classifies correctly, from kept features of its front."""
    features = context.store.batches(
        candidate.direction.front, candidate.front_cut, context.val, context.training.batch_size
    )
    return count_correct((predict(stitch, back, x, context.compute) for x in features), context.val.labels)


def predict(stitch: StitchLayer, back: nn.Module, features: Tensor, compute: Compute, *, exact: bool = True) -> Tensor:
    """The classes ``(b,)`` that a hybrid puts first for front features, on the CPU; ``exact``: computed in float32."""
    return compute.run(lambda x: back(stitch(x)), features, _SCORING, exact=exact).argmax(dim=1).cpu()


def score_network(
    network: nn.Module,
    preprocessing: Preprocessing,
    split: Split,
    batch_size: int = 250,
    compute: Compute | None = None,
) -> int:
    """How many of a split's images a network classifies correctly, from the pixels; computed in float32.

    Args:
        network: On the device of ``compute``.
        preprocessing: How it sees images.
        split: Images and labels.
        batch_size: Images at once.
        compute: Where it runs; None: the CPU.
    """
    place = compute or Compute()
    found = (place.run(network, images, _SCORING) for images in split.batches(preprocessing, batch_size))
    return count_correct((logits.argmax(dim=1).cpu() for logits in found), split.labels)


def count_correct(predicted: Iterable[Tensor], labels: Tensor) -> int:
    """How many labels are those predicted in consecutive batches, all on the CPU."""
    return int((torch.cat(list(predicted)) == labels).sum())
