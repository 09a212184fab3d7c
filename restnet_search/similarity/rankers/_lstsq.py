"""Ranker ``lstsq``: R² of the closed-form linear stitch from the front's features to the back's.

The normal equations of all stitch points are streamed in float64 from one pass. All front cuts of an anchor, brought
to one grid, meet all back cuts that lie on this grid in one matrix product; each front cut's Gram matrix is factorised
once for all of them. The front's grid is resampled as the stitch layer does it; a 1x1 map and bilinear interpolation
commute, so interpolating first gives the same fit. The map is 1x1 also where a search trains 3x3 stitches: those would
need sums 81 times as large.

**Held out.** The map is fitted on every other image and scored on the rest, and the other way round; the score is the
mean of both R². On the images of the fit itself R² rises with the number of channels of the front alone and reaches 1
where there are as many channels as rows.

**Bounded.** Of a large grid only some places are taken, drawn anew for every few images and the same in front and back:
neighbouring places say much the same, and R² settles with far fewer rows than a grid has (16 of up to 256 places: the
same order of stitch points to a rank correlation of 0.999 on the demo). Where the sums of all pairs would take more
memory than allowed, front cuts are taken in turns, and the images are seen once per turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from restnet_search.graph.cut_points import CutPoint
from restnet_search.similarity.rankers._base import FeatureBatch, PairScores, Ranker, RankerSetup
from restnet_search.stitching.centered_solve import solve_centered
from restnet_search.stitching.layer import resample
from restnet_search.stitching.plan import StitchPlan, why_not_stitchable

__all__ = ["LstsqRanker"]

MEMORY = 2**30
"""Bytes that the sums of one turn may take."""

PLACES = 16
"""Places taken of a grid, per image."""

RIDGE = 1e-4
_CHUNK = 32  # images whose rows are held at once

Grid = tuple[int, int]


@dataclass(frozen=True)
class _Group:
    """Front cuts of one anchor against all back cuts, of the other anchors, that lie on one grid."""

    front: str
    grid: Grid
    sources: tuple[CutPoint, ...]
    targets: tuple[tuple[str, CutPoint], ...]

    @property
    def inputs(self) -> list[int]:
        return [cut.layout.channels for cut in self.sources]

    @property
    def outputs(self) -> list[int]:
        return [cut.layout.channels for _, cut in self.targets]


class LstsqRanker(Ranker):
    """Held-out R² of all stitch points; NaN where no stitch layer joins the layouts.

    Args:
        setup: Cut points and seed.
        places: Places taken of a grid, per image.
        memory: Bytes that the sums may take at once; a single front cut may take more.
    """

    def __init__(self, setup: RankerSetup, *, places: int = PLACES, memory: int = MEMORY) -> None:
        self._cuts, self._places, self._seed = setup.cut_points, places, setup.seed
        self._scores: PairScores = {
            (front, back): np.full((len(self._cuts[front]), len(self._cuts[back])), np.nan)
            for front, back in setup.pairs
        }
        self._turns = _turns(_groups(setup), memory)
        self._upsampling: dict[tuple[Grid, Grid], Tensor] = {}
        self._begin()

    @property
    def passes(self) -> int:
        return len(self._turns)

    def _begin(self) -> None:
        self._generator = torch.Generator().manual_seed(self._seed)
        turn = self._turns[0] if self._turns else []
        self._sums = [(group, (_Sums(group), _Sums(group))) for group in turn]
        self._seen = 0

    def update(self, batch: FeatureBatch) -> None:
        numbers = torch.arange(len(batch.labels))
        for fold in (0, 1):
            for rows in numbers[(numbers + self._seen) % 2 == fold].split(_CHUNK):
                self._add({name: [cut[rows] for cut in cuts] for name, cuts in batch.features.items()}, fold)
        self._seen += len(numbers)

    def _add(self, features: Mapping[str, Sequence[Tensor]], fold: int) -> None:
        places: dict[Grid, Tensor] = {}
        targets: dict[tuple[str, int], Tensor] = {}
        for group, folds in self._sums:
            if group.grid not in places:
                order = torch.randperm(group.grid[0] * group.grid[1], generator=self._generator)
                places[group.grid] = order[: self._places].sort().values
            chosen = places[group.grid]
            for name, cut in group.targets:
                if (name, cut.index) not in targets:
                    grid = cut.layout.to_grid(features[name][cut.index])
                    targets[name, cut.index] = _rows(grid.flatten(2)[:, :, chosen])
            x = [_rows(self._source(cut, group, features[group.front][cut.index], chosen)) for cut in group.sources]
            y = [targets[name, cut.index] for name, cut in group.targets]
            folds[fold].add(torch.cat(x, dim=1), torch.cat(y, dim=1))

    def _source(self, source: CutPoint, group: _Group, features: Tensor, places: Tensor) -> Tensor:
        """The front's features at places of the target's grid: ``(n, channels, places)``."""
        plan = StitchPlan("linear", source.layout, group.targets[0][1].layout)
        grid = resample(source.layout.to_grid(features), plan.before)
        if plan.after.mode == "none":
            return grid.flatten(2)[:, :, places]
        # Interpolation is linear: what it makes of each place of the small grid gives the rows at the chosen places
        # alone, without the large grid in between.
        height, width = grid.shape[-2:]
        if ((height, width), group.grid) not in self._upsampling:
            units = torch.eye(height * width, dtype=grid.dtype, device=grid.device).reshape(-1, 1, height, width)
            weights = F.interpolate(units, size=group.grid, mode="bilinear", align_corners=False).flatten(1)
            self._upsampling[(height, width), group.grid] = weights
        return grid.flatten(2) @ self._upsampling[(height, width), group.grid][:, places]

    def end_pass(self) -> None:
        for group, folds in self._sums:
            held_out = (_held_out_r2(*folds) + _held_out_r2(*folds[::-1])) / 2
            for source, row in zip(group.sources, held_out.tolist(), strict=True):
                for (back, cut), value in zip(group.targets, row, strict=True):
                    self._scores[group.front, back][source.index, cut.index] = value
        self._turns = self._turns[1:]
        self._begin()

    def scores(self) -> PairScores:
        return self._scores


class _Sums:
    """Second moments of one fold: of each front cut with itself, and of all front with all back cuts.

    Values are taken relative to the means of the first rows, so that the sums hold no large common part that centring
    would have to take off again.
    """

    def __init__(self, group: _Group) -> None:
        self.inputs, self.outputs, self.rows = group.inputs, group.outputs, 0
        width, height = sum(self.inputs), sum(self.outputs)
        self._from_x, self._from_y = (torch.zeros(size, dtype=torch.float64) for size in (width, height))
        self._x, self._y, self._yy = (torch.zeros(size, dtype=torch.float64) for size in (width, height, height))
        self._xx = [torch.zeros(size, size, dtype=torch.float64) for size in self.inputs]
        self._xy = torch.zeros(width, height, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows ``(rows, inputs)`` and ``(rows, outputs)``, float64; both are changed."""
        if self.rows == 0:
            self._move(x.device)
            self._from_x, self._from_y = x.mean(dim=0), y.mean(dim=0)
        x -= self._from_x
        y -= self._from_y
        for gram, part in zip(self._xx, x.split(self.inputs, dim=1), strict=True):
            gram.addmm_(part.T, part)
        self._xy.addmm_(x.T, y)
        self._yy += y.square().sum(dim=0)
        self._x += x.sum(dim=0)
        self._y += y.sum(dim=0)
        self.rows += len(x)

    def _move(self, device: torch.device) -> None:
        """Sum where the features lie."""
        self._x, self._y, self._yy, self._xy = (sums.to(device) for sums in (self._x, self._y, self._yy, self._xy))
        self._xx = [gram.to(device) for gram in self._xx]

    def means(self) -> tuple[Tensor, Tensor]:
        return self._from_x + self._x / self.rows, self._from_y + self._y / self.rows

    def centered(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Gram of one front cut ``(C, C)``, its products with all outputs ``(C, outputs)``, squares of the outputs."""
        rows = slice(sum(self.inputs[:index]), sum(self.inputs[: index + 1]))
        x, y = self._x[rows] / self.rows, self._y / self.rows
        gram = self._xx[index] - self.rows * torch.outer(x, x)
        return gram, self._xy[rows] - self.rows * torch.outer(x, y), self._yy - self.rows * y.square()


def _held_out_r2(fitted: _Sums, scored: _Sums) -> Tensor:
    """R² of every front cut's map, fitted on the one fold, on the other: ``(front cuts, back cuts)`` float64."""
    rows: list[Tensor] = []
    (fit_x, fit_y), (mean_x, mean_y) = fitted.means(), scored.means()
    for index, (own_fit, own) in enumerate(zip(fit_x.split(fitted.inputs), mean_x.split(fitted.inputs), strict=True)):
        gram, cross, _ = fitted.centered(index)
        weight = solve_centered(gram, cross, fitted.rows, RIDGE)
        gram, cross, total = scored.centered(index)
        offset = (mean_y - own @ weight) - (fit_y - own_fit @ weight)
        error = total + (weight * (gram @ weight - 2 * cross)).sum(dim=0) + scored.rows * offset.square()
        errors, totals = (torch.stack([part.sum() for part in v.split(fitted.outputs)]) for v in (error, total))
        # features that are the same for all images need no map at all
        rows.append(torch.where(totals > 0, 1 - errors / totals, 1.0))
    return torch.stack(rows)


def _rows(features: Tensor) -> Tensor:
    """``(n, channels, places)`` to rows ``(n * places, channels)`` in float64."""
    return features.mT.flatten(0, 1).double()


def _groups(setup: RankerSetup) -> list[_Group]:
    groups: list[_Group] = []
    for front, cuts in setup.cut_points.items():
        others = [(name, cut) for name, some in setup.cut_points.items() if name != front for cut in some]
        for grid in dict.fromkeys(cut.layout.grid for _, cut in others if cut.layout.kind != "unknown"):
            targets = tuple((name, cut) for name, cut in others if cut.layout.grid == grid and _known(cut))
            sources = tuple(cut for cut in cuts if why_not_stitchable(cut.layout, targets[0][1].layout) is None)
            groups += [_Group(front, grid or (1, 1), sources, targets)] * bool(sources)
    return groups


def _known(cut: CutPoint) -> bool:
    return cut.layout.kind != "unknown"


def _turns(groups: list[_Group], memory: int) -> list[list[_Group]]:
    """As many front cuts together as fit the memory, at least one."""
    turns: list[list[_Group]] = []
    room = 0
    for group in groups:
        taken: list[CutPoint] = []
        for cut in group.sources:
            channels = cut.layout.channels
            needed = 2 * 8 * channels * (channels + sum(group.outputs))
            if not turns or needed > room:
                if taken:
                    turns[-1].append(_Group(group.front, group.grid, tuple(taken), group.targets))
                turns, room, taken = [*turns, []], memory, []
            taken.append(cut)
            room -= needed
        turns[-1].append(_Group(group.front, group.grid, tuple(taken), group.targets))
    return turns
