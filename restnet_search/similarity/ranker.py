"""Rankers: what orders stitch points before any training. Every ranker gives scores, higher is better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor

from restnet_search.similarity.cka import MIN_IMAGES, MinibatchCKA

__all__ = ["RANKERS", "FeatureStream", "Ranker", "cka_scores", "random_scores", "score_matrix"]

FeatureStream = Iterable[tuple[Sequence[Tensor], Sequence[Tensor]]]
"""Batches of (features of the front anchor, features of the back anchor) at their cut points, of the same images;
``(n, ...)`` each. Lazy: a ranker that looks at no features never runs the anchors."""


class Ranker(Protocol):
    """Scores all stitch points of a pair of anchors."""

    def __call__(self, stream: FeatureStream, shape: tuple[int, int], generator: Generator) -> Tensor:
        """Return scores ``shape`` = (front cut points, back cut points) in float64, higher is better."""
        ...


def cka_scores(stream: FeatureStream) -> Tensor:
    """Score stitch points by minibatch CKA: similar features are easy to map onto each other.

    The last batch is left out if it has fewer than four images (unless it is the only one), as a pass over any number
    of images may end so.

    Returns:
        ``(La, Lb)`` float64 in [-1, 1].

    Raises:
        ValueError: If the stream is empty, another batch than the last has fewer than four images, or the features
            do not fit together (see :meth:`MinibatchCKA.update`).
    """
    cka = MinibatchCKA()
    left_out = 0
    for front, back in stream:
        if left_out:
            raise ValueError(f"a batch before the last has {left_out} images; CKA needs at least {MIN_IMAGES}")
        images = len(front[0]) if front else 0
        if cka.batches and 0 < images < MIN_IMAGES:
            left_out = images
        else:
            cka.update(front, back)
    return cka.matrix()


def random_scores(front_cuts: int, back_cuts: int, generator: Generator) -> Tensor:
    """Score stitch points by chance, the control that every ranker must beat: ``(La, Lb)`` float64 in [0, 1)."""
    return torch.rand(front_cuts, back_cuts, generator=generator, dtype=torch.float64)


def _cka(stream: FeatureStream, shape: tuple[int, int], generator: Generator) -> Tensor:
    return cka_scores(stream)


def _random(stream: FeatureStream, shape: tuple[int, int], generator: Generator) -> Tensor:
    return random_scores(*shape, generator)


RANKERS: Mapping[str, Ranker] = {"cka": _cka, "random": _random}
"""The rankers by the name that a search space gives them."""


def score_matrix(kind: str, stream: FeatureStream, shape: tuple[int, int], generator: Generator) -> Tensor:
    """Score all stitch points of a pair of anchors with the ranker of this name.

    Args:
        kind: A key of :data:`RANKERS`.
        stream: Features of both anchors; read once, or not at all by ``random``.
        shape: (front cut points, back cut points).
        generator: For rankers that draw.

    Returns:
        ``shape``, float64, higher is better.

    Raises:
        ValueError: If there is no such ranker, or the features have other numbers of layers than ``shape`` says.
    """
    if kind not in RANKERS:
        raise ValueError(f"no ranker {kind!r}; expected one of {', '.join(RANKERS)}")
    scores = RANKERS[kind](stream, shape, generator)
    if scores.shape != torch.Size(shape):
        raise ValueError(f"the features have {tuple(scores.shape)} layers; expected {shape}")
    return scores
