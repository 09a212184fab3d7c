"""Train an anchor: all layers, or the classifier alone (as a linear probe where it is one linear layer)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from restnet_search.anchors.classifier import classifiers
from restnet_search.anchors.fitting.mixed_precision import MixedPrecision
from restnet_search.anchors.fitting.probe import BATCH, is_linear_probe, train_probe
from restnet_search.anchors.fitting.training_loop import FitJob, TrainingLoop, steps_per_epoch
from restnet_search.compute import device_of
from restnet_search.data.augmentation import AugmentedImages
from restnet_search.data.preprocessing import Preprocessing
from restnet_search.data.splits import DataSplits, Split
from restnet_search.errors import AnchorError

__all__ = ["top1", "train_full", "train_head"]


def train_full(job: FitJob, model: nn.Module, preprocessing: Preprocessing, data: DataSplits) -> float:
    """Train all layers in place; return top-1 on val of the epoch kept, 0..1.

    Args:
        job: How to train.
        model: Is changed.
        preprocessing: From an image to the model's input.
        data: `train` is trained on, `val` chooses the epoch.

    Raises:
        AnchorError: If the loss stops being finite.
    """
    precision = MixedPrecision(job.settings.compute)
    model.requires_grad_(True).to(precision.device)
    images = (
        AugmentedImages(data.train, preprocessing)
        if job.spec.augment
        else (lambda rows: data.train.images(preprocessing, rows))
    )

    def logits(rows: Tensor) -> Tensor:
        batch = images(rows).to(precision.device)
        try:
            return _main_logits(model(batch))
        except (AssertionError, RuntimeError, ValueError) as error:  # a forward may refuse what it took when evaluating
            raise AnchorError(
                f"{job.name} cannot be trained on images {preprocessing.size}: {type(error).__name__}: {error}",
                hint="build it without auxiliary heads (kwargs: {aux_logits: false}), enlarge its images, or set"
                " fit.tune to head",
            ) from error

    return _train(job, precision, model, logits, preprocessing, data)


def train_head(job: FitJob, model: nn.Module, preprocessing: Preprocessing, data: DataSplits) -> float:
    """Train the classifier alone in place; return top-1 on val of the epoch kept, 0..1. Arguments as above.

    Where the logits are one linear layer's output, that layer is trained as a linear probe
    (:func:`restnet_search.anchors.fitting.probe.train_probe`). Other heads (distilled, convolutional) train through the
    whole frozen model.

    Raises:
        AnchorError: If no classifier is found, or the loss stops being finite.
    """
    heads = classifiers(model)
    if not heads:
        raise AnchorError(f"{job.name} has no classifier to fit.", hint="set fit.tune to full")
    precision = MixedPrecision(job.settings.compute)
    model.eval().requires_grad_(False).to(precision.device)
    head = next(iter(heads.values()))
    if len(heads) == 1 and isinstance(head, nn.Linear) and is_linear_probe(model, head, data.train, preprocessing):
        return train_probe(job, model, head, preprocessing, data)
    for module in heads.values():
        module.requires_grad_(True)

    def logits(rows: Tensor) -> Tensor:
        return model.eval()(data.train.images(preprocessing, rows).to(precision.device))

    named = replace(job, name=f"the head of {job.name}")
    return _train(named, precision, model, logits, preprocessing, data)


def _train(
    job: FitJob,
    precision: MixedPrecision,
    model: nn.Module,
    logits: Callable[[Tensor], Tensor],
    preprocessing: Preprocessing,
    data: DataSplits,
) -> float:
    steps = job.spec.epochs * steps_per_epoch(len(data.train), job.spec)
    with job.settings.progress.task(f"Fitting {job.name}", total=steps) as task:
        loop = TrainingLoop(job, precision, task)
        best = loop.run(model, logits, lambda: top1(model, data.val, preprocessing), data.train.labels)
    model.cpu()
    return best


@torch.no_grad()
def top1(model: nn.Module, split: Split, preprocessing: Preprocessing) -> float:
    """Return the share of images whose class has the largest logit, 0..1; puts the model into evaluation mode."""
    model.eval()
    device = device_of(model)
    predicted = [model(images.to(device)).argmax(1).cpu() for images in split.batches(preprocessing, BATCH)]
    return (torch.cat(predicted) == split.labels).float().mean().item()


def _main_logits(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the logits that count: GoogLeNet and Inception return those of auxiliary heads behind them in training.

    Auxiliary heads are not part of the network that is cut, and keep the classes they were trained for.
    """
    return output if isinstance(output, Tensor) else output[0]
