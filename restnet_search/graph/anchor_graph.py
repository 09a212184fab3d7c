"""One anchor, cut: its trace, its cut points, and its fronts and backs on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import fx, nn

from restnet_search.graph.cut_points import CutPoint, CutPointTable, find_cut_points
from restnet_search.graph.image_size import size_is_fixed, take_one_size
from restnet_search.graph.slicing import count_slice_parameters, needed_nodes, slice_model
from restnet_search.graph.trace import TracedModel, trace_model

__all__ = ["AnchorGraph", "cut_model"]


@dataclass(frozen=True)
class AnchorGraph:
    """A traced model with its cut points; slices share the model's parameters.

    Where a part holds for one image size alone, it raises a GraphError at the first forward with another.
    """

    traced: TracedModel
    table: CutPointTable

    @property
    def cut_points(self) -> tuple[CutPoint, ...]:
        return self.table.cut_points

    @cached_property
    def _nodes(self) -> dict[str, fx.Node]:
        return {node.name: node for node in self.traced.graph.nodes}

    def crossing(self, cut: int) -> fx.Node:
        """The node whose value crosses from front to back."""
        return self._nodes[self.cut_points[cut].node]

    def front(self, cut: int) -> fx.GraphModule:
        """The part before a cut point: images ``(B, C, H, W)`` to the crossing features."""
        return self._part(None, [self.crossing(cut)])

    def back(self, cut: int) -> fx.GraphModule:
        """The part after a cut point: the crossing features to logits ``(B, classes)``."""
        return self._part(self.crossing(cut), [self.traced.logits])

    def front_nodes(self, cut: int) -> list[fx.Node]:
        """The nodes of the trace that the front runs, in order."""
        return needed_nodes(self.traced, None, [self.crossing(cut)])

    def back_nodes(self, cut: int) -> list[fx.Node]:
        """The nodes of the trace that the back runs, in order."""
        return needed_nodes(self.traced, self.crossing(cut), [self.traced.logits])

    def between(self, start: int | None, stops: Sequence[int]) -> fx.GraphModule:
        """From the image (``start`` None) or a cut point to later ones; a tuple for several stops, in their order."""
        origin = None if start is None else self.crossing(start)
        return self._part(origin, [self.crossing(stop) for stop in stops])

    def final_cut(self, cut: int) -> int:
        """The last cut point, from this one on, before features are pooled: where the final features before the head
        are, as a map or as tokens. The cut point itself where none follows.
        """
        spatial = [other.index for other in self.cut_points[cut:] if other.layout.spatial]
        return max(spatial, default=cut)

    def until_final(self, cut: int) -> nn.Module:
        """From a cut point to its :meth:`final_cut`."""
        final = self.final_cut(cut)
        return nn.Identity() if final == cut else self.between(cut, [final])

    @cached_property
    def any_size(self) -> bool:
        """True if the whole model and all its fronts and backs take images of other sizes, too."""
        last = [self.traced.logits]
        starts = [None, *(self.crossing(cut.index) for cut in self.cut_points)]
        return not any(size_is_fixed(self.traced, start, last) for start in starts)

    def _part(self, start: fx.Node | None, stops: Sequence[fx.Node]) -> fx.GraphModule:
        part = slice_model(self.traced, start, stops)
        return take_one_size(part, self.traced, start) if size_is_fixed(self.traced, start, stops) else part

    def front_parameters(self, cut: int) -> int:
        """Number of parameter values of :meth:`front`, without building it."""
        return count_slice_parameters(self.traced, None, [self.crossing(cut)])

    def back_parameters(self, cut: int) -> int:
        """Number of parameter values of :meth:`back`, without building it."""
        return count_slice_parameters(self.traced, self.crossing(cut), [self.traced.logits])


def cut_model(model: nn.Module, image_size: tuple[int, int, int], granularity: str = "block") -> AnchorGraph:
    """Trace a model and find its cut points.

    Raises:
        GraphError: If it cannot be traced or has no cut point.
    """
    traced = trace_model(model, image_size)
    return AnchorGraph(traced, find_cut_points(traced, granularity))
