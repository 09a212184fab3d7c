"""The anchors that ``restnet-search anchors fit`` fitted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from restnet_search.reporting.blocks import literal, name_column, number_column, table, text_column

__all__ = ["FitRow", "FitTable", "render_fits"]


@dataclass(frozen=True)
class FitRow:
    """An anchor, where its weights come from (``as loaded``, ``fitted``, ``cache``), and its top-1 on val, 0..1.

    ``weights`` says whose they are (``published``, ``given``, ``fitted``, ``random``), ``standing`` how it does on val
    against guessing.
    """

    anchor: str
    origin: str
    val_top1: float
    weights: str | None = None
    standing: str | None = None


@dataclass(frozen=True)
class FitTable:
    """The anchors of one space, on `images` images of val in `classes` classes."""

    space: str
    classes: int
    images: int
    rows: tuple[FitRow, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"rows": [asdict(row) for row in self.rows]}


def render_fits(fits: FitTable) -> RenderableType:
    """Return each anchor, where its weights come from, and val top-1."""
    grid = table(text_column("anchor"), name_column("weights"), number_column("val top-1"))
    for row in fits.rows:
        source = f"{row.origin}, {row.weights}" if row.origin == "as loaded" and row.weights else row.origin
        doubt = "" if row.standing in (None, "above chance") else f" ({row.standing})"
        grid.add_row(*literal(row.anchor, source, f"{row.val_top1:.1%}{doubt}"))
    lines: list[RenderableType] = [grid, Text(f"val: {fits.images} images, {fits.classes} classes.", style="dim")]
    if any(row.origin == "as loaded" for row in fits.rows):
        text = "An anchor with the right number of classes stays as it was loaded; `fit: {when: always}` fits it, too."
        lines.append(Text(text, style="dim"))
    return Group(*lines)
