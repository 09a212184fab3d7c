"""The training loops behind fitting: cosine schedule with warm-up, best epoch on val kept, resumed after kills."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restnet_search.anchors.classifier import classifiers
from restnet_search.anchors.fitting.mixed_precision import MixedPrecision
from restnet_search.anchors.fitting.probe import BATCH, head_inputs, is_linear_probe
from restnet_search.anchors.fitting.resume import features_beside, read_epoch, write_epoch
from restnet_search.compute import Compute, device_of
from restnet_search.data.augmentation import AugmentedImages
from restnet_search.data.preprocessing import Preprocessing
from restnet_search.data.splits import DataSplits, Split
from restnet_search.errors import AnchorError
from restnet_search.progress import Progress, Task
from restnet_search.space.schema import FitSpec

__all__ = ["top1", "train_full", "train_head"]

_WARM_UP = 0.1  # share of the steps


def train_full(
    name: str,
    model: nn.Module,
    preprocessing: Preprocessing,
    data: DataSplits,
    spec: FitSpec,
    *,
    seed: int,
    progress: Progress,
    checkpoint: Path | None = None,
    compute: Compute | None = None,
) -> float:
    """Train all layers in place; returns top-1 on val of the epoch kept, 0..1.

    Args:
        name: In messages.
        model: Is changed.
        preprocessing: How the model sees images.
        data: `train` is trained on, `val` chooses the epoch.
        spec: How to train.
        seed: Of the order of images.
        progress: Told about every batch.
        checkpoint: Where the state after every epoch is kept, and taken up if it is there.
        compute: Where to train; None: on a GPU where there is one.

    Raises:
        AnchorError: If the loss stops being finite.
    """
    accelerator = MixedPrecision(compute)
    model.requires_grad_(True).to(accelerator.device)
    images = (
        AugmentedImages(data.train, preprocessing)
        if spec.augment
        else (lambda rows: data.train.images(preprocessing, rows))
    )

    def logits(rows: Tensor) -> Tensor:
        batch = images(rows).to(accelerator.device)
        try:
            return _main_logits(model(batch))
        except (AssertionError, RuntimeError, ValueError) as error:  # a forward may refuse what it took when evaluating
            raise AnchorError(
                f"{name} cannot be trained on images {preprocessing.size}: {type(error).__name__}: {error}",
                hint="build it without auxiliary heads (kwargs: {aux_logits: false}), enlarge its images, or set"
                " fit.tune to head",
            ) from error

    with progress.task(f"Fitting {name}", total=spec.epochs * _steps(len(data.train), spec)) as task:
        loop = _Loop(name, spec, seed, progress, task, checkpoint, accelerator)
        best = loop.run(model, logits, lambda: top1(model, data.val, preprocessing), data.train.labels)
    model.cpu()
    return best


def train_head(
    name: str,
    model: nn.Module,
    preprocessing: Preprocessing,
    data: DataSplits,
    spec: FitSpec,
    *,
    seed: int,
    progress: Progress,
    checkpoint: Path | None = None,
    compute: Compute | None = None,
) -> float:
    """Train the classifier alone in place; returns top-1 on val of the epoch kept, 0..1. Arguments as above.

    What enters the classifier is computed once per image and standardised while the head trains, where the logits are
    one linear layer's output; it is kept beside `checkpoint` until the fit is done. Other heads (distilled,
    convolutional) train through the whole frozen model.

    Raises:
        AnchorError: If no classifier is found, or the loss stops being finite.
    """
    heads = classifiers(model)
    if not heads:
        raise AnchorError(f"{name} has no classifier to fit.", hint="set fit.tune to full")
    accelerator = MixedPrecision(compute)
    model.eval().requires_grad_(False).to(accelerator.device)
    head = next(iter(heads.values()))
    if len(heads) == 1 and isinstance(head, nn.Linear) and is_linear_probe(model, head, data.train, preprocessing):
        return _train_probe(name, model, head, preprocessing, data, spec, seed, progress, checkpoint)
    for module in heads.values():
        module.requires_grad_(True)
    with progress.task(f"Fitting the head of {name}", total=spec.epochs * _steps(len(data.train), spec)) as task:

        def logits(rows: Tensor) -> Tensor:
            return model.eval()(data.train.images(preprocessing, rows).to(accelerator.device))

        loop = _Loop(name, spec, seed, progress, task, checkpoint, accelerator)
        best = loop.run(model, logits, lambda: top1(model, data.val, preprocessing), data.train.labels)
    model.cpu()
    return best


def _main_logits(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The logits that count: GoogLeNet and Inception return those of auxiliary heads behind them while they train.

    Auxiliary heads are not part of the network that is cut, and keep the classes they were trained for.
    """
    return output if isinstance(output, Tensor) else output[0]


@torch.no_grad()
def top1(model: nn.Module, split: Split, preprocessing: Preprocessing) -> float:
    """Share of images whose class has the largest logit, 0..1; the model is put into evaluation mode."""
    model.eval()
    device = device_of(model)
    found = [model(images.to(device)).argmax(1).cpu() for images in split.batches(preprocessing, BATCH)]
    return (torch.cat(found) == split.labels).float().mean().item()


def _train_probe(
    name: str,
    model: nn.Module,
    head: nn.Linear,
    preprocessing: Preprocessing,
    data: DataSplits,
    spec: FitSpec,
    seed: int,
    progress: Progress,
    checkpoint: Path | None,
) -> float:
    keep = None if checkpoint is None else features_beside(checkpoint)
    batches = math.ceil(len(data.train) / BATCH) + math.ceil(len(data.val) / BATCH)
    with progress.task(f"Fitting the head of {name}", total=batches + spec.epochs) as task:
        train = head_inputs(model, head, data.train, preprocessing, keep=keep, task=task)
        val = head_inputs(model, head, data.val, preprocessing, keep=keep, task=task)
        model.cpu()
        mean = train.mean(0) if head.bias is not None else torch.zeros_like(train[0])
        scale = train.std(0, correction=0).clamp_min(1e-6)
        train, val = (train - mean) / scale, (val - mean) / scale
        probe = nn.Linear(head.in_features, head.out_features, bias=head.bias is not None)
        nn.init.zeros_(probe.weight)
        if probe.bias is not None:
            nn.init.zeros_(probe.bias)

        def accuracy() -> float:
            task.advance()
            with torch.no_grad():
                return (probe(val).argmax(1) == data.val.labels).float().mean().item()

        loop = _Loop(name, spec, seed, progress, None, checkpoint, MixedPrecision(Compute()))
        best = loop.run(probe, lambda rows: probe(train[rows]), accuracy, data.train.labels)
    with torch.no_grad():  # W (x - mean) / scale + b = (W / scale) x + (b - W mean / scale)
        head.weight.copy_(probe.weight / scale)
        if head.bias is not None:
            head.bias.copy_(probe.bias - head.weight @ mean)
    return best


@dataclass(frozen=True)
class _Loop:
    """Trains what requires gradients, keeps the best epoch, and writes down where it is after every epoch."""

    name: str
    spec: FitSpec
    seed: int
    progress: Progress
    task: Task | None
    checkpoint: Path | None
    accelerator: MixedPrecision

    def run(
        self,
        module: nn.Module,
        logits: Callable[[Tensor], Tensor],
        accuracy: Callable[[], float],
        labels: Tensor,
    ) -> float:
        """Train `module` and leave it with the best epoch's state; returns that epoch's accuracy."""
        spec, steps = self.spec, _steps(len(labels), self.spec)
        generator = torch.Generator().manual_seed(self.seed)
        optimizer = _optimizer(spec, [parameter for parameter in module.parameters() if parameter.requires_grad])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, spec.epochs * steps))
        best, best_epoch, best_state, first = -1.0, -1, {}, 0
        if self.checkpoint is not None and (kept := read_epoch(self.checkpoint)) is not None:
            module.load_state_dict(kept["module"])
            optimizer.load_state_dict(kept["optimizer"])
            schedule.load_state_dict(kept["schedule"])
            generator.set_state(kept["order"])
            torch.set_rng_state(kept["chance"])
            best, best_epoch, best_state, first = kept["best"], kept["best_epoch"], kept["best_state"], kept["epochs"]
            self.progress.log(f"{self.name}: goes on after epoch {first} of {spec.epochs}")
            self._advance(first * steps)
        for epoch in range(first, spec.epochs):
            if spec.patience is not None and epoch - 1 - best_epoch >= spec.patience:
                self.progress.log(f"{self.name}: stopped after epoch {epoch}, none better since {best_epoch + 1}")
                break
            module.train()
            order = torch.randperm(len(labels), generator=generator)
            for rows in order.split(spec.batch_size)[:steps]:
                wanted = labels[rows].to(self.accelerator.device)
                with self.accelerator.autocast():
                    loss = F.cross_entropy(logits(rows), wanted, label_smoothing=spec.label_smoothing)
                self._check_finite(loss, epoch)
                self.accelerator.step(loss, optimizer)
                schedule.step()
                self._advance(1)
            reached = accuracy()
            if reached > best:
                best, best_epoch = reached, epoch
                best_state = {key: value.detach().clone() for key, value in module.state_dict().items()}
            if self.checkpoint is not None:
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
                write_epoch(self.checkpoint, state)
        module.load_state_dict(best_state)
        return best

    def _advance(self, steps: int) -> None:
        if self.task is not None:
            self.task.advance(steps)

    def _check_finite(self, loss: Tensor, epoch: int) -> None:
        if not torch.isfinite(loss):
            raise AnchorError(
                f"Fitting {self.name} diverged in epoch {epoch + 1}: the loss is {loss.item()}.",
                hint=f"lower fit.lr (now {self.spec.lr:g})",
            )


def _optimizer(spec: FitSpec, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if spec.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=spec.lr, momentum=0.9, nesterov=True, weight_decay=spec.weight_decay)
    return torch.optim.AdamW(parameters, lr=spec.lr, weight_decay=spec.weight_decay)


def _steps(images: int, spec: FitSpec) -> int:
    """Batches per epoch; a last batch of one image is left out, since batch norm cannot train on it."""
    steps, rest = divmod(images, spec.batch_size)
    return max(1, steps + (rest > 1))


def _rate(step: int, total: int) -> float:
    warm_up = max(1, round(_WARM_UP * total))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))
