"""The line between the anchors as a run measured it, and the height of every hybrid above it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from restnet_search.pareto.anchor_line import AnchorLine, LineScale
from restnet_search.plain.bounds import Figure, Fraction
from restnet_search.search.run.records import AnchorRecord, HybridRecord

__all__ = ["Height", "LineSummary", "anchor_line", "measure_line"]

_Split = Literal["test", "val"]


@dataclass(frozen=True)
class Height:
    """A hybrid against the line.

    Attributes:
        split: The images that both were scored on: ``test`` where the hybrid was scored there, else ``val``.
        line: Accuracy of the line at the hybrid's MACs.
        height: Accuracy of the hybrid minus that, a fraction.
    """

    split: _Split
    line: Fraction
    height: Figure


@dataclass(frozen=True)
class LineSummary:
    """The line between the anchors, and every hybrid's height above it.

    Attributes:
        scale: What it is straight over: ``log`` (the logarithm of MACs) or ``linear``.
        anchors: By split (``test``, ``val``), the anchors that it goes through, by rising MACs: those that no other one
            dominates.
        heights: By hybrid; those outside the range of the anchors' MACs have none.
    """

    scale: LineScale
    anchors: Mapping[_Split, tuple[str, ...]]
    heights: Mapping[str, Height] = field(default_factory=dict)


def anchor_line(anchors: Sequence[AnchorRecord], split: _Split, scale: LineScale = "log") -> AnchorLine:
    """Return the line through the anchors as they were scored on a split.

    Raises:
        ValueError: If there is no anchor.
    """
    return AnchorLine.through([(anchor.macs, getattr(anchor, split).top1) for anchor in anchors], scale)


def measure_line(
    anchors: Sequence[AnchorRecord], hybrids: Sequence[HybridRecord], scale: LineScale = "log"
) -> LineSummary | None:
    """Measure every hybrid against the line, on test where it was scored there, else on val.

    Returns:
        None where there is no anchor.
    """
    if not anchors:
        return None
    lines: dict[_Split, AnchorLine] = {split: anchor_line(anchors, split, scale) for split in ("test", "val")}
    heights: dict[str, Height] = {}
    for hybrid in hybrids:
        split: _Split = "val" if hybrid.test is None else "test"
        top1 = (hybrid.test or hybrid.val).top1
        if (line := lines[split].at(hybrid.macs)) is not None:
            heights[hybrid.id] = Height(split, line, top1 - line)
    return LineSummary(scale, {split: _on(line, anchors, split) for split, line in lines.items()}, heights)


def _on(line: AnchorLine, anchors: Sequence[AnchorRecord], split: _Split) -> tuple[str, ...]:
    points = set(line.points)
    chosen = [anchor for anchor in anchors if (anchor.macs, getattr(anchor, split).top1) in points]
    return tuple(anchor.name for anchor in sorted(chosen, key=lambda anchor: anchor.macs))
