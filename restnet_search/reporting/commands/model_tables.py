"""Cut points, rejected nodes, costs and search spaces, as ``anchors``, ``profile`` and ``spaces`` print them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from restnet_search.costs.cost import Uncounted
from restnet_search.costs.cost_phrases import as_counted_and_exported, reparameterized, uncounted_share
from restnet_search.reporting.blocks import literal, name_column, number_column, table, text_column
from restnet_search.search.run.records import Part
from restnet_search.units import CONVENTION, format_count

__all__ = [
    "CutPointRow",
    "CutPointTable",
    "Profile",
    "RejectedRow",
    "RejectedTable",
    "SpaceRow",
    "SpacesTable",
    "render_cut_points",
    "render_profile",
    "render_rejected",
    "render_spaces",
]


@dataclass(frozen=True)
class CutPointRow:
    """A cut point: the shape of its tensor for one image (no batch axis), and the costs of the front up to it."""

    cut: Part
    layout: str
    shape: tuple[int, ...]
    macs: float
    params: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values; the anchor is the table's."""
        cut = {"index": self.cut.cut, "path": self.cut.path}
        features = {"layout": self.layout, "shape": list(self.shape)}
        return {**cut, **features, "macs": self.macs, "params": self.params}


@dataclass(frozen=True)
class CutPointTable:
    """The cut points of one anchor.

    Attributes:
        anchor: Its name.
        macs: Of all of it.
        params: Likewise.
        rows: The cut points.
        trained_macs: With the branches that were fused; None where none were.
        image_size: ``(C, H, W)`` that it was cut for; None where it is not known.
        any_size: Whether the parts take images of other sizes, too.
        notes: What else to know.
    """

    anchor: str
    macs: float
    params: float
    rows: tuple[CutPointRow, ...]
    trained_macs: float | None = None
    image_size: tuple[int, int, int] | None = None
    any_size: bool = False
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "anchor": self.anchor,
            "macs": self.macs,
            "params": self.params,
            "trained_macs": self.trained_macs,
            "image_size": None if self.image_size is None else list(self.image_size),
            "any_size": self.any_size,
            "notes": list(self.notes),
            "cut_points": [row.to_json() for row in self.rows],
        }


@dataclass(frozen=True)
class RejectedRow:
    """A node of the traced graph that is no cut point, and why."""

    node: str
    reason: str


@dataclass(frozen=True)
class RejectedTable:
    """The nodes of one anchor that are no cut points."""

    anchor: str
    rows: tuple[RejectedRow, ...]

    def to_json(self) -> dict[str, Any]:
        return {"anchor": self.anchor, "rejected": [asdict(row) for row in self.rows]}


@dataclass(frozen=True)
class Profile:
    """Costs of one model by fvcore, beside those of other counters.

    Attributes:
        model: Its name.
        macs: As costs and budgets count them.
        params: Parameter values.
        thop_macs: By thop.
        thop_params: Likewise.
        uncounted: Operators without a formula.
        torch_macs: By torch's own counter.
        why: What torch's has and ours lacks, and the other way round.
        exported_macs: As exports with a graph hold it, batch-norms folded.
        trained_macs: With the branches that were fused; None where none were.
        kept_branches: Why branches that look as if they could be fused stay.
    """

    model: str
    macs: float
    params: float
    thop_macs: float | None
    thop_params: float | None
    uncounted: tuple[Uncounted, ...] = ()
    torch_macs: float | None = None
    why: str = ""
    exported_macs: float | None = None
    trained_macs: float | None = None
    kept_branches: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "macs": self.macs,
            "params": self.params,
            "thop": {"macs": self.thop_macs, "params": self.thop_params},
            "torch": {"macs": self.torch_macs, "why": self.why},
            "exported_macs": self.exported_macs,
            "trained_macs": self.trained_macs,
            "kept_branches": self.kept_branches,
            "uncounted": {one.operator: one.calls for one in self.uncounted},
            "uncounted_values": {one.operator: one.values for one in self.uncounted},
        }


@dataclass(frozen=True)
class SpaceRow:
    """A search space that can be named: where it comes from (built-in, a file) and its anchors."""

    name: str
    source: str
    anchors: tuple[str, ...]
    description: str


@dataclass(frozen=True)
class SpacesTable:
    """The search spaces on offer."""

    rows: tuple[SpaceRow, ...]

    def to_json(self) -> dict[str, Any]:
        return {"spaces": [asdict(row) | {"anchors": list(row.anchors)} for row in self.rows]}


def render_cut_points(cuts: CutPointTable) -> RenderableType:
    """Return cut points by index, with the share of the anchor's MACs that lies before each."""
    grid = table(
        number_column("cut"),
        text_column("after module"),
        *map(name_column, ("layout", "shape")),
        *map(number_column, ("MACs\nbefore", "share", "params\nbefore")),
    )
    for row in cuts.rows:
        share = f"{100 * row.macs / cuts.macs:.0f} %" if cuts.macs else "-"
        shape = " x ".join(map(str, row.shape))
        grid.add_row(
            *literal(str(row.cut.cut), row.cut.path, row.layout, shape),
            *literal(format_count(row.macs), share, format_count(row.params)),
        )
    title = (
        f"{cuts.anchor}: {len(cuts.rows)} cut point{'s' * (len(cuts.rows) != 1)}, "
        f"{format_count(cuts.macs)} MACs, {format_count(cuts.params)} params"
    )
    notes = [Text(note) for note in (*_fused(cuts), *_sizes(cuts), *cuts.notes)]
    return Group(Text(title, style="bold"), grid, *notes, Text(f"{CONVENTION} Shapes are of one image.", style="dim"))


def _fused(cuts: CutPointTable) -> list[str]:
    return [] if cuts.trained_macs is None else [f"{cuts.anchor} is {reparameterized(cuts.trained_macs, cuts.macs)}."]


def _sizes(cuts: CutPointTable) -> list[str]:
    if cuts.image_size is None:
        return []
    size = "x".join(map(str, cuts.image_size[1:]))
    if cuts.any_size:
        return [f"Cut for images of {size}; its parts take other sizes that the whole model takes, too."]
    return [f"Its parts hold for images of {size} alone: at another size they raise a GraphError."]


def render_rejected(rejected: RejectedTable) -> RenderableType:
    """Return the nodes that are no cut points, and the reason of each."""
    grid = table(*map(text_column, ("node", "why it is no cut point")))
    for row in rejected.rows:
        grid.add_row(*literal(row.node, row.reason))
    return Group(Text(f"{rejected.anchor}: nodes that are no cut points: {len(rejected.rows)}", style="bold"), grid)


def render_profile(profile: Profile) -> RenderableType:
    """Return MACs and parameters by fvcore beside thop, with thop's difference, and the ops that nobody counted."""
    grid = table(text_column(""), *map(number_column, ("fvcore", "thop", "difference")))
    for name, ours, theirs in (
        ("MACs", profile.macs, profile.thop_macs),
        ("params", profile.params, profile.thop_params),
    ):
        difference = "-" if theirs is None or not ours else f"{100 * (theirs - ours) / ours:+.2f} %"
        grid.add_row(*literal(name, format_count(ours), "-" if theirs is None else format_count(theirs), difference))
    ops = ", ".join(f"{one.operator} ({one.calls})" for one in profile.uncounted)
    return Group(
        Text(profile.model, style="bold"),
        grid,
        *(Text(sentence) for sentence in _other_counts(profile)),
        Text(f"Uncounted ops: {ops}." if ops else "Every op that costs MACs was counted."),
        *([Text(share)] if (share := uncounted_share(profile.uncounted, profile.macs)) else []),
        Text(f"{CONVENTION} Costs are per image.", style="dim"),
    )


def _other_counts(profile: Profile) -> list[str]:
    sentences: list[str] = []
    if profile.trained_macs is not None:
        sentences.append(f"{profile.model} is {reparameterized(profile.trained_macs, profile.macs)}.")
    if profile.kept_branches:
        sentences.append(f"Not re-parameterised: {profile.kept_branches}.")
    if profile.torch_macs is not None:
        above = f" ({100 * (profile.macs / profile.torch_macs - 1):+.2f} % here)" if profile.torch_macs else ""
        why = f": {profile.why}" if profile.why else ""
        sentences.append(f"By torch's own counter {format_count(profile.torch_macs)} MACs{above}{why}.")
    if profile.exported_macs not in (None, profile.macs):
        sentences.append(f"{as_counted_and_exported(profile.macs, profile.exported_macs)}.")
    return sentences


def render_spaces(spaces: SpacesTable) -> RenderableType:
    """Return the search spaces by name."""
    grid = table(*map(text_column, ("space", "from", "anchors", "description")))
    for row in spaces.rows:
        grid.add_row(*literal(row.name, row.source, ", ".join(row.anchors), row.description))
    return grid
