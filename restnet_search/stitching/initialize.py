"""Closed-form start of stitch layers: least squares from the front's features to the back anchor's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from restnet_search.compute import device_of
from restnet_search.stitching.kinds import ClosedForm
from restnet_search.stitching.layer import StitchLayer
from restnet_search.stitching.least_squares import LeastSquaresFit, Moments, NormalEquations, products_for
from restnet_search.stitching.plan import StitchPlan

__all__ = ["SharedFit", "StitchFit", "fit_stitch", "input_signature"]


def fit_stitch(stitch: StitchLayer, pairs: Iterable[tuple[Tensor, Tensor]], *, ridge: float) -> float:
    """Set the stitch layer's weights to the least-squares map between features of the same images.

    Args:
        stitch: Changed in place.
        pairs: Batches of (front features, features of the back anchor at its cut point), images aligned.
        ridge: Ridge relative to the mean diagonal of the normal equations.

    Returns:
        R^2 of the fit on these images (variance explained, pooled over channels and positions).
    """
    fit = StitchFit(stitch, ridge)
    for source, target in pairs:
        fit.update(source, target)
    return fit.solve()


class StitchFit:
    """A fit as of :func:`fit_stitch`, batch by batch: for callers that fit several stitch layers in one pass."""

    def __init__(self, stitch: StitchLayer, ridge: float) -> None:
        self._fit = SharedFit([stitch], ridge)

    def update(self, source: Tensor, target: Tensor) -> None:
        """Add a batch: front features, and the features of the back anchor for the same images."""
        self._fit.update(source, [target])

    def solve(self) -> float:
        """Set the stitch layer's weights; return R^2."""
        return self._fit.solve()[0]

    def moments(self) -> Moments:
        """Return the moments of what the map reads and of what it is to give."""
        return self._fit.moments()


class SharedFit:
    """Fits of stitch layers that read the same front features in the same way, from one Gram matrix.

    Args:
        stitches: At least one, equal in :func:`input_signature`, on one device, where the sums are made, too;
            :meth:`solve` sets their weights.
        ridge: As in :func:`fit_stitch`.

    Raises:
        ValueError: If they read differently.
    """

    def __init__(self, stitches: Sequence[StitchLayer], ridge: float) -> None:
        plan = stitches[0].plan
        if len({input_signature(stitch.plan) for stitch in stitches}) != 1:
            raise ValueError("stitch layers that share a fit must read the front's features in the same way")
        self._stitches, self._ridge = stitches, ridge
        self._widths = [stitch.plan.target.channels for stitch in stitches]
        inputs, outputs = plan.source.channels * plan.kernel**2, sum(self._widths)
        device = device_of(stitches[0])
        self._equations = NormalEquations(inputs, outputs, device, products_for(ridge, inputs))
        self._prefixes = [_PrefixFit(stitch) for stitch in stitches]

    @torch.no_grad()
    def update(self, source: Tensor, targets: Sequence[Tensor]) -> None:
        """Add a batch: front features, and for each stitch layer the features that its back anchor has there."""
        first = self._stitches[0]
        plan = first.plan
        grid = first.grid_input(source)
        goals = [stitch.plan.target.to_grid(y) for stitch, y in zip(self._stitches, targets, strict=True)]
        if plan.after.mode == "bilinear":  # commutes with the 1x1 map: fit on the grid the back sees
            grid = F.interpolate(grid, size=plan.target_grid, mode="bilinear", align_corners=False)
        stacked = goals[0] if len(goals) == 1 else torch.cat(goals, dim=1)
        self._equations.update_conv(grid, stacked, plan.kernel, plan.stride, plan.kernel // 2)
        for prefix, target in zip(self._prefixes, targets, strict=True):
            prefix.update(source, target)

    @torch.no_grad()
    def solve(self) -> list[float]:
        """Set the weights of all stitch layers; return the R^2 of each."""
        for prefix in self._prefixes:
            prefix.solve(self._ridge)
        fits = cache(partial(self._equations.solve_parts, self._ridge, self._widths))
        r2: list[float] = []
        for number, (stitch, start) in enumerate(zip(self._stitches, accumulate([0, *self._widths]), strict=False)):
            equations = self._equations.part(start, self._widths[number])
            closed_form = ClosedForm(equations, self._ridge, partial(_one_of, fits, number))
            r2.append(stitch.plan.definition.initialize(stitch.branches, closed_form))
        return r2

    def moments(self) -> Moments:
        """Return the moments of what the maps read and of what all of them, one after another, are to give."""
        return self._equations.moments()


def input_signature(plan: StitchPlan) -> tuple[object, ...]:
    """Return what a stitch layer reads of the front's features; layers that agree in it can share a fit."""
    return plan.kind, plan.source, plan.kernel, plan.stride, plan.before, plan.after, plan.target_grid


def _one_of(fits: Callable[[], list[LeastSquaresFit]], number: int) -> LeastSquaresFit:
    return fits()[number]


class _PrefixFit:
    """The closed-form start of a stitch layer's prefix tokens; nothing where its target has none."""

    def __init__(self, stitch: StitchLayer) -> None:
        plan = stitch.plan
        self._stitch, self._images = stitch, 0
        source, target, device = plan.source.channels, plan.target.channels, device_of(stitch)
        self._map = NormalEquations(source, target, device) if plan.maps_prefix else None
        self._sum = torch.zeros(plan.target.prefix, target, dtype=torch.float64, device=device)

    def update(self, source: Tensor, target: Tensor) -> None:
        count = self._stitch.plan.target.prefix
        if not count:
            return
        tokens = target[:, :count]
        self._sum += tokens.double().sum(dim=0)
        self._images += len(tokens)
        if self._map is not None:
            self._map.update(self._stitch.prefix_input(source).flatten(0, 1), tokens.flatten(0, 1))

    def solve(self, ridge: float) -> None:
        if self._map is not None:
            fit = self._map.solve(ridge)
            self._stitch.prefix_map.weight.copy_(fit.weight)
            _bias(self._stitch.prefix_map).copy_(fit.bias)
        elif self._stitch.plan.target.prefix:
            self._stitch.prefix.copy_(self._sum / self._images)


def _bias(layer: torch.nn.Conv2d | torch.nn.Linear) -> Tensor:
    assert layer.bias is not None  # stitch layers are built with one
    return layer.bias
