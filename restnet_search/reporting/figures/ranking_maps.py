"""Rankings of stitch points as heat maps, one per direction and ranker."""

from __future__ import annotations

import math
from pathlib import Path

from restnet_search.files import replacing
from restnet_search.plain.escaping import plot_text
from restnet_search.reporting.commands.ranker_comparison import Rankings

__all__ = ["write_rankings_png"]

_PNG_KEY = (
    "bright: first in the ranker's order; dark: last; grey: no candidate; red dot: a front's first choice of partner"
)


def write_rankings_png(rankings: Rankings, path: Path) -> Path:
    """Draw one heat map per direction (row) and ranker (column), in one step; returns the path.

    Colors are places in the ranker's order, for scales differ.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    directions = list(dict.fromkeys((point.front.anchor, point.back.anchor) for point in rankings.points))
    rankers = rankings.rankers
    figure = Figure(figsize=(1 + 3 * len(rankers), 0.8 + 2.6 * max(len(directions), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(max(len(directions), 1), len(rankers), squeeze=False)
    colors = colormaps["viridis"].with_extremes(bad="lightgray")
    for row, (front, back) in enumerate(directions):
        points = [point for point in rankings.points if (point.front.anchor, point.back.anchor) == (front, back)]
        fronts = sorted({point.front.cut for point in points})
        backs = sorted({point.back.cut for point in points})
        for column, ranker in enumerate(rankers):
            axes = grid[row][column]
            known = sorted((point for point in points if ranker in point.scores), key=lambda p: p.scores[ranker])
            values = [[math.nan] * len(backs) for _ in fronts]
            first: dict[int, int] = {}
            for place, point in enumerate(known):  # the best of each front comes last
                values[fronts.index(point.front.cut)][backs.index(point.back.cut)] = (place + 1) / len(known)
                first[fronts.index(point.front.cut)] = backs.index(point.back.cut)
            axes.imshow(values, cmap=colors, vmin=0, vmax=1, aspect="auto")
            axes.plot(list(first.values()), list(first.keys()), "r.", markersize=4)
            axes.set_xticks(range(len(backs)), map(str, backs), fontsize=6)
            axes.set_yticks(range(len(fronts)), map(str, fronts), fontsize=6)
            axes.set_title(plot_text(f"{ranker}: {front} > {back}"), fontsize=8)
            axes.set_xlabel(plot_text(f"cut point of {back}"), fontsize=7)
            axes.set_ylabel(plot_text(f"cut point of {front}"), fontsize=7)
    figure.supxlabel(_PNG_KEY, fontsize=7)
    with replacing(path) as draft:
        figure.savefig(draft, format="png", dpi=120)
    return path
