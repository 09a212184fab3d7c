"""The stitch layer and the hybrid: the modules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restnet_search.space.schema import StitchTerm
from restnet_search.stitching.kinds import draw_weights
from restnet_search.stitching.plan import Resample, StitchPlan, divides

__all__ = ["Hybrid", "StitchLayer", "resample", "terms_of"]


class StitchLayer(nn.Module):
    """Maps a front's features to what a back expects; see :class:`~restnet_search.stitching.plan.StitchPlan`.

    Weights start as the kind of the plan says, drawn from ``generator``.
    """

    def __init__(self, plan: StitchPlan, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.plan = plan
        branches = plan.definition.build(plan.shape)
        self._branches = tuple(branches)
        for name, branch in branches.items():
            self.add_module(name, branch)
        if plan.maps_prefix:
            self.prefix_map = nn.Linear(plan.source.channels, plan.target.channels)
        elif plan.pools_prefix:
            self.prefix_pool = nn.Linear(plan.source.channels, plan.target.prefix * plan.target.channels)
        elif plan.target.prefix:
            self.prefix = nn.Parameter(torch.zeros(plan.target.prefix, plan.target.channels))
        if plan.has_positions:
            self.positions = nn.Parameter(torch.zeros(plan.target.channels, *plan.target_grid))
        plan.definition.start(branches, generator)
        if plan.maps_prefix:
            draw_weights(self.prefix_map, generator)
        elif plan.pools_prefix:
            draw_weights(self.prefix_pool, generator)

    @property
    def branches(self) -> dict[str, nn.Module]:
        """The branches of the map by name; their outputs are added up."""
        return {name: self.get_submodule(name) for name in self._branches}

    def grid_input(self, features: Tensor) -> Tensor:
        """Bring front features to the grid ``(B, C_source, h, w)`` that the map reads."""
        return resample(self.plan.source.to_grid(features), self.plan.before)

    def prefix_input(self, features: Tensor) -> Tensor:
        """Return a source prefix token for each of the target's, the last one repeated: ``(B, prefix, C_source)``."""
        last = self.plan.source.prefix - 1
        return features[:, [min(index, last) for index in range(self.plan.target.prefix)]]

    def mapped(self, read: Tensor) -> Tensor:
        """Map what :meth:`grid_input` gave: the sum of all branches."""
        first, *others = self.branches.values()
        grid = first(read)
        for branch in others:
            grid = grid + branch(read)
        return grid

    def forward(self, features: Tensor) -> Tensor:
        read = self.grid_input(features)
        grid = resample(self.mapped(read), self.plan.after)
        if self.plan.has_positions:
            grid = grid + self.positions
        tokens = self.plan.target.from_grid(grid)
        if not self.plan.target.prefix:
            return tokens
        if self.plan.maps_prefix:
            prefix = self.prefix_map(self.prefix_input(features))
        elif self.plan.pools_prefix:
            pooled = self.prefix_pool(read.mean(dim=(2, 3)))
            prefix = pooled.reshape(-1, self.plan.target.prefix, self.plan.target.channels)
        else:
            prefix = self.prefix.expand(tokens.shape[0], -1, -1)
        return torch.cat([prefix, tokens], dim=1)


def terms_of(tensors: Iterable[str]) -> tuple[StitchTerm, ...]:
    """Return the terms that a layer must have whose state dict has these names; ``scale`` leaves no trace in it."""
    names = set(tensors)
    traces: dict[StitchTerm, str] = {"positions": "positions", "prefix": "prefix_pool.weight"}
    return tuple(term for term, name in traces.items() if name in names)


class Hybrid(nn.Module):
    """Front + stitch layer + back: images ``(B, C, H, W)`` to logits ``(B, classes)``.

    Front and back stay in eval mode whatever is asked, so that training the stitch layer moves no batch-norm
    statistics; their parameters have no gradients.
    """

    def __init__(self, front: nn.Module, stitch: StitchLayer, back: nn.Module) -> None:
        super().__init__()
        self.front, self.stitch, self.back = front, stitch, back
        for part in (front, back):
            part.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.front.eval()
        self.back.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.back(self.stitch(self.front(x)))


def resample(grid: Tensor, to: Resample) -> Tensor:
    """Bring ``(B, C, H, W)`` to another grid; every value is a weighted mean of its channel (the weights sum to 1)."""
    if to.mode == "none":
        return grid
    if to.mode == "bilinear":
        return F.interpolate(grid, size=to.grid, mode="bilinear", align_corners=False)
    height, width = grid.shape[-2:]
    if divides(to.grid, (height, width)):
        return F.avg_pool2d(grid, (height // to.grid[0], width // to.grid[1]))
    return F.adaptive_avg_pool2d(grid, to.grid)
