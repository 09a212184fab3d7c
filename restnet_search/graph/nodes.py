"""Dependence of a graph node's value: on the pixels of the image, or on its shape alone."""

from __future__ import annotations

import torch
from torch import fx

__all__ = ["ancestors", "data_dependent", "is_shape_query"]

_SHAPE_METHODS = frozenset({"size", "dim", "numel", "stride", "is_contiguous", "element_size"})
_SHAPE_ATTRIBUTES = frozenset({"shape", "ndim", "dtype", "device", "is_cuda", "layout", "requires_grad"})
_SHAPE_FUNCTIONS = (len, torch.ops.aten.sym_size.int, torch.ops.aten.sym_numel.default)  # the latter: torch.export's


def is_shape_query(node: fx.Node) -> bool:
    """Say if the node asks a tensor for its shape, type or device, and so does not depend on the pixels.

    So do, once a trace has recorded its values, operations that return sizes (``meta["answer"]``).
    """
    if "answer" in node.meta:
        return True
    if node.op == "call_method":
        return node.target in _SHAPE_METHODS
    if node.op == "call_function" and node.target is getattr:
        return node.args[1] in _SHAPE_ATTRIBUTES
    return node.op == "call_function" and node.target in _SHAPE_FUNCTIONS


def data_dependent(graph: fx.Graph) -> set[fx.Node]:
    """The nodes whose value depends on the pixels of the image, not just on its shape."""
    dependent: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or (
            not is_shape_query(node) and any(source in dependent for source in node.all_input_nodes)
        ):
            dependent.add(node)
    return dependent


def ancestors(node: fx.Node) -> set[fx.Node]:
    """All nodes that the node's value is computed from."""
    seen: set[fx.Node] = set()
    pending = list(node.all_input_nodes)
    while pending:
        source = pending.pop()
        if source not in seen:
            seen.add(source)
            pending.extend(source.all_input_nodes)
    return seen
