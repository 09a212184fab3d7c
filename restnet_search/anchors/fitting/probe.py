"""Linear probe: train a classifier that is one linear layer on features computed once per image.

scikit-learn's ``LogisticRegression`` does not stand here: it has no epochs to choose from on val, to stop after and to
resume from, no label smoothing and no minibatches (features of ImageNet fill 20 GB in its float64).
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from restnet_search.anchors.fitting.mixed_precision import MixedPrecision
from restnet_search.anchors.fitting.resume import features_beside, read_epoch, write_epoch
from restnet_search.anchors.fitting.training_loop import FitJob, TrainingLoop
from restnet_search.compute import Compute, device_of
from restnet_search.data.preprocessing import Preprocessing
from restnet_search.data.splits import DataSplits, Split
from restnet_search.progress import Task

__all__ = ["BATCH", "head_inputs", "is_linear_probe", "train_probe"]

BATCH = 256
_KEPT_BATCHES = 16  # per file: a kill costs at most so many


def train_probe(
    job: FitJob, model: nn.Module, head: nn.Linear, preprocessing: Preprocessing, data: DataSplits
) -> float:
    """Train `head` in place on standardised features; return top-1 on val of the epoch kept, 0..1.

    What enters the classifier is kept beside the job's checkpoint until the fit is done. The trained layer reads
    ``(x - mean) / scale``; it is folded into `head` at the end. The model is left on the CPU.

    Raises:
        AnchorError: If the loss stops being finite.
    """
    keep = None if job.checkpoint is None else features_beside(job.checkpoint)
    batches = math.ceil(len(data.train) / BATCH) + math.ceil(len(data.val) / BATCH)
    with job.settings.progress.task(f"Fitting the head of {job.name}", total=batches + job.spec.epochs) as task:
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

        loop = TrainingLoop(job, MixedPrecision(Compute()))
        best = loop.run(probe, lambda rows: probe(train[rows]), accuracy, data.train.labels)
    with torch.no_grad():  # W (x - mean) / scale + b = (W / scale) x + (b - W mean / scale)
        head.weight.copy_(probe.weight / scale)
        if head.bias is not None:
            head.bias.copy_(probe.bias - head.weight @ mean)
    return best


@torch.no_grad()
def head_inputs(
    model: nn.Module, head: nn.Module, split: Split, preprocessing: Preprocessing, *, keep: Path | None, task: Task
) -> Tensor:
    """Compute what enters the classifier, float32 ``(n, features)`` on the CPU.

    Args:
        model: In evaluation mode.
        head: Its classifier, called once per batch.
        split: Its images are seen in order.
        preprocessing: From an image to the model's input.
        keep: Folder where finished stretches are kept, and taken up if they are there.
        task: Told about every batch.
    """
    parts: list[Tensor] = []
    for stretch in torch.arange(len(split)).split(BATCH * _KEPT_BATCHES):
        path = None if keep is None else keep / f"{split.name}-{int(stretch[0])}.pt"
        known = None if path is None else read_epoch(path)
        if known is not None:
            parts.append(known["features"])
            task.advance(-(-len(stretch) // BATCH))
            continue
        parts.append(_seen(model, head, split, preprocessing, stretch, task))
        if path is not None:
            write_epoch(path, {"features": parts[-1]})
    return torch.cat(parts)


def _seen(
    model: nn.Module, head: nn.Module, split: Split, preprocessing: Preprocessing, rows: Tensor, task: Task
) -> Tensor:
    seen: list[Tensor] = []
    device = device_of(model)
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float().cpu()))
    try:
        for images in split.batches(preprocessing, BATCH, rows):
            model(images.to(device))
            task.advance()
    finally:
        hook.remove()
    return torch.cat(seen)


@torch.no_grad()
def is_linear_probe(model: nn.Module, head: nn.Linear, split: Split, preprocessing: Preprocessing) -> bool:
    """Say if the model's output is this layer's, called once per batch on ``(B, features)``."""
    calls: list[tuple[Tensor, Tensor]] = []

    def remember(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append((inputs[0], output))

    hook = head.register_forward_hook(remember)
    try:
        output = model(split.images(preprocessing, range(min(2, len(split)))).to(device_of(model)))
    finally:
        hook.remove()
    return len(calls) == 1 and calls[0][0].ndim == 2 and torch.equal(calls[0][1], output)
