"""Predictions of the anchors for val and test, made once per run and kept in its folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from restnet_search.anchors import Anchor
from restnet_search.anchors.fitting.resume import read_epoch, write_epoch
from restnet_search.compute import Compute
from restnet_search.data import Split
from restnet_search.plain.predictions import Predictions
from restnet_search.search.run.run_folder import RunFolder
from restnet_search.search.training.accuracy import predictions_of_network

__all__ = ["anchor_predictions"]


def anchor_predictions(folder: RunFolder, anchor: Anchor, split: Split, compute: Compute) -> Predictions:
    """Return what an anchor says of the images of a split, from the run folder where it was asked before.

    A file that is damaged, or of other images, is written anew.

    Args:
        folder: Of the run.
        anchor: On the device of ``compute``.
        split: Images and labels.
        compute: Where it runs.
    """
    path = folder.predictions(anchor.name, split.name)
    if (kept := _kept(path, split)) is not None:
        return kept
    made = predictions_of_network(anchor.model, anchor.preprocessing, split, compute=compute)
    tensors = {"correct": torch.from_numpy(made.correct), "confidence": torch.from_numpy(made.confidence)}
    write_epoch(path, {"images": made.images, **tensors})
    return made


def _kept(path: Path, split: Split) -> Predictions | None:
    state = read_epoch(path)
    if state is None or state.get("images") != split.digest:
        return None
    correct, confidence = state.get("correct"), state.get("confidence")
    if not (isinstance(correct, Tensor) and isinstance(confidence, Tensor)):
        return None
    if (correct.dtype, confidence.dtype) != (torch.bool, torch.float64):
        return None
    if not correct.shape == confidence.shape == (len(split),):
        return None
    return Predictions(split.digest, correct.numpy(), confidence.numpy())
