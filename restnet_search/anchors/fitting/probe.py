"""What enters a model's classifier, computed once per image and kept on disk until the head is fitted."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from restnet_search.anchors.fitting.resume import read_epoch, write_epoch
from restnet_search.compute import device_of
from restnet_search.data.preprocessing import Preprocessing
from restnet_search.data.splits import Split
from restnet_search.progress import Task

__all__ = ["BATCH", "head_inputs", "is_linear_probe"]

BATCH = 256
_KEPT_BATCHES = 16  # per file: a kill costs at most so many


@torch.no_grad()
def head_inputs(
    model: nn.Module, head: nn.Module, split: Split, preprocessing: Preprocessing, *, keep: Path | None, task: Task
) -> Tensor:
    """What enters the classifier, float32 ``(n, features)`` on the CPU.

    Args:
        model: In evaluation mode.
        head: Its classifier, called once per batch.
        split: Its images are seen in order.
        preprocessing: How the model sees images.
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
    """Whether the model's output is this layer's, called once per batch on ``(B, features)``."""
    calls: list[tuple[Tensor, Tensor]] = []

    def remember(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append((inputs[0], output))

    hook = head.register_forward_hook(remember)
    try:
        output = model(split.images(preprocessing, range(min(2, len(split)))).to(device_of(model)))
    finally:
        hook.remove()
    return len(calls) == 1 and calls[0][0].ndim == 2 and torch.equal(calls[0][1], output)
