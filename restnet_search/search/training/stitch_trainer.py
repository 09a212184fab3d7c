"""The trainer of one stitch layer: it learns batch by batch, whoever brings the batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from restnet_search.search.points.candidates import Candidate
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.training.accuracy import predict
from restnet_search.search.training.context import TrialContext
from restnet_search.search.training.divergence import describe_divergence
from restnet_search.search.training.losses import match_loss
from restnet_search.search.training.optimizer import Group, Optimizer
from restnet_search.search.training.seeds import generator_for
from restnet_search.space.schema import Tune
from restnet_search.stitching.layer import StitchLayer
from restnet_search.stitching.least_squares import Moments
from restnet_search.stitching.tuning import StatisticsFit, TunedBack
from restnet_search.stitching.whitening import WhitenedLayer

__all__ = ["BACK_RATES", "DivergedTraining", "FailedTrial", "NonFiniteLoss", "StitchTrainer", "TrialOutcome"]

BACK_RATES: Mapping[Tune, float] = {"stitch+norm": 3.0, "stitch+lora": 1.0, "all": 0.3, "hybrid": 0.5}
"""Learning rate of what is tuned in the anchors' parts, relative to the stitch layer's."""


class FailedTrial(Exception):
    """A trial that has no outcome, for the reason that the message gives; the search goes on."""


class NonFiniteLoss(FailedTrial):
    """The loss of a trial became infinite or not a number."""


class DivergedTraining(FailedTrial):
    """The loss of a trial ended above its start, or its weights are no numbers."""


@dataclass(frozen=True)
class TrialOutcome:
    """A trained stitch layer and how its hybrid scored.

    ``tuned`` holds the tensors that the back has for itself, by name, and ``tuned_front`` those of the front; ``r2`` is
    that of the closed-form start (None if random).
    """

    stitch: StitchLayer
    tuned: Mapping[str, Tensor]
    correct: int
    seen: int
    r2: float | None
    seconds: float
    tuned_front: Mapping[str, Tensor] = field(default_factory=dict)


class StitchTrainer:
    """One stitch layer under training: AdamW, one cosine cycle with warm-up to ``choices.lr``.

    What is tuned in the back learns at ``BACK_RATES`` of that rate. Weights that are drawn depend on the search's seed
    and the stitch point alone. Under ``tune: hybrid`` the front learns as the back does, and the trainer takes images
    where it takes features of the front else (``takes_images``).
    """

    def __init__(self, candidate: Candidate, choices: TrainingChoices, context: TrialContext) -> None:
        self.candidate, self.choices, self._context = candidate, choices, context
        generator = generator_for(context.seed, candidate.key)
        place = context.compute.place
        self.stitch = place(StitchLayer(candidate.plan, generator))
        self._graph = context.graphs[candidate.direction.back]
        sliced = place(self._graph.back(candidate.back_cut).requires_grad_(False))
        self._tuned = place(TunedBack(sliced, choices.tune, generator)) if choices.tune != "stitch" else None
        self.back: nn.Module = self._tuned or sliced
        self._front: TunedBack | None = None
        if choices.tune == "hybrid":
            front = place(context.graphs[candidate.direction.front].front(candidate.front_cut).requires_grad_(False))
            self._front = place(TunedBack(front, choices.tune))
        self._open_optimizers(())
        final = choices.match_epochs and choices.match_at == "final"
        until_match = self._graph.until_final(candidate.back_cut) if final else nn.Identity()
        self._until_match = place(until_match.requires_grad_(False))
        self._losses: dict[Optimizer, list[float]] = {}

    def _open_optimizers(self, whitened: Sequence[WhitenedLayer]) -> None:
        choices, decay = self.choices, self._context.training.weight_decay
        per_epoch = math.ceil(len(self._context.train) / self._context.batch)
        groups = [Group(list(self.stitch.parameters()), choices.lr, whitened)]
        parts = [part for part in (self._front, self._tuned) if part is not None]
        if own := [parameter for part in parts for parameter in part.parameters()]:
            groups.append(Group(own, choices.lr * BACK_RATES[choices.tune]))
        self._task = Optimizer(groups, decay, choices.epochs * per_epoch)
        matching = choices.match_epochs * per_epoch
        self._matching = Optimizer(groups[:1], decay, matching) if matching else None

    @property
    def takes_images(self) -> bool:
        """True if it trains its front, too: steps and predictions then take images ``(b, C, H, W)``, not features."""
        return self._front is not None

    def whiten(self, moments: Moments) -> None:
        """Let the stitch layer learn in coordinates in which its inputs are white, from the weights that it has now."""
        layers = self.stitch.plan.definition.affine_layers(self.stitch.branches)
        self._open_optimizers([WhitenedLayer(layer, moments) for layer in layers])

    @property
    def match_cut(self) -> int:
        """The cut point of the back anchor where features are compared with its own."""
        cut = self.candidate.back_cut
        return self._graph.final_cut(cut) if self.choices.match_at == "final" else cut

    def match(self, features: Tensor, wanted: Tensor) -> None:
        """Train the stitch layer on one batch to give the back anchor's own features ``wanted`` at :attr:`match_cut`.

        What lies between there and the stitch point is the anchor's own, whatever is tuned later.

        Raises:
            NonFiniteLoss: If the loss is no finite number.
        """
        assert self._matching is not None
        variance = wanted.var()
        self._learn(
            len(features), lambda rows: match_loss(self._mapped(features[rows]), wanted[rows], variance), self._matching
        )

    def step(self, features: Tensor, indices: Tensor) -> None:
        """Train on one batch of front features (or images), of the training images that the indices name.

        Raises:
            NonFiniteLoss: If the loss is no finite number.
        """
        self.back.train(self.normalizes_by_batch)
        self._learn(
            len(features),
            lambda rows: self._context.task_loss(
                self.candidate, self._logits(features[rows]), indices[rows], self.choices.distill
            ),
            self._task,
        )
        self.back.eval()

    def _mapped(self, features: Tensor) -> Tensor:
        with self._context.compute.autocast():
            return self._until_match(self.stitch(features)).float()

    def _logits(self, features: Tensor) -> Tensor:
        with self._context.compute.autocast():
            return self.back(self.stitch(self._features(features))).float()

    def _features(self, batch: Tensor) -> Tensor:
        return batch if self._front is None else self._front(batch)

    @property
    def normalizes_by_batch(self) -> bool:
        """True if batch-norms of the back have no statistics of their own until it is trained."""
        return self._context.training.norms == "batch" and self._tuned is not None and self.choices.epochs > 0

    def _learn(self, count: int, loss_of: Callable[[slice], Tensor], optimizer: Optimizer) -> None:
        loss = optimizer.step(count, loss_of, self._context.compute.micro_batches)
        if not math.isfinite(loss):
            raise NonFiniteLoss(f"the loss became {loss} at learning rate {self.choices.lr:.3g}")
        self._losses.setdefault(optimizer, []).append(loss)

    def require_convergence(self) -> None:
        """Refuse what training has only harmed: in the losses of a phase, or in weights that are no numbers.

        Raises:
            DivergedTraining: Says from which loss to which.
        """
        rate = f"at learning rate {self.choices.lr:.3g}"
        for optimizer, losses in self._losses.items():
            if reason := describe_divergence(losses):
                phase = " while features were matched" if optimizer is self._matching else ""
                raise DivergedTraining(f"{reason} {rate}{phase}")
        for tensor in (*self.stitch.state_dict().values(), *_own(self._tuned).values(), *_own(self._front).values()):
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise DivergedTraining(f"diverged: weights are no longer finite {rate}")

    def statistics_fit(self) -> StatisticsFit | None:
        """Return an estimate of the back's batch-norm statistics to be fed; None where they stay as they are."""
        return None if self._tuned is None else self._tuned.statistics_fit()

    def see_statistics(self, fit: StatisticsFit, features: Tensor) -> None:
        """Show the fit a batch of front features (or images)."""
        fit.see(self._until_back, features, self._context.compute)

    def use_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Give the back batch-norm statistics of its own."""
        assert self._tuned is not None
        self._tuned.statistics = dict(statistics)

    def outcome(self, correct: int, r2: float | None, seconds: float) -> TrialOutcome:
        """Return the outcome of the training, on the CPU."""
        stitch, scored = self._context.compute.to_cpu(self.stitch.eval()), len(self._context.val)
        return TrialOutcome(stitch, _own(self._tuned), correct, scored, r2, seconds, _own(self._front))

    def predict(self, features: Tensor) -> Tensor:
        """The classes ``(b,)`` that the hybrid puts first for front features (or images), on the CPU."""
        return predict(self._until_back, self.back, features, self._context.compute)

    @property
    def _until_back(self) -> nn.Module:
        """The part before the back: the stitch layer, after the front where that trains, too."""
        return self.stitch if self._front is None else nn.Sequential(self._front, self.stitch)


def _own(part: TunedBack | None) -> dict[str, Tensor]:
    """Return the tensors that a part has for itself, by name, on the CPU."""
    return {} if part is None else {name: tensor.cpu() for name, tensor in part.changed().items()}
