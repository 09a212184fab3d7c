"""A similarity matrix as a heat map: in the terminal, as PNG, as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.style import Style
from rich.text import Text

from restnet_search.files import replacing
from restnet_search.plain.escaping import plot_text

__all__ = ["Heatmap", "render_heatmap", "write_heatmap_png"]

# Five stops of matplotlib's viridis (van der Walt and Smith 2015), dark to light.
_STOPS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_LABEL = 20


@dataclass(frozen=True)
class Heatmap:
    """A matrix of similarities between the cut points of two anchors.

    ``values`` has one tuple per row; None where a similarity is undefined. ``low`` and ``high`` are the ends of the
    color scale.

    Raises:
        ValueError: If the labels do not fit the values.
    """

    title: str
    row_name: str
    column_name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if len(self.values) != len(self.rows) or any(len(row) != len(self.columns) for row in self.values):
            raise ValueError(f"need {len(self.rows)} x {len(self.columns)} values, as many as the labels")
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")

    @classmethod
    def of(
        cls,
        matrix: Iterable[Iterable[float]],
        *,
        title: str,
        row_name: str,
        column_name: str,
        rows: Sequence[str],
        columns: Sequence[str],
    ) -> Heatmap:
        """Take any matrix of numbers (rows of a numpy array, say); what is not finite becomes None."""
        values = tuple(tuple(float(v) if math.isfinite(v) else None for v in row) for row in matrix)
        return cls(title, row_name, column_name, tuple(rows), tuple(columns), values)

    def best(self, row: int) -> int | None:
        """Return the column of the row's highest value (the first of equals), or None if the row has no value."""
        known = [(value, -column) for column, value in enumerate(self.values[row]) if value is not None]
        return -max(known)[1] if known else None

    def to_json(self) -> dict[str, Any]:
        """Return plain values: labels, the matrix by rows (null where undefined), and each row's best column."""
        return {
            "title": self.title,
            "rows": {"anchor": self.row_name, "cut_points": list(self.rows)},
            "columns": {"anchor": self.column_name, "cut_points": list(self.columns)},
            "values": [list(row) for row in self.values],
            "best": [self.best(row) for row in range(len(self.rows))],
        }


def render_heatmap(heatmap: Heatmap) -> RenderableType:
    """Return the heat map for a terminal: colored cells, with digits where they fit or where there is no color."""
    return _Cells(heatmap)


def write_heatmap_png(heatmap: Heatmap, path: Path) -> Path:
    """Draw the heat map into a PNG file, in one step; returns the path."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = len(heatmap.rows), len(heatmap.columns)
    figure = Figure(figsize=(min(4 + 0.28 * columns, 40), min(2.5 + 0.28 * rows, 40)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    values = [[math.nan if value is None else value for value in row] for row in heatmap.values]
    colors = colormaps["viridis"].with_extremes(bad="lightgray")
    image = axes.imshow(values, cmap=colors, vmin=heatmap.low, vmax=heatmap.high, aspect="auto")
    axes.set_xticks(range(columns), _numbered(heatmap.columns), rotation=90, fontsize=7)
    axes.set_yticks(range(rows), _numbered(heatmap.rows), fontsize=7)
    axes.set_xlabel(plot_text(heatmap.column_name))
    axes.set_ylabel(plot_text(heatmap.row_name))
    axes.set_title(plot_text(heatmap.title))
    best = [(heatmap.best(row), row) for row in range(rows)]
    axes.plot([x for x, _ in best if x is not None], [y for x, y in best if x is not None], "r.", markersize=4)
    figure.colorbar(image, ax=axes)
    with replacing(path) as draft:
        figure.savefig(draft, format="png", dpi=120)
    return path


def _numbered(labels: Sequence[str]) -> list[str]:
    return [label if label == str(i) else f"{i} {label}" for i, label in enumerate(labels)]


class _Cells:
    def __init__(self, heatmap: Heatmap) -> None:
        self._map = heatmap

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        heatmap = self._map
        labels = _numbered(heatmap.rows)
        margin = min(_LABEL, max(map(len, labels), default=0), max(options.max_width // 3, 4))
        color = console.color_system is not None and not console.no_color
        room = options.max_width - margin - 1 - 5  # the last column names the best partner
        cell = _cell_width(room, len(heatmap.columns))
        per_block = max(room // cell, 1)
        yield Text(f"{heatmap.title}: rows {heatmap.row_name}, columns {heatmap.column_name}", style="bold")
        for start in range(0, len(heatmap.columns), per_block):
            chosen = range(start, min(start + per_block, len(heatmap.columns)))
            last = chosen.stop == len(heatmap.columns)
            yield _header(margin, chosen, cell, last)
            for row, label in enumerate(labels):
                yield self._line(row, label, margin, chosen, cell, color, last)
        yield Text(_key(cell) + ". best: the column most similar to the row.", style="dim")

    def _line(self, row: int, label: str, margin: int, columns: range, cell: int, color: bool, last: bool) -> Text:
        line = Text(_clip(label, margin).ljust(margin) + " ", no_wrap=True, overflow="crop")
        best = self._map.best(row)
        for column in columns:
            value = self._map.values[row][column]
            digits = _digits(value, cell).rjust(cell)
            line.append(digits, style=_style(self._map, value, column == best) if color else None)
        if last:
            line.append("    -" if best is None else f"{best:5d}")
        return line


def _cell_width(room: int, columns: int) -> int:
    return next((width for width in (5, 3) if columns * width <= room), 2)


def _header(margin: int, columns: range, cell: int, last: bool) -> Text:
    # Narrow cells cannot hold every number: mark every so many columns, each number left of or at its column.
    numbers = [str(column) for column in columns]
    every = 1 if cell > max(map(len, numbers), default=0) else 5
    line = ""
    for place, column in enumerate(columns):
        end = (place + 1) * cell
        if column % every == 0:
            line = line.ljust(end - len(str(column))) + str(column)
    line = line.ljust(len(columns) * cell)
    return Text(" " * (margin + 1) + line + (" best" if last else ""), style="dim", no_wrap=True, overflow="crop")


def _digits(value: float | None, cell: int) -> str:
    if value is None:
        return "-"
    if cell >= 5:
        return f"{value:.2f}" if value >= 0 else f"{value:.2f}".replace("-0", "-")
    if cell == 3:
        hundredths = round(100 * value)
        return "**" if hundredths >= 100 else str(max(hundredths, -9))
    return str(min(max(int(10 * value + 1e-9), 0), 9))


def _key(cell: int) -> str:
    if cell >= 5:
        return "0 is unlike, 1 the same up to rotation and scale"
    if cell == 3:
        return "Digits are hundredths: 87 means 0.87, ** means 1"
    return "Digits are tenths, rounded down: 8 means 0.8 to 0.9"


def _style(heatmap: Heatmap, value: float | None, best: bool) -> Style | None:
    if value is None:
        return None
    share = min(max((value - heatmap.low) / (heatmap.high - heatmap.low), 0.0), 1.0) * (len(_STOPS) - 1)
    stop = min(int(share), len(_STOPS) - 2)
    mixed = [a + (b - a) * (share - stop) for a, b in zip(_STOPS[stop], _STOPS[stop + 1], strict=True)]
    red, green, blue = (round(channel) for channel in mixed)
    ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else "white"
    return Style(color=ink, bgcolor=f"rgb({red},{green},{blue})", bold=best or None, underline=best or None)


def _clip(label: str, width: int) -> str:
    return label if len(label) <= width else label[: max(width - 2, 1)] + ".."[: max(width - 1, 0)]
