"""The data sets that a space can name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from restnet_search.space.published_data import DataPreset

__all__ = ["data_sets_json", "render_data_sets"]


def data_sets_json(presets: Sequence[DataPreset]) -> dict[str, Any]:
    """Return the presets as plain values."""
    rows = [
        {
            "name": preset.name,
            "title": preset.title,
            "classes": preset.classes,
            "images": dict(preset.images),
            "splits": preset.split_defaults,
            "layout": preset.layout,
            "page": preset.page,
            "download": preset.download,
        }
        for preset in presets
    ]
    return {"data_sets": rows}


def render_data_sets(presets: Sequence[DataPreset]) -> RenderableType:
    """Return one block per data set: name, size, splits, where its files lie, and where they come from."""
    blocks: list[RenderableType] = []
    for preset in presets:
        grid = Table.grid(padding=(0, 2, 0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for label, text in (
            ("splits", _splits(preset)),
            ("in the root", preset.layout),
            ("fetch", preset.download),
            ("from", preset.page),
        ):
            grid.add_row(Text(label), Text(text))
        title = Text.assemble((preset.name, "bold"), f"  {preset.title}, {preset.classes:,} classes")
        blocks += [title, grid, Text("")]
    usage = "In a space: data: {dataset: cifar10, root: DIR}; --data DIR wins over root. Nothing is downloaded."
    return Group(*blocks, Text(usage, style="dim"))


def _splits(preset: DataPreset) -> str:
    train, val, test = preset.splits
    parts = [f"train {train} ({preset.images[train]:,} images)", f"val {val} ({preset.images[val]:,})"]
    parts.append(f"test {test} ({preset.images[test]:,})" if test else f"test cut from {val}")
    return ", ".join(parts)
