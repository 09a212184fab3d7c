"""Device profiles and the error of a latency model, as tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from restnet_search.reporting.phrases import percent
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
    """How far sums of measured parts are off on whole hybrids that they have not seen."""

    space: str
    runtime: str
    threads: int
    batch: int
    runs: int
    machine: str
    parts: int
    median: float
    max: float
    wholes: tuple[WholeRow, ...]

    def to_json(self) -> dict[str, Any]:
        plain = asdict(self)
        plain["wholes"] = [asdict(row) | {"error": row.error} for row in self.wholes]
        return plain


def render_devices(table: DevicesTable) -> RenderableType:
    """Profiles by name."""
    grid = _grid()
    for name in ("name", "device", "limits", "latencies", "source"):
        grid.add_column(name, overflow="fold", no_wrap=name == "name")  # what a user types stays in one piece
    for row in table.rows:
        measured = f"{row.measured} parts" if row.measured else "none"
        grid.add_row(*map(Text, (row.name, row.device, row.limits, measured, row.source)))
    return grid


def render_model_error(found: ModelError) -> RenderableType:
    """Whole hybrids, the longest first, and the error over all."""
    grid = _grid()
    for name in ("front", "back"):
        grid.add_column(name, overflow="fold")
    for name in ("measured", "p95", "summed", "error"):
        grid.add_column(name, justify="right")
    for row in sorted(found.wholes, key=lambda row: -row.measured):
        cells = (
            row.front,
            row.back,
            format_seconds(row.measured),
            format_seconds(row.p95),
            format_seconds(row.summed),
            f"{100 * row.error:+.1f} %",
        )
        grid.add_row(*map(Text, cells))
    threads = f"{found.threads} thread{'s' * (found.threads != 1)}"
    said = (
        f"{found.space}: {found.runtime}, {threads}, batch {found.batch}, median of {found.runs} runs, {found.machine}."
        f" Sums of {found.parts} measured parts are off by {percent(found.median)} % (median) and at most"
        f" {percent(found.max)} % on {len(found.wholes)} whole hybrids."
    )
    return Group(grid, Text(""), Text(said))


def _grid() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
