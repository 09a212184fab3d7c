"""Costs of every front, back and hybrid as sums of parts that are profiled once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn

from restnet_search.costs.cost import Cost, Uncounted, notable
from restnet_search.costs.count import Count, count_costs, count_parameters
from restnet_search.graph.anchor_graph import AnchorGraph

__all__ = ["AnchorCosts", "hybrid_cost", "module_cost", "profile_anchor"]


@dataclass(frozen=True)
class AnchorCosts:
    """Costs of one anchor: whole, and of the front and the back at each of its cut points.

    ``as_trained`` is what it would cost with the branches that were fused; None where none were.
    """

    total: Cost
    fronts: tuple[Cost, ...]
    backs: tuple[Cost, ...]
    uncounted: tuple[Uncounted, ...]
    as_trained: Cost | None = None

    @property
    def notable(self) -> tuple[Uncounted, ...]:
        """The uncounted operators that would add 1 % or more to the MACs at one for each value, the largest first."""
        return notable(self.uncounted, self.total.macs)

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


def module_cost(module: nn.Module, image_size: tuple[int, int, int]) -> Cost:
    """Cost of any module for one image ``(C, H, W)``, as a whole."""
    count = count_costs(module, torch.zeros(1, *image_size))
    return Cost(count.macs, count.params)


def hybrid_cost(front: AnchorCosts, front_cut: int, stitch: Cost, back: AnchorCosts, back_cut: int) -> Cost:
    """Cost of front + stitch layer + back; equal to profiling the assembled hybrid."""
    return front.fronts[front_cut] + stitch + back.backs[back_cut]


def _merged(segments: list[Count]) -> tuple[Uncounted, ...]:
    calls, values = Counter[str](), Counter[str]()
    for one in (one for segment in segments for one in segment.uncounted):
        calls[one.operator] += one.calls
        values[one.operator] += one.values
    return tuple(Uncounted(name, calls[name], values[name]) for name in sorted(calls))
