"""Ranker ``kl``: how far the classes that front and back predict at their cut points lie apart.

After KLAS (arXiv 2605.29259), which picks stitches by the KL divergence between intermediate representations.

**The formula.** At every cut point c of an anchor a linear probe on pooled features gives a distribution over the
classes for each image, P_c(x). With the mean over the images, ::

    D(i, j)     = mean_x KL( P_front,i(x) || P_back,j(x) )        what the stitch layer must bridge
    d(j)        = mean_x KL( P_back,j(x)  || P_back,j+1(x) )      what the back's own next block changes
    score(i, j) = d(j) / (d(j) + D(i, j))                         in [0, 1]; 1 where D(i, j) = 0

which falls with the ratio D / d, as KLAS relates the two, but stays finite where d is zero. Both stitch orders are
scored, and differ: the divergence is not symmetric, and d belongs to the back.

**What is certain, and what is this program's reading.** That KLAS trains linear probes, takes KL divergences of their
predictions and relates that of front and back to that of the back's next block is what was known of it here (its
abstract and a summary; its formulas were not at hand). Readings: the direction of KL (front against back, block against
next block); the ratio in its bounded form; the means over images taken before the ratio; the next block of the last cut
point is the rest of the anchor, whose predictions are its own logits; a next cut point that sees the same pooled
features (global pooling lies between) is passed over, because d would be zero without any block; features are averaged
over the grid, with prefix tokens set beside them.

**Probes** are multinomial logistic regressions on standardised features with an L2 penalty (that of scikit-learn's
``C=1``), fitted without chance on one half of the images and asked on the other, and the other way round: predictions
on images that a probe was trained on would be all but their labels wherever features are wider than images are many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from restnet_search.graph.cut_points import CutPoint
from restnet_search.graph.layout import Layout
from restnet_search.similarity.rankers._base import FeatureBatch, PairScores, Ranker, RankerSetup

__all__ = ["KlRanker", "fit_probe", "kl_scores", "mean_kl", "pooled"]

_ITERATIONS = 100
_TOLERANCE = 1e-5  # of the gradient's largest entry
_SAME = 1e-9  # mean divergence below which two cut points see the same


class KlRanker(Ranker):
    """Keeps the pooled features of all cut points, ``(images, channels)`` each, and trains two probes per cut point."""

    def __init__(self, setup: RankerSetup) -> None:
        self._setup = setup
        self._pooled: dict[tuple[str, int], list[Tensor]] = {
            (name, cut.index): [] for name, cuts in setup.cut_points.items() for cut in cuts if _known(cut)
        }
        self._logits: dict[str, list[Tensor]] = {name: [] for name in setup.cut_points}
        self._labels: list[Tensor] = []

    @staticmethod
    def work(setup: RankerSetup) -> float:
        """Multiply-accumulates that training the probes takes at most, roughly."""
        cuts = [cut for some in setup.cut_points.values() for cut in some]
        widths = sum(min(cut.layout.channels * (1 + cut.layout.prefix), setup.images // 2) for cut in cuts)
        return 2.0 * _ITERATIONS * setup.images * setup.classes * widths

    def update(self, batch: FeatureBatch) -> None:
        for (name, index), kept in self._pooled.items():
            kept.append(pooled(batch.features[name][index], self._setup.cut_points[name][index].layout))
        for name, logits in self._logits.items():
            logits.append(batch.logits[name].double())
        self._labels.append(batch.labels)

    def scores(self) -> PairScores:
        labels = torch.cat(self._labels)
        predicted = {
            key: predict_out_of_fold(torch.cat(kept), labels, self._setup.classes) for key, kept in self._pooled.items()
        }
        scores: PairScores = {}
        for front, back in self._setup.pairs:
            rows, columns = (self._indices(name) for name in (front, back))
            score = kl_scores(
                [predicted[front, index] for index in rows],
                [predicted[back, index] for index in columns],
                F.log_softmax(torch.cat(self._logits[back]), dim=1),
            )
            matrix = np.full((len(self._setup.cut_points[front]), len(self._setup.cut_points[back])), np.nan)
            matrix[np.ix_(rows, columns)] = score.cpu().numpy()
            scores[front, back] = matrix
        return scores

    def _indices(self, name: str) -> list[int]:
        return [cut.index for cut in self._setup.cut_points[name] if _known(cut)]


def _known(cut: CutPoint) -> bool:
    return cut.layout.kind != "unknown"


def pooled(features: Tensor, layout: Layout) -> Tensor:
    """Mean over the grid, with prefix tokens beside it: ``(n, channels * (1 + prefix))`` float32.

    A transformer keeps what it knows of the class in its class token, which its mean over patches does not hold.
    """
    mean = layout.to_grid(features).float().mean(dim=(2, 3))
    return torch.cat([mean, features[:, : layout.prefix].float().flatten(1)], dim=1) if layout.prefix else mean


def predict_out_of_fold(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Log-probabilities ``(n, classes)`` float64 of each image, by the probe that was fitted on the other half."""
    labels = labels.to(features.device)
    even = torch.arange(len(labels), device=features.device) % 2 == 0
    predicted = torch.empty(len(labels), classes, dtype=torch.float64, device=features.device)
    for fold in (even, ~even):
        mean, scale = features[~fold].mean(dim=0), features[~fold].std(dim=0, correction=0).clamp_min(1e-6)
        weight, bias = fit_probe(((features[~fold] - mean) / scale).double(), labels[~fold], classes)
        logits = ((features[fold] - mean) / scale).double() @ weight.T + bias
        predicted[fold] = F.log_softmax(logits, dim=1)
    return predicted


def fit_probe(
    features: Tensor, labels: Tensor, classes: int, *, iterations: int = _ITERATIONS, tolerance: float = _TOLERANCE
) -> tuple[Tensor, Tensor]:
    """Weight ``(classes, channels)`` and bias ``(classes,)`` that minimise cross-entropy + |weight|² / (2 n).

    The minimum of scikit-learn's ``LogisticRegression(C=1)``; convex, started from zero, so nothing is left to chance.
    Steps are Newton's with the Hessian's upper bound XᵀX / 2 in its place (Böhning 1992, Ann. Inst. Statist. Math.
    44(1)), which is factorised once and never overshoots, with Nesterov's momentum restarted where it points uphill.

    Args:
        features: ``(n, channels)`` float64.
        labels: int64 ``(n,)``.
        classes: How many there are, also where some have no image here.
        iterations: At most.
        tolerance: Of the largest entry of the gradient.
    """
    images, basis = len(features), None
    if features.shape[1] > images:  # the minimum lies in the span of the images
        basis = torch.linalg.svd(features, full_matrices=False).Vh
        features = features @ basis.T
    inputs = torch.cat([features, features.new_ones(images, 1)], dim=1)
    penalty = features.new_full((inputs.shape[1], 1), 1 / images)
    penalty[-1] = 0.0
    factor = torch.linalg.cholesky(inputs.T @ inputs / (2 * images) + penalty * torch.eye(len(penalty)).to(inputs))
    wanted = F.one_hot(labels, classes).to(inputs)
    current = ahead = features.new_zeros(inputs.shape[1], classes)
    momentum = 1.0
    for _ in range(iterations):
        gradient = inputs.T @ (torch.softmax(inputs @ ahead, dim=1) - wanted) / images + penalty * ahead
        if float(gradient.abs().max()) < tolerance:
            break
        moved = ahead - torch.cholesky_solve(gradient, factor)
        if float((gradient * (moved - current)).sum()) > 0:
            momentum = 1.0
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        current, ahead = moved, moved + (momentum - 1) / following * (moved - current)
        momentum = following
    weight = ahead[:-1] if basis is None else basis.T @ ahead[:-1]
    return weight.T, ahead[-1]


def mean_kl(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Mean over images of KL(first || second) of all pairs, from log-probabilities ``(n, classes)``: ``(F, S)``."""
    logs = torch.stack([log.flatten() for log in first])
    others = torch.stack([log.flatten() for log in second])
    probabilities = logs.exp()
    own = (probabilities * logs).sum(dim=1)
    return ((own[:, None] - probabilities @ others.T) / len(first[0])).clamp_min(0.0)


def kl_scores(front: Sequence[Tensor], back: Sequence[Tensor], output: Tensor) -> Tensor:
    """Scores ``(F, B)`` of front against back cut points in [0, 1], from log-probabilities ``(n, classes)`` of each.

    Args:
        front: Of the front's cut points.
        back: Of the back's cut points, in their order.
        output: Of the back anchor as a whole, which comes after its last cut point.
    """
    apart = mean_kl(front, back)
    steps = mean_kl(back, [*back, output])
    own = torch.empty(len(back), dtype=apart.dtype, device=apart.device)
    for cut in range(len(back)):
        later = steps[cut, cut + 1 :]
        changed = later[later > _SAME]
        own[cut] = changed[0] if len(changed) else 0.0
    apart = torch.where(apart > _SAME, apart, 0.0)
    return torch.where(apart == 0, 1.0, own / (own + apart))
