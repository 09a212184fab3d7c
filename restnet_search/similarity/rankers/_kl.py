"""Ranker ``kl``: how far the classes that front and back predict at their cut points lie apart (KLAS).

**The formula** (KLAS, arXiv 2605.29259). After every block of an anchor, that is at each of its cut points, a linear
probe on pooled features gives a distribution over the classes for each image, P_c(x). It is trained on the training
images of the search; divergences are means over its val images x::

    Theta(f_i, g_j) = mean_x KL( P_f,i(x) || P_g,j(x) )
    Gamma(i, j)     = Theta(f_i, g_j) / Theta(g_j, g_{j+1})

Gamma relates what the stitch layer must bridge to what the back's own next block changes; KLAS prefers low values. As
scores are higher where they are better, the score is -Gamma: this is the only place where the sign is turned.

**Readings of this program**, where the paper says nothing or was made for other networks: both orders are scored (KLAS
stitches small to large alone; Gamma differs, as the divergence is not symmetric and the denominator belongs to the
back). The block after the last cut point is the rest of the anchor, whose predictions are its own logits. A next cut
point that sees the same pooled features (global pooling lies between) is passed over: the denominator would be zero
without any block. Features are averaged over the grid, with prefix tokens set beside them.

**Probes** are multinomial logistic regressions on standardised features with an L2 penalty (that of scikit-learn's
``C=1``), trained until their gradient is gone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from restnet_search.graph.cut_points import CutPoint
from restnet_search.graph.layout import Layout
from restnet_search.similarity.rankers._base import FeatureBatch, PairScores, Ranker, RankerSetup

__all__ = ["KlRanker", "fit_probe", "gamma", "mean_kl", "pooled", "predict"]

_ITERATIONS = 500
_TOLERANCE = 1e-5  # of the gradient's largest entry
_SAME = 1e-9  # mean divergence below which two cut points see the same


class KlRanker(Ranker):
    """Keeps the pooled features of all cut points, ``(images, channels)`` each, and trains a probe per cut point."""

    learns = True

    def __init__(self, setup: RankerSetup) -> None:
        self._setup = setup
        self._train, self._val = _Seen.none(setup), _Seen.none(setup)

    @staticmethod
    def work(setup: RankerSetup, images: int) -> float:
        """Multiply-accumulates that training the probes on so many images takes at most, roughly."""
        cuts = [cut for some in setup.cut_points.values() for cut in some]
        widths = sum(min(cut.layout.channels * (1 + cut.layout.prefix), images) for cut in cuts)
        return 2.0 * _ITERATIONS * images * setup.classes * widths

    def update(self, batch: FeatureBatch) -> None:
        self._train.add(batch, self._setup)

    def update_val(self, batch: FeatureBatch) -> None:
        self._val.add(batch, self._setup)

    def predictions(self) -> dict[tuple[str, int], Tensor]:
        """Log-probabilities ``(val images, classes)`` of the probe at every cut point, by anchor and index.

        Raises:
            ValueError: If no training images or no val images were shown.
        """
        if not self._train.labels or not self._val.labels:
            raise ValueError(
                "the ranker kl trains its probes on training images and asks them on val images; show both"
            )
        labels = torch.cat(self._train.labels)
        return {
            key: predict(torch.cat(kept), labels, torch.cat(self._val.pooled[key]), self._setup.classes)
            for key, kept in self._train.pooled.items()
        }

    def scores(self) -> PairScores:
        """Return -Gamma.

        Raises:
            ValueError: As :meth:`predictions`.
        """
        predicted = self.predictions()
        scores: PairScores = {}
        for front, back in self._setup.pairs:
            rows, columns = (self._indices(name) for name in (front, back))
            distance = gamma(
                [predicted[front, index] for index in rows],
                [predicted[back, index] for index in columns],
                F.log_softmax(torch.cat(self._val.logits[back]), dim=1),
            )
            matrix = np.full((len(self._setup.cut_points[front]), len(self._setup.cut_points[back])), np.nan)
            matrix[np.ix_(rows, columns)] = -distance.cpu().numpy()
            scores[front, back] = matrix
        return scores

    def _indices(self, name: str) -> list[int]:
        return [cut.index for cut in self._setup.cut_points[name] if _known(cut)]


@dataclass(frozen=True)
class _Seen:
    """Pooled features, logits and labels of the images of a split, batch by batch.

    Attributes:
        pooled: Features of every cut point with a known layout, by anchor and index.
        logits: Of every anchor, float64.
        labels: Of the images.
    """

    pooled: Mapping[tuple[str, int], list[Tensor]]
    logits: Mapping[str, list[Tensor]]
    labels: list[Tensor]

    @classmethod
    def none(cls, setup: RankerSetup) -> _Seen:
        known = {(name, cut.index) for name, cuts in setup.cut_points.items() for cut in cuts if _known(cut)}
        return cls({key: [] for key in sorted(known)}, {name: [] for name in setup.cut_points}, [])

    def add(self, batch: FeatureBatch, setup: RankerSetup) -> None:
        for (name, index), kept in self.pooled.items():
            kept.append(pooled(batch.features[name][index], setup.cut_points[name][index].layout))
        for name, logits in self.logits.items():
            logits.append(batch.logits[name].double())
        self.labels.append(batch.labels)


def _known(cut: CutPoint) -> bool:
    return cut.layout.kind != "unknown"


def pooled(features: Tensor, layout: Layout) -> Tensor:
    """Mean over the grid, with prefix tokens beside it: ``(n, channels * (1 + prefix))`` float32.

    A transformer keeps what it knows of the class in its class token, which its mean over patches does not hold.
    """
    mean = layout.to_grid(features).float().mean(dim=(2, 3))
    return torch.cat([mean, features[:, : layout.prefix].float().flatten(1)], dim=1) if layout.prefix else mean


def predict(train: Tensor, labels: Tensor, val: Tensor, classes: int) -> Tensor:
    """Log-probabilities ``(m, classes)`` float64 of val images, by a probe trained on training images.

    Args:
        train: Pooled features ``(n, channels)``.
        labels: int64 ``(n,)``, of the training images.
        val: Pooled features ``(m, channels)``.
        classes: How many there are.
    """
    mean, scale = train.mean(dim=0), train.std(dim=0, correction=0).clamp_min(1e-6)
    weight, bias = fit_probe(((train - mean) / scale).double(), labels.to(train.device), classes)
    return F.log_softmax(((val - mean) / scale).double() @ weight.T + bias, dim=1)


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


def gamma(front: Sequence[Tensor], back: Sequence[Tensor], output: Tensor) -> Tensor:
    """KLAS's Gamma ``(F, B)`` of front against back cut points, from log-probabilities ``(n, classes)`` of each.

    0 where front and back predict the same; lower is better.

    Args:
        front: Of the front's cut points.
        back: Of the back's cut points, in their order.
        output: Of the back anchor as a whole, which comes after its last cut point.
    """
    apart = mean_kl(front, back)
    steps = mean_kl(back, [*back, output])
    own = torch.full((len(back),), _SAME, dtype=apart.dtype, device=apart.device)  # nothing changes any more
    for cut in range(len(back)):
        later = steps[cut, cut + 1 :]
        changed = later[later > _SAME]
        own[cut] = changed[0] if len(changed) else own[cut]
    return torch.where(apart > _SAME, apart, 0.0) / own
