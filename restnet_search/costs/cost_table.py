"""Costs of every front, back and hybrid as sums of parts that are profiled once."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from restnet_search.costs.cost import Cost
from restnet_search.costs.count import Count, count_costs, count_parameters
from restnet_search.graph.anchor_graph import AnchorGraph

__all__ = ["AnchorCosts", "hybrid_cost", "profile_anchor"]


@dataclass(frozen=True)
class AnchorCosts:
    """Costs of one anchor: whole, and of the front and the back at each of its cut points."""

    total: Cost
    fronts: tuple[Cost, ...]
    backs: tuple[Cost, ...]
    uncounted: tuple[tuple[str, int], ...]

    def depth(self, cut: int) -> float:
        """Share of the anchor's MACs that lies before a cut point."""
        return self.fronts[cut].macs / self.total.macs


def profile_anchor(graph: AnchorGraph) -> AnchorCosts:
    """Profile an anchor segment by segment between neighbouring cut points.

    Every operation runs in exactly one segment, so MACs of fronts and backs are sums over segments. Parameters are
    counted per part, since a part may share one parameter between its segments.
    """
    cuts = range(len(graph.cut_points))
    segments: list[Count] = []
    features = graph.traced.example(1)
    with torch.no_grad():
        for cut in cuts:
            segment = graph.between(cut - 1 if cut else None, [cut])
            segments.append(count_costs(segment, features))
            features = segment(features)
        segments.append(count_costs(graph.back(len(graph.cut_points) - 1), features))
    fronts = tuple(Cost(sum(s.macs for s in segments[: cut + 1]), graph.front_parameters(cut)) for cut in cuts)
    backs = tuple(Cost(sum(s.macs for s in segments[cut + 1 :]), graph.back_parameters(cut)) for cut in cuts)
    total = Cost(sum(s.macs for s in segments), count_parameters(graph.traced.module))
    return AnchorCosts(total, fronts, backs, _merged(segments))


def hybrid_cost(front: AnchorCosts, front_cut: int, stitch: Cost, back: AnchorCosts, back_cut: int) -> Cost:
    """Cost of front + stitch layer + back; equal to profiling the assembled hybrid."""
    return front.fronts[front_cut] + stitch + back.backs[back_cut]


def _merged(segments: list[Count]) -> tuple[tuple[str, int], ...]:
    names = sorted({name for segment in segments for name, _ in segment.uncounted})
    return tuple((name, sum(dict(segment.uncounted).get(name, 0) for segment in segments)) for name in names)
