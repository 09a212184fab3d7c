"""What ``restnet-search anchors fit`` did: plain frozen data, its JSON twin, and a rich renderer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

__all__ = ["FitRow", "FitTable", "render_fits"]


@dataclass(frozen=True)
class FitRow:
    """An anchor, where its weights come from (``as loaded``, ``fitted``, ``cache``), and its top-1 on val, 0..1."""

    anchor: str
    origin: str
    val_top1: float


@dataclass(frozen=True)
class FitTable:
    """The anchors of one space, on `images` images of val in `classes` classes."""

    space: str
    classes: int
    images: int
    rows: tuple[FitRow, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"rows": [asdict(row) for row in self.rows]}


def render_fits(table: FitTable) -> RenderableType:
    """Anchor, where its weights come from, and val top-1."""
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    grid.add_column("anchor", overflow="fold")
    grid.add_column("weights", no_wrap=True)
    grid.add_column("val top-1", justify="right", no_wrap=True)
    for row in table.rows:
        grid.add_row(Text(row.anchor), Text(row.origin), Text(f"{row.val_top1:.1%}"))
    lines: list[RenderableType] = [grid, Text(f"val: {table.images} images, {table.classes} classes.", style="dim")]
    if any(row.origin == "as loaded" for row in table.rows):
        told = "An anchor with the right number of classes stays as it was loaded; `fit: {when: always}` fits it, too."
        lines.append(Text(told, style="dim"))
    return Group(*lines)
