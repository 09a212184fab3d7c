"""Score all stitch points before any training: every anchor's features from one pass over the same images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import accumulate, permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restnet_search.data import Split
from restnet_search.progress import Progress
from restnet_search.search.features import CutAnchor
from restnet_search.similarity.cka import MIN_IMAGES, MinibatchCKA
from restnet_search.space.schema import RankerSpec

__all__ = ["PairScores", "score_pairs"]

PairScores = dict[tuple[str, str], NDArray[np.float64]]
"""Per (front, back) anchor names: a matrix (front cuts, back cuts), higher is better."""


def score_pairs(
    spec: RankerSpec, anchors: Mapping[str, CutAnchor], images: Split, *, seed: int, progress: Progress
) -> PairScores:
    """Score the stitch points of every ordered pair of anchors with the space's ranker.

    Args:
        spec: Ranker, images and batch size.
        anchors: By name, at least two.
        images: Training images; the first ``spec.images`` are looked at.
        seed: For the ranker ``random``.
        progress: Shows the pass.
    """
    return _RANKERS[spec.kind](spec, anchors, images, seed, progress)


def _by_cka(
    spec: RankerSpec, anchors: Mapping[str, CutAnchor], images: Split, seed: int, progress: Progress
) -> PairScores:
    """Minibatch CKA of all cut points of all anchors, each Gram matrix computed once; small last batches are left out.

    Every anchor runs once per batch, on its own view of the images.
    """
    count = min(spec.images, len(images))
    batches = [batch for batch in torch.arange(count).split(spec.batch_size) if len(batch) >= MIN_IMAGES]
    taps = {name: cut.graph.between(None, range(_cuts(cut))) for name, cut in anchors.items()}
    first, *others = anchors
    meter = MinibatchCKA()
    with progress.task("Similarity (CKA)", total=len(batches)) as task, torch.no_grad():
        for batch in batches:
            features = {name: _features(taps[name], cut, images, batch) for name, cut in anchors.items()}
            meter.update(features[first], [layer for name in others for layer in features[name]])
            task.advance()
    everything = meter.full_matrix().numpy()
    ends = list(accumulate(_cuts(cut) for cut in anchors.values()))
    rows = {name: slice(end - _cuts(cut), end) for (name, cut), end in zip(anchors.items(), ends, strict=True)}
    return {(front, back): everything[rows[front], rows[back]] for front, back in permutations(anchors, 2)}


def _by_chance(
    spec: RankerSpec, anchors: Mapping[str, CutAnchor], images: Split, seed: int, progress: Progress
) -> PairScores:
    """Scores drawn from [0, 1), the control that every ranker must beat."""
    generator = np.random.default_rng(seed)
    return {
        (front, back): generator.random((_cuts(anchors[front]), _cuts(anchors[back])))
        for front, back in permutations(anchors, 2)
    }


_RANKERS: Mapping[str, Callable[[RankerSpec, Mapping[str, CutAnchor], Split, int, Progress], PairScores]] = {
    "cka": _by_cka,
    "random": _by_chance,
}


def _features(tap: torch.nn.Module, cut: CutAnchor, images: Split, batch: Tensor) -> list[Tensor]:
    values = tap(images.images(cut.anchor.view, batch))
    return [values] if isinstance(values, Tensor) else list(values)


def _cuts(cut: CutAnchor) -> int:
    return len(cut.graph.cut_points)
