"""Rankers side by side before any training: plain frozen data, its JSON twin, a rich renderer and a PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from restnet_search.files import replacing
from restnet_search.reporting.phrases import SHORT_PATH, duration
from restnet_search.reporting.statistics import kendall, spearman
from restnet_search.units import CONVENTION, format_count

__all__ = ["Agreement", "RankedPoint", "Rankings", "render_rankings", "write_rankings_png"]

_PNG_KEY = (
    "bright: first in the ranker's order; dark: last; grey: no candidate; red dot: a front's first choice of partner"
)


@dataclass(frozen=True)
class RankedPoint:
    """A stitch point with its hybrid's MACs and what every ranker says of it (higher is better; scales differ)."""

    front: str
    front_cut: int
    front_path: str
    back: str
    back_cut: int
    back_path: str
    macs: float
    scores: Mapping[str, float]

    @property
    def network(self) -> str:
        """``cnn[..layer1.0] + vit[blocks.2..]``, with indices for long paths."""
        ends = ((self.front_path, self.front_cut), (self.back_path, self.back_cut))
        front, back = (path if 0 < len(path) <= SHORT_PATH else str(cut) for path, cut in ends)
        return f"{self.front}[..{front}] + {self.back}[{back}..]"


@dataclass(frozen=True)
class Agreement:
    """Two rankers over the same stitch points: rank correlations over all of them, and Spearman's within a front.

    ``within_front`` is the mean over fronts (front anchor, front cut, back anchor) with at least three partners;
    ``same_first`` the share of fronts with at least two in which both put the same partner first.
    """

    first: str
    second: str
    spearman: float | None
    kendall: float | None
    within_front: float | None
    same_first: float | None


@dataclass(frozen=True)
class Rankings:
    """What several rankers say of the stitch points of a space that are worth a trial."""

    space: str
    images: int
    seconds: Mapping[str, float]
    features_seconds: float
    points: tuple[RankedPoint, ...]

    @property
    def rankers(self) -> tuple[str, ...]:
        return tuple(self.seconds)

    def best(self, ranker: str, count: int) -> tuple[RankedPoint, ...]:
        """The first ``count`` stitch points of a ranker."""
        known = [point for point in self.points if ranker in point.scores]
        return tuple(sorted(known, key=lambda point: (-point.scores[ranker], point.macs))[:count])

    def agreements(self) -> tuple[Agreement, ...]:
        """Every two rankers."""
        return tuple(self._agreement(first, second) for first, second in combinations(self.rankers, 2))

    def _agreement(self, first: str, second: str) -> Agreement:
        known = [point for point in self.points if first in point.scores and second in point.scores]
        fronts: dict[tuple[str, int, str], list[tuple[float, float]]] = {}
        for point in known:
            pair = (point.scores[first], point.scores[second])
            fronts.setdefault((point.front, point.front_cut, point.back), []).append(pair)
        rows = [row for row in fronts.values() if len(row) > 1]
        inside = [value for row in rows if (value := spearman(*zip(*row, strict=True))) is not None]
        same = [max(row)[0] == max(row, key=lambda pair: (pair[1], pair[0]))[0] for row in rows]
        a, b = ([point.scores[name] for point in known] for name in (first, second))
        return Agreement(
            first,
            second,
            spearman(a, b),
            kendall(a, b),
            fmean(inside) if inside else None,
            fmean(same) if same else None,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "space": self.space,
            "images": self.images,
            "seconds": dict(self.seconds) | {"features": self.features_seconds},
            "points": [asdict(point) for point in self.points],
            "agreement": [asdict(agreement) for agreement in self.agreements()],
        }


def render_rankings(rankings: Rankings, top: int = 5) -> RenderableType:
    """The first ``top`` stitch points of every ranker, how far rankers agree, and what each took."""
    title = (
        f"{rankings.space}: {len(rankings.points):,} stitch points worth a trial, ranked on {rankings.images:,} "
        f"training images (features, shared: {duration(rankings.features_seconds)})"
    )
    blocks: list[RenderableType] = [Text(title, style="bold")]
    for ranker in rankings.rankers:
        blocks += [Text(), Text(f"{ranker}, {duration(rankings.seconds[ranker])}", style="bold")]
        blocks.append(_best(rankings, ranker, top))
    if len(rankings.rankers) > 1:
        blocks += [Text(), Text("Agreement", style="bold"), _agreement(rankings)]
    note = (
        "Scores of different rankers have different scales; only their order counts. tau: Kendall's. within front: "
        "mean Spearman over the partners of one front; same first: fronts in which both prefer the same partner."
    )
    return Group(*blocks, Text(note, style="dim"), Text(CONVENTION, style="dim"))


def _best(rankings: Rankings, ranker: str, top: int) -> Table:
    others = [name for name in rankings.rankers if name != ranker]
    table = _table("", "stitch point", "MACs", "score", *(f"in {name}" for name in others))
    places = {name: {_key(point): at for at, point in enumerate(rankings.best(name, len(rankings.points)), 1)}
              for name in others}  # fmt: skip
    for place, point in enumerate(rankings.best(ranker, top), start=1):
        elsewhere = (str(places[name].get(_key(point), "-")) for name in others)
        score = f"{point.scores[ranker]:.3f}"
        table.add_row(*map(Text, (str(place), point.network, format_count(point.macs), score, *elsewhere)))
    return table


def _key(point: RankedPoint) -> tuple[str, int, str, int]:
    return point.front, point.front_cut, point.back, point.back_cut


def _agreement(rankings: Rankings) -> Table:
    table = _table("", "rankers", "Spearman", "tau", "within front", "same first")
    for row in rankings.agreements():
        values = ("-" if v is None else f"{v:+.2f}" for v in (row.spearman, row.kendall, row.within_front))
        same = "-" if row.same_first is None else f"{100 * row.same_first:.0f} %"
        table.add_row(*map(Text, ("", f"{row.first}, {row.second}", *values, same)))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place == 1 else "right", overflow="fold", no_wrap=place != 1)
    return table


def write_rankings_png(rankings: Rankings, path: Path) -> Path:
    """Draw one heat map per direction (row) and ranker (column), in one step; returns the path.

    Colours are places in the ranker's order, for scales differ.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    directions = list(dict.fromkeys((point.front, point.back) for point in rankings.points))
    rankers = rankings.rankers
    figure = Figure(figsize=(1 + 3 * len(rankers), 0.8 + 2.6 * max(len(directions), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(max(len(directions), 1), len(rankers), squeeze=False)
    colours = colormaps["viridis"].with_extremes(bad="lightgray")
    for row, (front, back) in enumerate(directions):
        points = [point for point in rankings.points if (point.front, point.back) == (front, back)]
        fronts = sorted({point.front_cut for point in points})
        backs = sorted({point.back_cut for point in points})
        for column, ranker in enumerate(rankers):
            axes = grid[row][column]
            known = sorted((point for point in points if ranker in point.scores), key=lambda p: p.scores[ranker])
            values = [[math.nan] * len(backs) for _ in fronts]
            first: dict[int, int] = {}
            for place, point in enumerate(known):  # the best of each front comes last
                values[fronts.index(point.front_cut)][backs.index(point.back_cut)] = (place + 1) / len(known)
                first[fronts.index(point.front_cut)] = backs.index(point.back_cut)
            axes.imshow(values, cmap=colours, vmin=0, vmax=1, aspect="auto")
            axes.plot(list(first.values()), list(first.keys()), "r.", markersize=4)
            axes.set_xticks(range(len(backs)), map(str, backs), fontsize=6)
            axes.set_yticks(range(len(fronts)), map(str, fronts), fontsize=6)
            axes.set_title(f"{ranker}: {front} > {back}", fontsize=8)
            axes.set_xlabel(f"cut point of {back}", fontsize=7)
            axes.set_ylabel(f"cut point of {front}", fontsize=7)
    figure.supxlabel(_PNG_KEY, fontsize=7)
    with replacing(path) as draft:
        figure.savefig(draft, format="png", dpi=120)
    return path
