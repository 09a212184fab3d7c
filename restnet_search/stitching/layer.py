"""The stitch layer and the hybrid: the modules."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restnet_search.stitching.kinds import draw_weights
from restnet_search.stitching.plan import Resample, StitchPlan, divides

__all__ = ["Hybrid", "StitchLayer", "resample"]


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
        elif plan.target.prefix:
            self.prefix = nn.Parameter(torch.zeros(plan.target.prefix, plan.target.channels))
        plan.definition.start(branches, generator)
        if plan.maps_prefix:
            draw_weights(self.prefix_map, generator)

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

    def forward(self, features: Tensor) -> Tensor:
        read = self.grid_input(features)
        first, *others = self.branches.values()
        grid = first(read)
        for branch in others:
            grid = grid + branch(read)
        mapped = self.plan.target.from_grid(resample(grid, self.plan.after))
        if not self.plan.target.prefix:
            return mapped
        if self.plan.maps_prefix:
            prefix = self.prefix_map(self.prefix_input(features))
        else:
            prefix = self.prefix.expand(mapped.shape[0], -1, -1)
        return torch.cat([prefix, mapped], dim=1)


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
