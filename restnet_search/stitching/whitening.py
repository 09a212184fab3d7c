"""Coordinates in which the inputs of a stitch layer are white, so that gradients move all directions equally fast.

Features of a front are far from white: neighboring places and channels agree, and a few directions hold most of the
variance. A step of one length in every weight then moves the layer's outputs far in some directions and hardly in
others, and the rate that the first can bear is too small for the rest. The least squares that starts the layer has the
covariance of its inputs, so nothing more has to be measured.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from restnet_search.stitching.least_squares import Moments

__all__ = ["WhitenedLayer"]

_DAMPING = 1e-2
"""Added to the covariance, relative to its mean variance: directions below it are not stretched any further."""

_MOST_INPUTS = 2048
"""Inputs whose covariance is whitened as a whole; of more, only their scale is evened out."""


class WhitenedLayer:
    """The weight W and bias b of a layer as W0 + s V P and b0 + s β - s V P m, of which V and β are what learns.

    P is the inverse root of the inputs' damped covariance (ZCA), m their mean, s the spread of the outputs. So each row
    of V moves its output by its length, in standard deviations, whichever way it points; this is the input factor of
    Kronecker-factored curvature (Martens and Grosse 2015, arXiv 1503.05671, section 3) in place of the weights' own
    coordinates, and needs no inverse in training. V and β start at zero.

    Args:
        layer: Linear or a convolution, with a bias; changed in place by :meth:`push`.
        moments: Of its inputs and outputs.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, moments: Moments) -> None:
        assert layer.bias is not None
        self.weight, self.bias = layer.weight, layer.bias
        like = {"dtype": torch.float32, "device": layer.weight.device}
        rows, columns = layer.weight.shape[0], layer.weight[0].numel()
        self._root = _inverse_root(moments.covariance).to(**like)
        self._mean, self._spread = moments.mean.to(**like), _positive(moments.spread).to(**like)[:, None]
        self._start = self.weight.detach().flatten(1).clone(), self.bias.detach().clone()
        self.parameters = [nn.Parameter(torch.zeros(rows, columns, **like)), nn.Parameter(torch.zeros(rows, **like))]

    @torch.no_grad()
    def pull(self) -> None:
        """Set the gradients of V and β by those of the layer's weight and bias; nothing where these have none."""
        deltas, shifts = self.parameters
        if self.weight.grad is None or self.bias.grad is None:
            deltas.grad = shifts.grad = None
            return
        centered = self.weight.grad.flatten(1) - torch.outer(self.bias.grad, self._mean)
        deltas.grad = self._spread * self._rooted(centered)
        shifts.grad = self._spread[:, 0] * self.bias.grad

    @torch.no_grad()
    def push(self) -> None:
        """Set the layer's weight and bias by V and β."""
        deltas, shifts = self.parameters
        weight, bias = self._start
        change = self._spread * self._rooted(deltas)
        self.weight.copy_((weight + change).view_as(self.weight))
        self.bias.copy_(bias + self._spread[:, 0] * shifts - change @ self._mean)

    def _rooted(self, rows: Tensor) -> Tensor:
        return rows @ self._root if self._root.ndim == 2 else rows * self._root


def _inverse_root(covariance: Tensor) -> Tensor:
    """Return the inverse square root of a damped covariance; of a large one, that of its diagonal ``(inputs,)``."""
    variances = covariance.diagonal()
    damping = _DAMPING * variances.mean().clamp_min(torch.finfo(torch.float64).tiny)
    if len(covariance) > _MOST_INPUTS:
        return (variances + damping).rsqrt()
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * (values.clamp_min(0) + damping).rsqrt()) @ vectors.T


def _positive(spread: Tensor) -> Tensor:
    """Give outputs that never change the mean spread, so that they can learn."""
    mean = spread.mean()
    return torch.where(spread > 0, spread, mean if mean > 0 else torch.ones_like(mean))
