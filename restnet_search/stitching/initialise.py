"""Closed-form start of a stitch layer: least squares from the front's features to the back anchor's own."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from restnet_search.stitching.layer import StitchLayer
from restnet_search.stitching.least_squares import LeastSquaresFit, NormalEquations

__all__ = ["StitchFit", "fit_stitch"]


def fit_stitch(stitch: StitchLayer, pairs: Iterable[tuple[Tensor, Tensor]], *, ridge: float) -> float:
    """Set the stitch layer's weights to the least-squares map between features of the same images.

    Args:
        stitch: Changed in place.
        pairs: Batches of (front features, features of the back anchor at its cut point), images aligned.
        ridge: Ridge relative to the mean diagonal of the normal equations.

    Returns:
        R^2 of the fit on these images (variance explained, pooled over channels and positions).
    """
    fit = StitchFit(stitch)
    for source, target in pairs:
        fit.update(source, target)
    return fit.solve(ridge)


class StitchFit:
    """The fit of :func:`fit_stitch`, batch by batch: for callers that fit several stitch layers in one pass."""

    def __init__(self, stitch: StitchLayer) -> None:
        plan = stitch.plan
        self._stitch = stitch
        self._equations = NormalEquations(plan.source.channels * plan.kernel**2, plan.target.channels)
        self._prefix = NormalEquations(plan.source.channels, plan.target.channels) if plan.maps_prefix else None
        self._prefix_sum = torch.zeros(plan.target.prefix, plan.target.channels, dtype=torch.float64)
        self._images = 0

    @torch.no_grad()
    def update(self, source: Tensor, target: Tensor) -> None:
        """Add a batch: front features, and the features of the back anchor for the same images."""
        stitch, plan = self._stitch, self._stitch.plan
        grid, wanted = stitch.grid_input(source), plan.target.to_grid(target)
        if plan.after.mode == "bilinear":  # commutes with the 1x1 map: fit on the grid the back sees
            grid = F.interpolate(grid, size=plan.target_grid, mode="bilinear", align_corners=False)
        self._equations.update_conv(grid, wanted, plan.kernel, plan.stride, plan.kernel // 2)
        if plan.target.prefix:
            tokens = target[:, : plan.target.prefix]
            self._prefix_sum += tokens.double().sum(dim=0)
            self._images += len(tokens)
            if self._prefix is not None:
                self._prefix.update(stitch.prefix_input(source).flatten(0, 1), tokens.flatten(0, 1))

    @torch.no_grad()
    def solve(self, ridge: float) -> float:
        """Set the stitch layer's weights; returns R^2."""
        stitch = self._stitch
        fit = _set_map(stitch, self._equations, ridge)
        if self._prefix is not None:
            tokens_fit = self._prefix.solve(ridge)
            stitch.prefix_map.weight.copy_(tokens_fit.weight)
            _bias(stitch.prefix_map).copy_(tokens_fit.bias)
        elif stitch.plan.target.prefix:
            stitch.prefix.copy_(self._prefix_sum / self._images)
        return fit.r2


def _set_map(stitch: StitchLayer, equations: NormalEquations, ridge: float) -> LeastSquaresFit:
    if isinstance(stitch.map, torch.nn.Conv2d):
        fit = equations.solve(ridge)
        stitch.map.weight.copy_(fit.weight.reshape(stitch.map.weight.shape))
        _bias(stitch.map).copy_(fit.bias)
        return fit
    inner, outer = stitch.map
    assert isinstance(inner, torch.nn.Conv2d) and isinstance(outer, torch.nn.Conv2d)
    fit, left, right = equations.solve_rank(ridge, stitch.plan.hidden)
    inner.weight.copy_(right.reshape(inner.weight.shape))
    outer.weight.copy_(left.reshape(outer.weight.shape))
    _bias(outer).copy_(fit.bias)
    return fit


def _bias(layer: torch.nn.Conv2d | torch.nn.Linear) -> Tensor:
    assert layer.bias is not None  # stitch layers are built with one
    return layer.bias
