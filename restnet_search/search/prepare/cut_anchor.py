"""An anchor with its cut points, and what its parts cost."""

from __future__ import annotations

from dataclasses import dataclass, replace

from restnet_search.anchors import Anchor
from restnet_search.costs.cost import Cost
from restnet_search.costs.cost_table import AnchorCosts, module_cost, profile_anchor
from restnet_search.graph.anchor_graph import AnchorGraph, cut_model

__all__ = ["CutAnchor", "cost_as_trained", "cut_anchor", "profile"]


@dataclass(frozen=True)
class CutAnchor:
    """An anchor with its trace and cut points."""

    anchor: Anchor
    graph: AnchorGraph


def cut_anchor(anchor: Anchor, granularity: str) -> CutAnchor:
    """Cut an anchor for its own images; ``granularity`` is ``block`` or ``all``.

    Raises:
        GraphError: If it cannot be traced.
    """
    return CutAnchor(anchor, cut_model(anchor.model, anchor.preprocessing.size, granularity))


def profile(cut: CutAnchor) -> AnchorCosts:
    """Count what the parts of an anchor cost, and what it cost before its branches were fused.

    Raises:
        GraphError: If something in it cannot be counted.
    """
    return replace(profile_anchor(cut.graph), as_trained=cost_as_trained(cut.anchor))


def cost_as_trained(anchor: Anchor) -> Cost | None:
    """Count an anchor with the branches that were fused; None where none were."""
    return None if anchor.as_trained is None else module_cost(anchor.as_trained, anchor.preprocessing.size)
