"""Confidence: how sure a network is of the class that it puts first."""

from __future__ import annotations

from torch import Tensor

__all__ = ["confidence_of"]


def confidence_of(logits: Tensor) -> Tensor:
    """Return the largest softmax probability of each image, float64 ``(b,)``, from its logits ``(b, classes)``.

    In float64, so that networks that are very sure still differ.
    """
    return logits.double().softmax(dim=1).amax(dim=1)
