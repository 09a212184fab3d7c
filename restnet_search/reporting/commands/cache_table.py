"""The contents of the cache folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

__all__ = ["CacheRow", "CacheTable", "CachedFeatures", "format_bytes", "render_cache"]


@dataclass(frozen=True)
class CachedFeatures:
    """Features of a file: the anchor and cut point, the images (``augmented``: 0 as they are), shape and type."""

    anchor: str
    cut: int
    path: str
    split: str
    augmented: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class CacheRow:
    """One file of features: its bytes, when it was used last (ISO 8601), and what it holds; None if it is damaged."""

    file: str
    bytes: int
    used: str
    features: CachedFeatures | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values in one flat mapping; those of the features are None in a damaged file."""
        facts = (
            asdict(self.features) if self.features else dict.fromkeys(field.name for field in fields(CachedFeatures))
        )
        damaged = self.features is None
        return {"file": self.file, "bytes": self.bytes, "used": self.used, **facts, "damaged": damaged}


@dataclass(frozen=True)
class CacheTable:
    """The cache folder: features, the most recently used first, fitted anchors (files and bytes), facts of images."""

    folder: str
    features: tuple[CacheRow, ...]
    fitted_anchors: int
    fitted_bytes: int
    image_bytes: int = 0

    @property
    def feature_bytes(self) -> int:
        return sum(row.bytes for row in self.features)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; ``damaged`` files are removed when a search asks for them."""
        return {
            "folder": self.folder,
            "features": {
                "files": len(self.features),
                "bytes": self.feature_bytes,
                "entries": [row.to_json() for row in self.features],
            },
            "fitted_anchors": {"files": self.fitted_anchors, "bytes": self.fitted_bytes},
            "images": {"bytes": self.image_bytes},
        }


def format_bytes(count: int) -> str:
    """Format bytes: ``640 B``, ``12.0 MB``, ``1.5 GB`` (powers of 1024, as ``--cache-gb`` counts)."""
    for scale, unit in ((2**30, "GB"), (2**20, "MB"), (2**10, "kB")):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def render_cache(table: CacheTable) -> RenderableType:
    """Return the table, and the sums above it."""
    sums = [
        f"Cache {table.folder}",
        f"  features        {len(table.features)} files, {format_bytes(table.feature_bytes)}",
        f"  fitted anchors  {table.fitted_anchors} files, {format_bytes(table.fitted_bytes)}",
        f"  facts of images {format_bytes(table.image_bytes)}",
    ]
    if not table.features:
        return Group(*map(Text, sums))
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("anchor", "cut", "split", "features", "type", "size", "last used"):
        grid.add_column(title, justify="right" if title in ("cut", "size") else "left", overflow="fold")
    for row in table.features:
        size, held = format_bytes(row.bytes), row.features
        if held is None:
            grid.add_row(row.file, "", "", "damaged", "", size, row.used)
            continue
        split = f"{held.split}, view {held.augmented}" if held.augmented else held.split
        grid.add_row(held.anchor, str(held.cut), split, "x".join(map(str, held.shape)), held.dtype, size, row.used)
    return Group(*map(Text, sums), Text(""), grid)
