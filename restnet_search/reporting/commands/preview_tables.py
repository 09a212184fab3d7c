"""A search space before any training, as ``restnet-search init`` prints it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from restnet_search.reporting.blocks import literal, number_column, table, text_column
from restnet_search.search.run.records import Cost, Direction, Part
from restnet_search.units import CONVENTION, format_bytes, format_count

__all__ = ["AnchorRow", "BudgetRow", "DataFacts", "DirectionRow", "HybridRow", "SpacePreview", "render_preview"]


@dataclass(frozen=True)
class AnchorRow:
    """An anchor: costs with a head for the data's classes, input ``(C, H, W)``, and what is known of its weights.

    Its memory is the peak for one image, counted in the preview's ``memory_dtype``.
    ``weights_classes`` is None where nobody published weights under that name; ``license`` is as timm declares it.
    ``source`` says where a search takes them from: ``published``, ``given`` (a file, a factory) or ``random``.
    """

    name: str
    cost: Cost
    cut_points: int
    input: tuple[int, ...]
    weights_classes: int | None
    license: str | None
    source: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            **_costs_json(self.cost),
            "cut_points": self.cut_points,
            "input": list(self.input),
            "weights_classes": self.weights_classes,
            "license": self.license,
            "weights": self.source,
        }


@dataclass(frozen=True)
class DirectionRow:
    """A direction: all pairs of cut points, those a stitch layer can join, and those below the larger."""

    direction: Direction
    stitch_points: int
    stitchable: int
    candidates: int


@dataclass(frozen=True)
class HybridRow:
    """One hybrid (``which``: cheapest, middle, dearest) with its stitch layer's share of the costs."""

    which: str
    front: Part
    back: Part
    cost: Cost
    stitch_macs: int

    def to_json(self) -> dict[str, Any]:
        return {
            "which": self.which,
            "front": self.front.anchor,
            "back": self.back.anchor,
            **_costs_json(self.cost),
            "stitch_macs": self.stitch_macs,
            "front_path": self.front.path,
            "back_path": self.back.path,
        }


@dataclass(frozen=True)
class BudgetRow:
    """A budget: how many hybrids it lets through, and which anchors fit it as they are.

    ``unmeasured`` says that it limits latency, too, which is measured by the search and not counted here.
    """

    name: str
    hybrids: int
    anchors: tuple[str, ...]
    unmeasured: bool = False


@dataclass(frozen=True)
class DataFacts:
    """The data as it was opened: images by split; ``test_from`` is ``test`` or ``val``, where it was cut from."""

    source: str
    classes: int
    images: Mapping[str, int]
    test_from: str


@dataclass(frozen=True)
class SpacePreview:
    """Everything a search space's cost table says, with random weights."""

    space: str
    anchors: tuple[AnchorRow, ...]
    directions: tuple[DirectionRow, ...]
    examples: tuple[HybridRow, ...]
    budgets: tuple[BudgetRow, ...]
    data: DataFacts
    memory_dtype: str

    def to_json(self) -> dict[str, Any]:
        data = asdict(self.data)
        return {
            "space": self.space,
            "data": data | data.pop("images"),
            "memory_dtype": self.memory_dtype,
            "anchors": [row.to_json() for row in self.anchors],
            "directions": [_flat(asdict(row), "direction") for row in self.directions],
            "hybrids": [row.to_json() for row in self.examples],
            "budgets": [asdict(row) | {"anchors": list(row.anchors)} for row in self.budgets],
        }


def _costs_json(cost: Cost) -> dict[str, Any]:
    return {"macs": cost.macs, "params": cost.params, "memory": cost.memory or 0}


def _flat(row: dict[str, Any], key: str) -> dict[str, Any]:
    """Put what stands below a key in its place."""
    return row.pop(key) | row


def render_preview(preview: SpacePreview) -> RenderableType:
    """Return data, anchors, directions, three hybrids and the budgets."""
    data = preview.data
    cut = "" if data.test_from == "test" else " (cut from val)"
    images = ", ".join(f"{count} {split}" for split, count in data.images.items())
    text = f"Data: {data.source}: {data.classes} classes; {images} images{cut}"
    blocks = [Text(text), _anchors(preview), _directions(preview), _hybrids(preview), _budgets(preview)]
    notes = [CONVENTION, f"Memory is the peak for one image in {preview.memory_dtype}: weights and live activations."]
    if any(row.unmeasured for row in preview.budgets):
        notes.append("Latency is measured by the search: its limits are not counted here.")
    return Group(*(part for block in blocks for part in (block, Text())), Text(" ".join(notes), style="dim"))


def _anchors(preview: SpacePreview) -> Table:
    figures = map(number_column, ("MACs", "params", "memory", "cut\npoints", "input"))
    grid = table(text_column("anchor"), *figures, *map(text_column, ("weights", "license")))
    for row in preview.anchors:
        matches = row.weights_classes == preview.data.classes
        fitted = "" if matches else "; fitted first"
        known = "none published; yours or fitted" if row.weights_classes is None else f"{row.weights_classes} classes"
        weights = known if row.weights_classes is None else known + fitted
        weights = weights if row.source is None else f"{row.source}: {_WEIGHTS.get(row.source, weights)}"
        size = "x".join(map(str, row.input[1:]))
        figures = (*_costs(row.cost), str(row.cut_points))
        grid.add_row(*literal(row.name, *figures, size, weights, row.license or "-"))
    return grid


_WEIGHTS = {"random": "as drawn; fitted first, or refused"}


def _costs(cost: Cost) -> tuple[str, str, str]:
    return format_count(cost.macs), format_count(cost.params), format_bytes(cost.memory or 0)


def _directions(preview: SpacePreview) -> Table:
    counted = map(number_column, ("stitch\npoints", "can be\nstitched", "worth a\ntrial"))
    grid = table(text_column("front > back"), *counted)
    for row in preview.directions:
        counts = map(str, (row.stitch_points, row.stitchable, row.candidates))
        grid.add_row(*literal(str(row.direction), *counts))
    return grid


def _hybrids(preview: SpacePreview) -> Table:
    figures = map(number_column, ("MACs", "params", "memory", "stitch\nMACs"))
    grid = table(*map(text_column, ("hybrid", "cut")), *figures)
    for row in preview.examples:
        cut = f"{row.front.anchor} up to {row.front.path} > {row.back.anchor} after {row.back.path}"
        grid.add_row(*literal(row.which, cut, *_costs(row.cost), format_count(row.stitch_macs)))
    return grid


def _budgets(preview: SpacePreview) -> Table:
    grid = table(text_column("budget"), number_column("hybrids\nwithin"), text_column("anchors within"))
    for row in preview.budgets:
        grid.add_row(*literal(row.name, str(row.hybrids), ", ".join(row.anchors) or "none"))
    return grid
