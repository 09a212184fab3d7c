"""Slice a traced model: from the image or a cut point, to one or several cut points or the logits.

Slices are sub-graphs over the model's own parameters; nothing is copied.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence

from torch import fx
from torch.fx.node import Argument

from restnet_search.graph.nodes import ancestors, is_shape_query
from restnet_search.graph.trace import TracedModel

__all__ = ["count_slice_parameters", "needed_nodes", "recorded_queries", "slice_model"]


def slice_model(traced: TracedModel, start: fx.Node | None, stops: Sequence[fx.Node]) -> fx.GraphModule:
    """Build the module that computes ``stops`` from the image (``start`` None) or from the value at ``start``.

    Args:
        traced: The traced model; with the shapes that :func:`~restnet_search.graph.trace.trace_model` records.
        start: The cut point whose value becomes the input; None: the image batch.
        stops: Nodes whose values are returned, as one tensor for one stop, else as a tuple in the given order.
    """
    return _Slicer(traced, start or traced.image).build(stops)


def needed_nodes(traced: TracedModel, start: fx.Node | None, stops: Sequence[fx.Node]) -> list[fx.Node]:
    """The nodes that :func:`slice_model` would run, in their order; the value that enters is not among them.

    Shape queries that the slice answers from the record are among them, though they read nothing there.
    """
    slicer = _Slicer(traced, start or traced.image)
    needed = slicer.needed(stops)
    return [node for node in traced.graph.nodes if node in needed]


def recorded_queries(
    traced: TracedModel, start: fx.Node | None, stops: Sequence[fx.Node]
) -> dict[fx.Node, frozenset[int] | None]:
    """The shape queries that :func:`slice_model` answers from the record, with the axes of the answer that it uses.

    None stands for all axes.
    """
    slicer = _Slicer(traced, start or traced.image)
    needed = slicer.needed(stops)
    return {node: _axes_read(node, needed) for node in needed if slicer.is_recorded(node)}


def _axes_read(query: fx.Node, needed: set[fx.Node]) -> frozenset[int] | None:
    axes: set[int] = set()
    for user in query.users.keys() & needed:
        if user.target is not operator.getitem or not isinstance(user.args[1], int):
            return None
        axes.add(user.args[1])
    return frozenset(axes) if axes else None


def count_slice_parameters(traced: TracedModel, start: fx.Node | None, stops: Sequence[fx.Node]) -> int:
    """Number of parameter values of :func:`slice_model` of the same arguments, each shared one once.

    The slice is not built, which is most of the time that profiling an anchor with many cut points would take.
    """
    needed = _Slicer(traced, start or traced.image).needed(stops)
    parameters = {id(one): one for node in needed & traced.parameters.keys() for one in traced.parameters[node]}
    return sum(parameter.numel() for parameter in parameters.values())


class _Slicer:
    """Copies the nodes that a slice needs to a fresh graph.

    Shape queries on tensors that lie before the cut are answered from the recorded shapes; their batch axis is read
    off the tensor that crosses the cut, so slices keep working for every batch size.
    """

    def __init__(self, traced: TracedModel, start: fx.Node) -> None:
        self.traced, self.start = traced, start
        self.dependent = traced.dependent
        self.before = ancestors(start)
        self.graph = fx.Graph()
        self.crossing = self.graph.placeholder("x" if start.op == "placeholder" else "features")
        self.copies: dict[fx.Node, Argument] = {start: self.crossing}

    def build(self, stops: Sequence[fx.Node]) -> fx.GraphModule:
        needed = self.needed(stops)
        for node in self.traced.graph.nodes:
            if node in needed:
                self.copies[node] = self._copy(node)
        outputs = tuple(self.copies[stop] for stop in stops)
        self.graph.output(outputs[0] if len(outputs) == 1 else outputs)
        module = fx.GraphModule(self.traced.module, self.graph, class_name=type(self.traced.module).__name__)
        module.graph.lint()
        return module.eval()

    def needed(self, stops: Iterable[fx.Node]) -> set[fx.Node]:
        needed: set[fx.Node] = set()
        pending = list(stops)
        while pending:
            node = pending.pop()
            if node in needed or node is self.start:
                continue
            needed.add(node)
            if not self.is_recorded(node):
                pending.extend(node.all_input_nodes)
        return needed

    def is_recorded(self, node: fx.Node) -> bool:
        """Say if a shape query asks a tensor before the cut, so that the record answers it."""
        return is_shape_query(node) and any(
            source in self.before and source in self.dependent for source in node.all_input_nodes
        )

    def _copy(self, node: fx.Node) -> Argument:
        if self.is_recorded(node):
            return self._recorded(node)
        if node in self.before and node in self.dependent:
            raise ValueError(f"{self.start.name} is no cut point: {node.name} lies before it and is needed after it")
        return self.graph.node_copy(node, lambda source: self.copies[source])

    def _recorded(self, query: fx.Node) -> Argument:
        """The recorded answer to a shape query, its batch axes taken from the tensor that crosses the cut."""
        answer, batch_axes = query.meta["answer"], query.meta["batch_axes"]
        if not batch_axes:
            return answer
        batch, traced_batch = self.graph.call_method("size", (self.crossing, 0)), self.start.meta["shape"][0]

        def scaled(size: int) -> fx.Node:
            if size % traced_batch:
                raise ValueError(f"{query.name} is {size} at a batch of {traced_batch}, no multiple of it")
            # a multiple: windows or heads that are folded into the batch axis
            return (
                batch if size == traced_batch else self.graph.call_function(operator.mul, (batch, size // traced_batch))
            )

        if isinstance(answer, int):
            return scaled(answer)
        return tuple(scaled(size) if axis in batch_axes else size for axis, size in enumerate(answer))
