"""Accuracy: how many images networks classify correctly, from features of a front or from pixels."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from restnet_search.anchors.confidence import confidence_of
from restnet_search.compute import Compute
from restnet_search.data import Preprocessing, Split
from restnet_search.plain.predictions import Predictions
from restnet_search.search.points.candidates import Candidate
from restnet_search.search.training.context import TrialContext
from restnet_search.stitching.layer import StitchLayer

__all__ = ["count_correct", "predict", "predictions_of_network", "score_network", "score_on_val"]

_SCORING = "scoring"  # images at once are kept under this name


def score_on_val(stitch: StitchLayer, back: nn.Module, candidate: Candidate, context: TrialContext) -> int:
    """Count the images of val that the hybrid classifies correctly, from features of its front."""
    features = context.store.batches(
        candidate.direction.front, candidate.front_cut, context.val, context.training.batch_size
    )
    return count_correct((predict(stitch, back, x, context.compute) for x in features), context.val.labels)


def predict(stitch: nn.Module, back: nn.Module, features: Tensor, compute: Compute, *, exact: bool = True) -> Tensor:
    """Return the classes ``(b,)`` that a hybrid puts first for front features, on the CPU; ``exact``: in float32."""
    return compute.run(lambda x: back(stitch(x)), features, _SCORING, exact=exact).argmax(dim=1).cpu()


def predictions_of_network(
    network: nn.Module,
    preprocessing: Preprocessing,
    split: Split,
    batch_size: int = 250,
    compute: Compute | None = None,
) -> Predictions:
    """Return what a network says of the images of a split, from the pixels; computed in float32.

    Args:
        network: On the device of ``compute``.
        preprocessing: How it sees images.
        split: Images and labels.
        batch_size: Images at once.
        compute: Where it runs; None: the CPU.
    """
    place = compute or Compute()
    batches = (place.run(network, images, _SCORING).cpu() for images in split.batches(preprocessing, batch_size))
    given = [(logits.argmax(dim=1), confidence_of(logits)) for logits in batches]
    predicted, confidence = (torch.cat(parts) for parts in zip(*given, strict=True))
    return Predictions(split.digest, (predicted == split.labels).numpy(), confidence.numpy())


def score_network(
    network: nn.Module,
    preprocessing: Preprocessing,
    split: Split,
    batch_size: int = 250,
    compute: Compute | None = None,
) -> int:
    """Count the images of a split that a network classifies correctly; as :func:`predictions_of_network`."""
    return predictions_of_network(network, preprocessing, split, batch_size, compute).answers.correct


def count_correct(predicted: Iterable[Tensor], labels: Tensor) -> int:
    """Count the labels that were predicted in consecutive batches, all on the CPU."""
    return int((torch.cat(list(predicted)) == labels).sum())
