"""Closed-form start of a stitch layer: least squares from the front's features to the back anchor's own."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from restnet_search.stitching.layer import StitchLayer
from restnet_search.stitching.least_squares import NormalEquations

__all__ = ["fit_stitch"]


@torch.no_grad()
def fit_stitch(stitch: StitchLayer, pairs: Iterable[tuple[Tensor, Tensor]], *, ridge: float) -> float:
    """Set the stitch layer's weights to the least-squares map between features of the same images.

    Args:
        stitch: Changed in place.
        pairs: Batches of (front features, features of the back anchor at its cut point), images aligned.
        ridge: Ridge relative to the mean diagonal of the normal equations.

    Returns:
        R^2 of the fit on these images (variance explained, pooled over channels and positions).
    """
    plan, conv = stitch.plan, stitch.map
    taps = plan.source.channels * plan.kernel**2
    equations = NormalEquations(taps, plan.target.channels)
    prefix = NormalEquations(plan.source.channels, plan.target.channels) if plan.maps_prefix else None
    prefix_sum, images = torch.zeros(plan.target.prefix, plan.target.channels, dtype=torch.float64), 0
    for source, target in pairs:
        grid, wanted = stitch.grid_input(source), plan.target.to_grid(target)
        if plan.after.mode == "bilinear":  # commutes with the 1x1 map: fit on the grid the back sees
            grid = F.interpolate(grid, size=plan.target_grid, mode="bilinear", align_corners=False)
        equations.update_conv(grid, wanted, plan.kernel, plan.stride, plan.kernel // 2)
        if plan.target.prefix:
            tokens = target[:, : plan.target.prefix]
            prefix_sum += tokens.double().sum(dim=0)
            images += len(tokens)
            if prefix is not None:
                prefix.update(stitch.prefix_input(source).flatten(0, 1), tokens.flatten(0, 1))
    fit = equations.solve(ridge)
    conv.weight.copy_(fit.weight.reshape(conv.weight.shape))
    _bias(conv).copy_(fit.bias)
    if prefix is not None:
        tokens_fit = prefix.solve(ridge)
        stitch.prefix_map.weight.copy_(tokens_fit.weight)
        _bias(stitch.prefix_map).copy_(tokens_fit.bias)
    elif plan.target.prefix:
        stitch.prefix.copy_(prefix_sum / images)
    return fit.r2


def _bias(layer: torch.nn.Conv2d | torch.nn.Linear) -> Tensor:
    assert layer.bias is not None  # stitch layers are built with one
    return layer.bias
