"""The second way to a graph: torch.export, for models whose Python branches on what torch.fx cannot follow."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

__all__ = ["export_graph"]


def export_graph(model: nn.Module, images: Tensor) -> fx.GraphModule:
    """Export a model to a functional graph of aten operations on the model's own parameters.

    The batch axis is dynamic, the image size is not. Every node's ``meta["path"]`` names the module it came from.

    Args:
        model: A model in eval mode.
        images: An example batch ``(B, C, H, W)`` with B > 1.

    Raises:
        Exception: Whatever torch.export raises (its own errors and those of the model's code).
    """
    with torch.no_grad():
        program = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)
        # functional: no operation may overwrite what crosses a cut
        unlifted = program.run_decompositions({}).module(check_guards=False)
    graph, copies = fx.Graph(), {}
    for node in unlifted.graph.nodes:
        if node.op == "output":
            returned = fx.map_arg(node.args[0], lambda source: copies[source])
            graph.output(returned[0] if isinstance(returned, tuple | list) and len(returned) == 1 else returned)
        elif "_assert_" not in str(node.target):  # checks of types and sizes, which nothing uses
            copies[node] = graph.node_copy(node, lambda source: copies[source])
            copies[node].meta = {"path": _path_of(model, node)}
    module = fx.GraphModule(unlifted, graph, class_name=type(model).__name__)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    return module


def _path_of(model: nn.Module, node: fx.Node) -> str:
    """Dotted path of the innermost module of the model that the operation was recorded in ("" at the top)."""
    known = {name for name, _ in model.named_modules()}
    stack = node.meta.get("nn_module_stack") or {}
    return next((path for path, _ in reversed(list(stack.values())) if path in known), "")
