"""Accuracy against MACs, and the line between the anchors, drawn in the terminal with plotext."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.text import Text

from restnet_search.reporting.model.line_summary import anchor_line
from restnet_search.reporting.model.run_report import Report
from restnet_search.units import format_count

__all__ = ["AccuracyPlot"]

_HEIGHT = 18
_WIDEST = 110
_LOG_FROM = 4.0  # ratio of the largest to the smallest MACs from which a linear axis crowds the small ones
_INDENT = (0, 0, 0, 2)
_LINE = ("╌", "-")  # (unicode, ASCII)
_ASCII = str.maketrans("┌┐└┘─│├┤┬┴┼", "++++-|+++++")


@dataclass(frozen=True)
class _Series:
    label: str
    markers: tuple[str, str]  # (unicode, ASCII)
    color: str
    dots: list[tuple[float, float]]  # (macs, accuracy in %)


class AccuracyPlot:
    """A rich renderable: val accuracy against MACs of all entries, the line between the anchors, and MACs limits."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        series = _series(self._report)
        spread = [macs for item in series for macs, _ in item.dots]
        if not spread:
            yield Text("There is nothing to plot.")
            return
        ascii_only = options.ascii_only
        limits = _limits(self._report)
        shown = {name: macs for name, macs in limits.items() if min(spread) / 1.5 <= macs <= max(spread) * 1.5}
        canvas = _draw(self._report, series, list(shown.values()), min(options.max_width, _WIDEST), ascii_only)
        yield Text.from_ansi(canvas.translate(_ASCII) if ascii_only else canvas, no_wrap=True)
        yield from _legend(series, shown, limits, ascii_only)
        if (line := self._report.measured_line) is not None:
            over = "log MACs" if line.scale == "log" else "MACs"
            yield Padding(Text(f"{_LINE[ascii_only]} the line between the anchors, over {over}"), _INDENT, expand=False)


def _series(report: Report) -> list[_Series]:
    on_front = {id for budget in report.budgets for id in budget.pareto}
    anchors = [(float(a.macs), 100 * a.val.top1) for a in report.anchors]
    below = set(report.dominated) - on_front
    front = [(float(h.macs), 100 * h.val.top1) for h in report.hybrids if h.id not in below]
    rest = [(float(h.macs), 100 * h.val.top1) for h in report.hybrids if h.id in below]
    return [  # later ones are drawn over earlier ones
        _Series("dominated hybrid", ("·", "."), "gray", rest),
        _Series("Pareto hybrid", ("●", "o"), "cyan", front),
        _Series("anchor", ("◆", "A"), "orange", anchors),
    ]


def _limits(report: Report) -> dict[str, float]:
    return {budget.name: float(budget.limits["macs"]) for budget in report.budgets if "macs" in budget.limits}


@dataclass(frozen=True)
class _Frame:
    """The canvas inside plotext's axes: ranges of both axes, and its size in characters."""

    x: tuple[float, float]
    y: tuple[float, float]
    columns: int
    rows: int

    def cell(self, x: float, y: float) -> tuple[int, int]:
        """The (column, row) that plotext draws this point in."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return round(across * (self.columns - 1)), round(up * (self.rows - 1))

    def column(self, place: int) -> float:
        """The x in the middle of a column."""
        return self.x[0] + place * (self.x[1] - self.x[0]) / (self.columns - 1)


def _draw(report: Report, series: Sequence[_Series], limits: Sequence[float], width: int, ascii_only: bool) -> str:
    import plotext

    xs = [macs for item in series for macs, _ in item.dots] + list(limits)
    ys = [accuracy for item in series for _, accuracy in item.dots]
    log = max(xs) / min(xs) >= _LOG_FROM if min(xs) > 0 else False

    def place(macs: float) -> float:
        return math.log10(macs) if log else macs

    low, high = place(min(xs)), place(max(xs))
    margin = 0.03 * (high - low) or abs(low) * 0.05 or 1.0
    y_margin = 0.08 * (max(ys) - min(ys)) or 1.0
    bottom, top = min(ys) - y_margin, max(ys) + y_margin
    ticks, heights = _ticks(min(xs), max(xs), log, width // 10), _ticks(bottom, top, False, _HEIGHT // 3)
    y_names = [f"{height:g}" for height in heights]
    columns = width - max(map(len, y_names)) - 2  # beside the names of the y axis and the frame
    frame = _Frame((low - margin, high + margin), (bottom, top), columns, _HEIGHT - 5)
    plotext.clear_figure()  # plotext draws on one figure per process
    try:
        plotext.theme("clear")
        plotext.limit_size(False, False)
        plotext.plot_size(width, _HEIGHT)
        plotext.xlim(*frame.x)
        plotext.ylim(*frame.y)
        plotext.xticks([place(tick) for tick in ticks], [_label(tick) for tick in ticks])
        plotext.yticks(heights, y_names)
        for limit in limits:
            plotext.vertical_line(place(limit), "red")
        across = [frame.column(column) for column in range(columns)]
        line = _line(report, [(x, 10**x if log else x) for x in across])
        if line:
            plotext.scatter(*map(list, zip(*line, strict=True)), marker=_LINE[ascii_only], color="default")
        dots = [(place(macs), accuracy) for item in series for macs, accuracy in item.dots]
        # Names are drawn as dots too, before the others: plotext's own text would cover those.
        for anchor in report.anchors:
            at = place(float(anchor.macs)), 100 * anchor.val.top1
            for x, letter in _name(anchor.name, at, dots, frame):
                plotext.scatter([x], [at[1]], marker=letter, color="default")
        for item in series:
            if item.dots:
                places, accuracies = [place(macs) for macs, _ in item.dots], [accuracy for _, accuracy in item.dots]
                plotext.scatter(places, accuracies, marker=item.markers[ascii_only], color=item.color)
        plotext.xlabel("MACs, log scale" if log else "MACs")
        plotext.title("val accuracy (%) against MACs")
        return plotext.build().rstrip("\n")
    finally:
        plotext.clear_figure()


def _line(report: Report, places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return (x, accuracy in %) of the line between the anchors on val, at each (x, MACs) that it reaches."""
    summary = report.measured_line
    if summary is None:
        return []
    line = anchor_line(report.anchors, "val", summary.scale)
    return [(x, 100 * accuracy) for x, macs in places if (accuracy := line.at(macs)) is not None]


def _name(
    name: str, at: tuple[float, float], dots: Sequence[tuple[float, float]], frame: _Frame
) -> list[tuple[float, str]]:
    """Place the letters of an anchor's name on the side of its marker with fewer dots; [] if neither has room."""
    name = name if len(name) <= 24 else name[:21] + "..."
    taken = {frame.cell(*dot) for dot in dots}
    column, row = frame.cell(*at)
    starts = [start for start in (column + 2, column - 1 - len(name)) if 0 <= start <= frame.columns - len(name)]
    if not starts:
        return []
    start = min(starts, key=lambda start: sum((start + i, row) in taken for i in range(len(name))))
    return [(frame.column(start + i), letter) for i, letter in enumerate(name) if not letter.isspace()]


def _label(count: float) -> str:
    text = format_count(count)
    return text if "." not in text else f"{float(text[:-1]):g}{text[-1]}"


def _ticks(low: float, high: float, log: bool, most: int) -> list[float]:
    """Choose at most ``most`` round numbers between ``low`` and ``high``, evenly spread on the axis."""
    if low == high:
        return [low]
    steps = (1.0, 2.0, 5.0)
    if log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks: list[float] = []
        for mantissas in (steps, (1.0, 3.0), (1.0,)):
            ticks = [m * 10.0**p for p in powers for m in mantissas if low <= m * 10.0**p <= high]
            if len(ticks) <= most:
                break
        return ticks if len(ticks) >= 2 else [low, high]
    unit = 10.0 ** math.floor(math.log10(high - low)) / 10
    ticks = []
    for step in (m * unit * scale for scale in (1, 10, 100) for m in steps):
        ticks = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
        if len(ticks) <= most:
            break
    return ticks if len(ticks) >= 2 else [low, high]


def _legend(
    series: Sequence[_Series], shown: dict[str, float], limits: dict[str, float], ascii_only: bool
) -> RenderResult:
    styles = {"gray": "dim", "orange": "yellow"}
    markers = Text("   ").join(
        Text.assemble(
            (item.markers[ascii_only], styles.get(item.color, item.color)), f" {item.label} ({len(item.dots)})"
        )
        for item in reversed(series)
        if item.dots
    )
    yield Padding(markers, _INDENT, expand=False)
    bar = "|" if ascii_only else "│"
    if shown:
        yield Padding(Text.assemble((bar, "red"), f" budget: {', '.join(shown)}"), _INDENT, expand=False)
    if outside := [name for name in limits if name not in shown]:
        yield Padding(Text(f"outside the plot: budget {', '.join(outside)}"), _INDENT, expand=False)
