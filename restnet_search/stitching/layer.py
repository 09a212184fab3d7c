"""The stitch layer and the hybrid: the modules."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restnet_search.stitching.plan import Resample, StitchPlan, divides

__all__ = ["Hybrid", "StitchLayer", "resample"]


class StitchLayer(nn.Module):
    """Maps a front's features to what a back expects; see :class:`~restnet_search.stitching.plan.StitchPlan`.

    Weights start as those of ``nn.Conv2d`` and ``nn.Linear`` do, drawn from ``generator``.
    """

    def __init__(self, plan: StitchPlan, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.plan = plan
        source, target = plan.source.channels, plan.target.channels
        if plan.kind == "lowrank":
            self.map = nn.Sequential(nn.Conv2d(source, plan.hidden, 1, bias=False), nn.Conv2d(plan.hidden, target, 1))
        else:
            self.map = nn.Conv2d(source, target, plan.kernel, stride=plan.stride, padding=plan.kernel // 2)
        if plan.kind == "mlp":
            self.mlp = nn.Sequential(nn.Conv2d(source, plan.hidden, 1), nn.GELU(), nn.Conv2d(plan.hidden, target, 1))
        if plan.maps_prefix:
            self.prefix_map = nn.Linear(source, target)
        elif plan.target.prefix:
            self.prefix = nn.Parameter(torch.zeros(plan.target.prefix, target))
        _draw(self, generator)
        if plan.kind == "mlp":  # the hidden layer adds nothing until it has learned something
            nn.init.zeros_(self.mlp[2].weight)  # pyright: ignore[reportArgumentType]
            nn.init.zeros_(self.mlp[2].bias)  # pyright: ignore[reportArgumentType]

    def grid_input(self, features: Tensor) -> Tensor:
        """Front features to the grid ``(B, C_source, h, w)`` that the map reads."""
        return resample(self.plan.source.to_grid(features), self.plan.before)

    def prefix_input(self, features: Tensor) -> Tensor:
        """Source prefix tokens ``(B, target prefix, C_source)``, one for each of the target's; the last one repeats."""
        last = self.plan.source.prefix - 1
        return features[:, [min(index, last) for index in range(self.plan.target.prefix)]]

    def forward(self, features: Tensor) -> Tensor:
        read = self.grid_input(features)
        grid = self.map(read) + self.mlp(read) if self.plan.kind == "mlp" else self.map(read)
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


def _draw(module: nn.Module, generator: torch.Generator | None) -> None:
    """Draw the weights as torch's layers draw theirs (uniform within 1 / sqrt(fan in)), from the given generator."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound = layer.weight[0].numel() ** -0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            if layer.bias is not None:
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
