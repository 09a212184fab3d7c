"""Score all stitch points before any training: every anchor's features from one pass over the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restnet_search.data import Split
from restnet_search.progress import Progress
from restnet_search.search.features import CutAnchor
from restnet_search.similarity.cka import MinibatchCKA
from restnet_search.space.schema import RankerSpec

__all__ = ["PairScores", "cka_between", "score_pairs"]

PairScores = dict[tuple[str, str], NDArray[np.float64]]
"""Per (front, back) anchor names: a matrix (front cuts, back cuts), higher is better."""


def score_pairs(
    spec: RankerSpec, anchors: Mapping[str, CutAnchor], images: Split, *, seed: int, progress: Progress
) -> PairScores:
    """Score every ordered pair of anchors with the space's ranker.

    Args:
        spec: Ranker, images and batch size; a last batch below four images is left out.
        anchors: By name.
        images: Training images; the first ``spec.images`` are looked at.
        seed: For the ranker ``random``.
        progress: Shows the pass.
    """
    pairs = list(combinations(anchors, 2))
    if spec.kind == "random":
        generator = torch.Generator().manual_seed(seed)
        matrices = {
            (a, b): torch.rand(_cuts(anchors[a]), _cuts(anchors[b]), generator=generator, dtype=torch.float64)
            for a, b in pairs
        }
    else:
        matrices = cka_between(pairs, anchors, images, spec, progress)
    scores = {pair: matrix.numpy() for pair, matrix in matrices.items()}
    return scores | {(b, a): matrix.T for (a, b), matrix in scores.items()}


def cka_between(
    pairs: Sequence[tuple[str, str]],
    anchors: Mapping[str, CutAnchor],
    images: Split,
    spec: RankerSpec,
    progress: Progress,
) -> dict[tuple[str, str], Tensor]:
    """Minibatch CKA of all cut points of each pair; every anchor runs once per batch, on its own view of the images."""
    count = min(spec.images, len(images))
    batches = [batch for batch in torch.arange(count).split(spec.batch_size) if len(batch) >= 4]
    meters = {pair: MinibatchCKA() for pair in pairs}
    names = sorted({name for pair in pairs for name in pair})
    taps = {name: anchors[name].graph.between(None, range(_cuts(anchors[name]))) for name in names}
    with progress.task("Similarity (CKA)", total=len(batches)) as task, torch.no_grad():
        for batch in batches:
            features = {name: _features(taps[name], anchors[name], images, batch) for name in names}
            for (a, b), meter in meters.items():
                meter.update(features[a], features[b])
            task.advance()
    return {pair: meter.matrix() for pair, meter in meters.items()}


def _features(tap: torch.nn.Module, anchor: CutAnchor, images: Split, batch: Tensor) -> list[Tensor]:
    values = tap(images.images(anchor.anchor.view, batch))
    return [values] if isinstance(values, Tensor) else list(values)


def _cuts(anchor: CutAnchor) -> int:
    return len(anchor.graph.cut_points)
