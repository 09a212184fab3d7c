"""An anchor with its cut points."""

from __future__ import annotations

from dataclasses import dataclass

from restnet_search.anchors import Anchor
from restnet_search.graph.anchor_graph import AnchorGraph

__all__ = ["CutAnchor"]


@dataclass(frozen=True)
class CutAnchor:
    """An anchor with its trace and cut points."""

    anchor: Anchor
    graph: AnchorGraph
