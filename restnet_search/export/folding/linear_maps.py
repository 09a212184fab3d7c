"""Convolutions and linear layers of a torch.fx graph: find them, and let them compute with other weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

__all__ = ["CONVOLUTIONS", "LinearMap", "argument", "constant", "linear_map_at", "replace_weights"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class LinearMap:
    """A convolution or a linear layer of a graph, with constant weights ``(out, in / groups, *kernel)``."""

    node: fx.Node
    weight: Tensor
    bias: Tensor | None

    @property
    def source(self) -> fx.Node:
        return cast(fx.Node, self.node.args[0])

    @property
    def path(self) -> str:
        return str(self.node.target) if self.node.op == "call_module" else str(self.node.meta.get("path", self.node))


def linear_map_at(module: fx.GraphModule, node: fx.Node) -> LinearMap | None:
    """Return the layer at a node; None where it is something else, or a subclass that does more to its weights."""
    if not node.args or not isinstance(node.args[0], fx.Node):
        return None
    if node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        if type(layer) in (*CONVOLUTIONS, nn.Linear) or _pads_itself(layer):
            return LinearMap(node, cast(Tensor, layer.weight), cast("Tensor | None", layer.bias))
    elif node.op == "call_function" and node.target in (F.conv2d, F.linear):
        weight, bias = (constant(module, argument(node, at, name)) for at, name in ((1, "weight"), (2, "bias")))
        if weight is not None and (bias is not None or argument(node, 2, "bias") is None):
            return LinearMap(node, weight, bias)
    return None


def _pads_itself(layer: nn.Module) -> bool:
    """Return True for timm's convolution with TensorFlow's padding: a plain convolution of the padded input."""
    from timm.layers import Conv2dSame

    return type(layer) is Conv2dSame


def argument(node: fx.Node, position: int, name: str) -> object:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name)


def constant(module: fx.GraphModule, value: object) -> Tensor | None:
    """Return the tensor behind a ``get_attr`` node."""
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return None
    owner, _, name = str(value.target).rpartition(".")
    tensor = getattr(module.get_submodule(owner), name)
    return tensor if isinstance(tensor, Tensor) else None


def replace_weights(module: fx.GraphModule, layer: LinearMap, weight: Tensor, bias: Tensor) -> None:
    """Let the node compute with other weights (its input may have another width), in a layer of its own."""
    node, name = layer.node, f"folded_{layer.node.name}"
    parameters = [nn.Parameter(value.to(layer.weight.dtype), requires_grad=False) for value in (weight, bias)]
    if node.op == "call_module":
        old = module.get_submodule(str(node.target))
        with torch.device("meta"):  # the weights drawn here are not used
            new = _like(old, weight)
        new.weight, new.bias = parameters
        module.add_submodule(name, new.eval())
        node.target = name
        return
    with module.graph.inserting_before(node):
        constants = []
        for parameter, kind in zip(parameters, ("weight", "bias"), strict=True):
            module.register_parameter(f"{name}_{kind}", parameter)
            constants.append(module.graph.get_attr(f"{name}_{kind}"))
    kwargs = {key: value for key, value in node.kwargs.items() if key not in ("weight", "bias")}
    node.args, node.kwargs = (node.args[0], *constants, *node.args[3:]), kwargs


def _like(layer: nn.Module, weight: Tensor) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return nn.Linear(weight.shape[1], weight.shape[0])
    assert isinstance(layer, CONVOLUTIONS)
    cls = cast("type[nn.Conv2d]", type(layer))
    settings = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
    new = cls(weight.shape[1] * layer.groups, weight.shape[0], cast(Any, layer.kernel_size), **settings)
    new.padding_mode, new._reversed_padding_repeated_twice = layer.padding_mode, layer._reversed_padding_repeated_twice
    return new
