"""The training loop behind every fit: cosine schedule with warm-up, best epoch on val kept, resumed after kills."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restnet_search.anchors.fitting.mixed_precision import MixedPrecision
from restnet_search.anchors.fitting.resume import read_epoch, write_epoch
from restnet_search.compute import Compute
from restnet_search.errors import AnchorError
from restnet_search.progress import Progress, Task
from restnet_search.space.schema import FitSpec

__all__ = ["FitJob", "FitSettings", "LossOfRows", "TrainingLoop", "steps_per_epoch"]

LossOfRows = Callable[[Tensor, Tensor], Tensor]
"""From logits ``(b, classes)``, and the rows ``(b,)`` of the training images that they are for, to their mean loss."""

_WARM_UP = 0.1  # share of the steps


@dataclass(frozen=True)
class FitSettings:
    """The settings that all fits of a space share.

    Attributes:
        spec: How to train.
        seed: Of new heads, the order of images and dropout.
        progress: Told about every batch.
        compute: Where to train; None: on a GPU where there is one.
    """

    spec: FitSpec
    seed: int
    progress: Progress
    compute: Compute | None = None


@dataclass(frozen=True)
class FitJob:
    """One fit.

    Attributes:
        name: The anchor's, in messages.
        settings: How and where to train.
        checkpoint: Where the state after every epoch is kept, and taken up if it is there.
        loss_of: What is minimized; None: the cross-entropy to the labels.
    """

    name: str
    settings: FitSettings
    checkpoint: Path | None = None
    loss_of: LossOfRows | None = None

    @property
    def spec(self) -> FitSpec:
        """The training of the settings."""
        return self.settings.spec


@dataclass(frozen=True)
class TrainingLoop:
    """Trains what requires gradients, keeps the best epoch, and writes down where it is after every epoch.

    ``task`` is told about every batch.
    """

    job: FitJob
    precision: MixedPrecision
    task: Task | None = None

    def run(
        self,
        module: nn.Module,
        logits: Callable[[Tensor], Tensor],
        accuracy: Callable[[], float],
        labels: Tensor,
    ) -> float:
        """Train `module` and leave it with the best epoch's state; return that epoch's accuracy, 0..1.

        Args:
            module: Its parameters that require a gradient are trained.
            logits: Maps image indices ``(B,)`` to logits ``(B, classes)``.
            accuracy: Asked after every epoch; the first of the largest answers decides which epoch is kept.
            labels: int64 ``(n,)`` of the training images.

        Raises:
            AnchorError: If the loss stops being finite.
        """
        job, spec, steps = self.job, self.job.spec, steps_per_epoch(len(labels), self.job.spec)
        generator = torch.Generator().manual_seed(job.settings.seed)
        optimizer = _optimizer(spec, [parameter for parameter in module.parameters() if parameter.requires_grad])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, spec.epochs * steps))
        best, best_epoch, best_state, first = -1.0, -1, {}, 0
        if job.checkpoint is not None and (kept := read_epoch(job.checkpoint)) is not None:
            module.load_state_dict(kept["module"])
            optimizer.load_state_dict(kept["optimizer"])
            schedule.load_state_dict(kept["schedule"])
            generator.set_state(kept["order"])
            torch.set_rng_state(kept["chance"])
            best, best_epoch, best_state, first = kept["best"], kept["best_epoch"], kept["best_state"], kept["epochs"]
            job.settings.progress.log(f"{job.name}: goes on after epoch {first} of {spec.epochs}")
            self._advance(first * steps)
        for epoch in range(first, spec.epochs):
            if spec.patience is not None and epoch - 1 - best_epoch >= spec.patience:
                job.settings.progress.log(
                    f"{job.name}: stopped after epoch {epoch}, none better since {best_epoch + 1}"
                )
                break
            module.train()
            order = torch.randperm(len(labels), generator=generator)
            for rows in order.split(spec.batch_size)[:steps]:
                with self.precision.autocast():
                    loss = self._loss(logits(rows), rows, labels)
                self._check_finite(loss, epoch)
                self.precision.step(loss, optimizer)
                schedule.step()
                self._advance(1)
            reached = accuracy()
            if reached > best:
                best, best_epoch = reached, epoch
                best_state = {key: value.detach().clone() for key, value in module.state_dict().items()}
            if job.checkpoint is not None:
                state = {
                    "epochs": epoch + 1,
                    "module": module.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "order": generator.get_state(),
                    "chance": torch.get_rng_state(),
                    "best": best,
                    "best_epoch": best_epoch,
                    "best_state": best_state,
                }
                write_epoch(job.checkpoint, state)
        module.load_state_dict(best_state)
        return best

    def _loss(self, logits: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        if self.job.loss_of is not None:
            return self.job.loss_of(logits, rows)
        targets = labels[rows].to(self.precision.device)
        return F.cross_entropy(logits, targets, label_smoothing=self.job.spec.label_smoothing)

    def _advance(self, steps: int) -> None:
        if self.task is not None:
            self.task.advance(steps)

    def _check_finite(self, loss: Tensor, epoch: int) -> None:
        if not torch.isfinite(loss):
            raise AnchorError(
                f"Fitting {self.job.name} diverged in epoch {epoch + 1}: the loss is {loss.item()}.",
                hint=f"lower fit.lr (now {self.job.spec.lr:g})",
            )


def steps_per_epoch(images: int, spec: FitSpec) -> int:
    """Return the batches per epoch; a last batch of one image is left out, since batch norm cannot train on it."""
    steps, rest = divmod(images, spec.batch_size)
    return max(1, steps + (rest > 1))


def _optimizer(spec: FitSpec, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if spec.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=spec.lr, momentum=0.9, nesterov=True, weight_decay=spec.weight_decay)
    return torch.optim.AdamW(parameters, lr=spec.lr, weight_decay=spec.weight_decay)


def _rate(step: int, total: int) -> float:
    warm_up = max(1, round(_WARM_UP * total))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))
