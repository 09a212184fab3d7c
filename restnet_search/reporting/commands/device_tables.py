"""Device profiles and the error of a latency model, as tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from restnet_search.reporting.blocks import literal, name_column, number_column, table, text_column
from restnet_search.reporting.phrases import percent
from restnet_search.search.run.records import MeasuredOn
from restnet_search.units import format_seconds

__all__ = ["DeviceRow", "DevicesTable", "ModelError", "WholeRow", "render_devices", "render_model_error"]


@dataclass(frozen=True)
class DeviceRow:
    """One profile; ``measured`` counts the parts in its latency table (0: limits only)."""

    name: str
    device: str
    limits: str
    measured: int
    source: str


@dataclass(frozen=True)
class DevicesTable:
    """The profiles that come with restnet-search."""

    rows: tuple[DeviceRow, ...]

    def to_json(self) -> dict[str, Any]:
        return {"devices": [asdict(row) for row in self.rows]}


@dataclass(frozen=True)
class WholeRow:
    """A hybrid that was measured whole (median and 95th percentile, seconds), beside the sum of its parts' medians."""

    front: str
    back: str
    measured: float
    summed: float
    p95: float

    @property
    def error(self) -> float:
        """Relative; above zero where the sum is too large."""
        return self.summed / self.measured - 1


@dataclass(frozen=True)
class ModelError:
    """Error of sums of measured parts on whole hybrids that they have not seen."""

    space: str
    on: MeasuredOn
    runs: int
    parts: int
    median: float
    max: float
    wholes: tuple[WholeRow, ...]

    def to_json(self) -> dict[str, Any]:
        plain = asdict(self)
        plain |= plain.pop("on")
        plain["wholes"] = [asdict(row) | {"error": row.error} for row in self.wholes]
        return plain


def render_devices(devices: DevicesTable) -> RenderableType:
    """Return the profiles by name."""
    # what a user types stays in one piece
    grid = table(name_column("name"), *map(text_column, ("device", "limits", "latencies", "source")))
    for row in devices.rows:
        measured = f"{row.measured} parts" if row.measured else "none"
        grid.add_row(*literal(row.name, row.device, row.limits, measured, row.source))
    return grid


def render_model_error(error: ModelError) -> RenderableType:
    """Return whole hybrids, the longest first, and the error over all."""
    figures = map(number_column, ("measured", "p95", "summed", "error"))
    grid = table(*map(text_column, ("front", "back")), *figures)
    for row in sorted(error.wholes, key=lambda row: -row.measured):
        cells = (
            row.front,
            row.back,
            format_seconds(row.measured),
            format_seconds(row.p95),
            format_seconds(row.summed),
            f"{100 * row.error:+.1f} %",
        )
        grid.add_row(*literal(*cells))
    on = error.on
    threads = f"{on.threads} thread{'s' * (on.threads != 1)}"
    text = (
        f"{error.space}: {on.runtime}, {threads}, batch {on.batch}, median of {error.runs} runs, {on.machine}."
        f" Sums of {error.parts} measured parts are off by {percent(error.median)} % (median) and at most"
        f" {percent(error.max)} % on {len(error.wholes)} whole hybrids."
    )
    return Group(grid, Text(""), Text(text))
