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
from restnet_search.stitching.rows import patches_of

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
        self._means = _PlaceMeans() if plan.has_positions else None

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
        if self._means is not None:
            self._means.update(grid, stacked)
        for prefix, target in zip(self._prefixes, targets, strict=True):
            prefix.update(source, target)

    @torch.no_grad()
    def solve(self) -> list[float]:
        """Set the weights of all stitch layers; return the R^2 of each."""
        for prefix in self._prefixes:
            prefix.solve(self._ridge)
        equations = self._equations if self._means is None else self._means.within(self._equations, self._stitches[0])
        fits = cache(partial(equations.solve_parts, self._ridge, self._widths))
        r2: list[float] = []
        for number, (stitch, start) in enumerate(zip(self._stitches, accumulate([0, *self._widths]), strict=False)):
            part = equations.part(start, self._widths[number])
            one, rescale = partial(_one_of, fits, number), "scale" in stitch.plan.terms
            explained = stitch.plan.definition.initialize(
                stitch.branches, ClosedForm(part, self._ridge, one, rescale=rescale)
            )
            if self._means is not None:
                self._means.set_positions(stitch, start)
                whole = self._equations.part(start, self._widths[number]).deviation
                explained = 1 - (1 - explained) * part.deviation / whole if whole > 0 else 1.0
            r2.append(explained)
        return r2

    def moments(self) -> Moments:
        """Return the moments of what the maps read and of what all of them, one after another, are to give."""
        return self._equations.moments()


def input_signature(plan: StitchPlan) -> tuple[object, ...]:
    """Return what a stitch layer reads of the front's features; layers that agree in it can share a fit."""
    read = plan.source, plan.kernel, plan.stride, plan.before, plan.after, plan.target_grid
    return plan.kind, *read, plan.has_positions


def _one_of(fits: Callable[[], list[LeastSquaresFit]], number: int) -> LeastSquaresFit:
    return fits()[number]


class _PlaceMeans:
    """Means over images of what stitch layers read and are to give, place by place; float64."""

    def __init__(self) -> None:
        self._images, self._sums = 0, (torch.zeros(()), torch.zeros(()))

    def update(self, grid: Tensor, goals: Tensor) -> None:
        """Add ``(B, C, h, w)`` as the map reads it, and ``(B, D, h', w')``, of all layers one after another."""
        sums = (values.double().sum(dim=0) for values in (grid, goals))
        first, second = self._sums
        self._sums = first.to(grid.device) + next(sums), second.to(grid.device) + next(sums)
        self._images += len(grid)

    def _mean(self) -> tuple[Tensor, Tensor]:
        read, goals = self._sums
        return read / self._images, goals / self._images

    def within(self, equations: NormalEquations, stitch: StitchLayer) -> NormalEquations:
        """Return the equations of maps beside which each place has an offset of its own."""
        (read, goals), plan = self._mean(), stitch.plan
        (patches,) = patches_of(read[None], plan.kernel, plan.stride, plan.kernel // 2)  # of the mean: mean of patches
        return equations.within_places(patches, goals.flatten(1))

    def set_positions(self, stitch: StitchLayer, start: int) -> None:
        """Set the offsets so that the layer gives every place the mean that the back expects there."""
        read, goals = self._mean()
        wanted = goals[start : start + stitch.plan.target.channels]
        stitch.positions.copy_(wanted - stitch.mapped(read[None].to(stitch.positions.dtype))[0])


class _PrefixFit:
    """The closed-form start of a stitch layer's prefix tokens; nothing where its target has none."""

    def __init__(self, stitch: StitchLayer) -> None:
        plan = stitch.plan
        self._stitch, self._images = stitch, 0
        source, target, device = plan.source.channels, plan.target.channels, device_of(stitch)
        self._map = NormalEquations(source, target, device) if plan.maps_prefix else None
        self._pool = NormalEquations(source, plan.target.prefix * target, device) if plan.pools_prefix else None
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
        elif self._pool is not None:
            self._pool.update(self._stitch.grid_input(source).mean(dim=(2, 3)), tokens.flatten(1))

    def solve(self, ridge: float) -> None:
        if self._map is not None:
            fit = self._map.solve(ridge)
            self._stitch.prefix_map.weight.copy_(fit.weight)
            _bias(self._stitch.prefix_map).copy_(fit.bias)
        elif self._pool is not None:
            # a row per image, not per place: few rows for the inputs of a wide front, which the ridge has to hold
            fit = self._pool.solve(max(ridge, self._pool.inputs / self._pool.rows))
            self._stitch.prefix_pool.weight.copy_(fit.weight)
            _bias(self._stitch.prefix_pool).copy_(fit.bias)
        elif self._stitch.plan.target.prefix:
            self._stitch.prefix.copy_(self._sum / self._images)


def _bias(layer: torch.nn.Conv2d | torch.nn.Linear) -> Tensor:
    assert layer.bias is not None  # stitch layers are built with one
    return layer.bias
