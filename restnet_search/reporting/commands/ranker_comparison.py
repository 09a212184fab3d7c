"""Rankers side by side before any training, as ``restnet-search rank`` prints them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from restnet_search.reporting.assemble.statistics import kendall, spearman
from restnet_search.reporting.blocks import Column, literal, number_column, table, text_column
from restnet_search.reporting.phrases import cut_name
from restnet_search.search.run.records import Part, network_name
from restnet_search.units import CONVENTION, format_count, format_duration

__all__ = ["Agreement", "RankedPoint", "Rankings", "render_rankings"]


@dataclass(frozen=True)
class RankedPoint:
    """A stitch point with its hybrid's MACs and what every ranker says of it (higher is better; scales differ)."""

    front: Part
    back: Part
    macs: float
    scores: Mapping[str, float]

    @property
    def network(self) -> str:
        """``cnn[..layer1.0] + vit[blocks.2..]``, with indices for long paths."""
        end, start = (cut_name(side.path, side.cut) for side in (self.front, self.back))
        return network_name(self.front.anchor, end, self.back.anchor, start)

    def to_json(self) -> dict[str, Any]:
        sides = {"front": self.front, "back": self.back}
        flat = {
            name: {name: side.anchor, f"{name}_cut": side.cut, f"{name}_path": side.path}
            for name, side in sides.items()
        }
        return flat["front"] | flat["back"] | {"macs": self.macs, "scores": dict(self.scores)}


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
    """The scores of several rankers for the stitch points of a space that are worth a trial."""

    space: str
    images: int
    seconds: Mapping[str, float]
    features_seconds: float
    points: tuple[RankedPoint, ...]

    @property
    def rankers(self) -> tuple[str, ...]:
        return tuple(self.seconds)

    def best(self, ranker: str, count: int) -> tuple[RankedPoint, ...]:
        """Return the first ``count`` stitch points of a ranker."""
        known = [point for point in self.points if ranker in point.scores]
        return tuple(sorted(known, key=lambda point: (-point.scores[ranker], point.macs))[:count])

    def agreements(self) -> tuple[Agreement, ...]:
        """Compare every two rankers."""
        return tuple(self._agreement(first, second) for first, second in combinations(self.rankers, 2))

    def _agreement(self, first: str, second: str) -> Agreement:
        known = [point for point in self.points if first in point.scores and second in point.scores]
        fronts: dict[tuple[Part, str], list[tuple[float, float]]] = {}
        for point in known:
            pair = (point.scores[first], point.scores[second])
            fronts.setdefault((point.front, point.back.anchor), []).append(pair)
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
            "points": [point.to_json() for point in self.points],
            "agreement": [asdict(agreement) for agreement in self.agreements()],
        }


def render_rankings(rankings: Rankings, top: int = 5) -> RenderableType:
    """Return the first ``top`` stitch points of every ranker, how far rankers agree, and what each took."""
    title = (
        f"{rankings.space}: {len(rankings.points):,} stitch points worth a trial, ranked on {rankings.images:,} "
        f"training images (features, shared: {format_duration(rankings.features_seconds)})"
    )
    blocks: list[RenderableType] = [Text(title, style="bold")]
    for ranker in rankings.rankers:
        blocks += [Text(), Text(f"{ranker}, {format_duration(rankings.seconds[ranker])}", style="bold")]
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
    grid = table(*_columns("", "stitch point", "MACs", "score", *(f"in {name}" for name in others)))
    places = {name: {_key(point): at for at, point in enumerate(rankings.best(name, len(rankings.points)), 1)}
              for name in others}  # fmt: skip
    for place, point in enumerate(rankings.best(ranker, top), start=1):
        elsewhere = (str(places[name].get(_key(point), "-")) for name in others)
        score = f"{point.scores[ranker]:.3f}"
        grid.add_row(*literal(str(place), point.network, format_count(point.macs), score, *elsewhere))
    return grid


def _key(point: RankedPoint) -> tuple[Part, Part]:
    return point.front, point.back


def _agreement(rankings: Rankings) -> Table:
    grid = table(*_columns("", "rankers", "Spearman", "tau", "within front", "same first"))
    for row in rankings.agreements():
        values = ("-" if v is None else f"{v:+.2f}" for v in (row.spearman, row.kendall, row.within_front))
        same = "-" if row.same_first is None else f"{100 * row.same_first:.0f} %"
        grid.add_row(*literal("", f"{row.first}, {row.second}", *values, same))
    return grid


def _columns(place: str, network: str, *figures: str) -> list[Column]:
    return [number_column(place), text_column(network), *map(number_column, figures)]
