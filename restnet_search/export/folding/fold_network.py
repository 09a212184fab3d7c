"""Fewer operations and bytes for the same function: batch-norms and 1x1 stitch layers fold into their neighbours.

Works on torch.fx graphs and never changes the network it is given: folded layers are new ones, all other parameters are
shared with it. Sums are formed in float64, so the outputs differ by float32 rounding alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from restnet_search.costs.cost import Cost
from restnet_search.costs.cost_table import module_cost
from restnet_search.export.folding.fold_stitch import fold_stitch
from restnet_search.export.folding.linear_maps import argument, constant, linear_map_at, replace_weights
from restnet_search.stitching.layer import Hybrid, resample

__all__ = ["Folded", "flatten_hybrid", "fold_batch_norms", "fold_network", "folded_cost"]


@dataclass(frozen=True)
class Folded:
    """A network with folded layers.

    Attributes:
        module: Computes what the network computes; in eval mode.
        batch_norms: How many batch-norms were folded away.
        stitch_into: Paths of the layers that took the stitch layer in; empty where it stays.
    """

    module: nn.Module
    batch_norms: int = 0
    stitch_into: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.batch_norms} batch-norms folded into the layers before them"] if self.batch_norms else []
        if self.stitch_into:
            parts.append(f"the stitch layer folded into {', '.join(self.stitch_into)}")
        return "; ".join(parts)


def fold_network(network: nn.Module, image_size: tuple[int, int, int]) -> Folded:
    """Fold what can be folded exactly in a hybrid or a traced anchor; any other module is returned as it is.

    Args:
        network: In eval mode; images ``(B, C, H, W)`` to logits.
        image_size: ``(C, H, W)``.
    """
    if isinstance(network, Hybrid):
        if not all(isinstance(part, fx.GraphModule) for part in (network.front, network.back)):
            return Folded(network)
        module = flatten_hybrid(network)
    elif isinstance(network, fx.GraphModule):
        module = fx.GraphModule(network, _copy_graph(network.graph), class_name=network.__class__.__name__)
    else:
        return Folded(network)
    with torch.no_grad():
        batch_norms = fold_batch_norms(module)
        stitch_into = fold_stitch(module, image_size)
    return Folded(_only_what_is_used(module), batch_norms, stitch_into)


def folded_cost(network: nn.Module, image_size: tuple[int, int, int]) -> Cost:
    """Count what a network costs as exports with a graph hold it; arguments as for :func:`fold_network`."""
    return module_cost(fold_network(network, image_size).module, image_size)


def flatten_hybrid(hybrid: Hybrid) -> fx.GraphModule:
    """Return one graph of front, stitch layer and back on the hybrid's own parameters, under the hybrid's own names."""
    graph = fx.Graph()
    value: fx.Node = graph.placeholder("x")
    for name, part in (("front", hybrid.front), ("stitch", _trace_stitch(hybrid.stitch)), ("back", hybrid.back)):
        value = _append(graph, cast(fx.GraphModule, part).graph, value, f"{name}.")
    graph.output(value)
    return fx.GraphModule(hybrid, graph, class_name="Hybrid").eval()


def _trace_stitch(stitch: nn.Module) -> fx.GraphModule:
    # resampling asks for the size of its input, so it stays one operation
    tracer = fx.Tracer(autowrap_functions=(resample,))
    return fx.GraphModule(stitch, tracer.trace(stitch))


def _append(graph: fx.Graph, part: fx.Graph, value: fx.Node, prefix: str) -> fx.Node:
    """Copy the operations of a part whose input is ``value``; returns the copy of its output."""
    copies: dict[fx.Node, fx.Node] = {}
    for node in part.nodes:
        if node.op == "placeholder":
            copies[node] = value
        elif node.op == "output":
            return copies[node.args[0]]
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
            if node.op in ("call_module", "get_attr"):
                copies[node].target = f"{prefix}{node.target}"
            if path := node.meta.get("path"):
                copies[node].meta["path"] = f"{prefix}{path}"
    raise ValueError("the graph has no output")


def _copy_graph(graph: fx.Graph) -> fx.Graph:
    copy = fx.Graph()
    copy.output(_append(copy, graph, copy.placeholder("x"), ""))
    return copy


def _only_what_is_used(module: fx.GraphModule) -> fx.GraphModule:
    module.graph.eliminate_dead_code()
    module.graph.lint()
    # a fresh GraphModule takes over only what its graph names
    used = fx.GraphModule(module, module.graph, class_name=module.__class__.__name__)
    return used.eval().requires_grad_(False)


@dataclass(frozen=True)
class _Norm:
    """A batch-norm in eval mode, ``y = x * scale + shift`` per channel (float64), and what follows in its module."""

    scale: Tensor
    shift: Tensor
    then: tuple[nn.Module, ...] = ()


def fold_batch_norms(module: fx.GraphModule) -> int:
    """Fold every batch-norm that alone reads a convolution (or a linear layer of vectors) into it; returns how many.

    Handled are ``nn.BatchNorm*d``, timm's ``BatchNormAct2d`` (its activation stays) and ``F.batch_norm``. Those with
    statistics that the graph computes, and those before their convolution, stay.
    """
    folded = 0
    for node in list(module.graph.nodes):
        norm = _norm_at(module, node)
        source = node.args[0] if node.args else None
        if norm is None or not isinstance(source, fx.Node) or len(source.users) > 1:
            continue
        layer = linear_map_at(module, source)
        if layer is None or (layer.weight.ndim == 2 and len(source.meta.get("shape", ())) != 2):
            continue  # of (B, N, C), a batch-norm takes axis 1 for the channels, a linear layer the last
        weight = layer.weight.double() * norm.scale.view(-1, *[1] * (layer.weight.ndim - 1))
        bias = norm.shift if layer.bias is None else layer.bias.double() * norm.scale + norm.shift
        replace_weights(module, layer, weight, bias)
        value = source
        with module.graph.inserting_before(node):
            for index, rest in enumerate(norm.then):
                module.add_submodule(f"after_{node.name}_{index}", rest)
                value = module.graph.call_module(f"after_{node.name}_{index}", (value,))
        node.replace_all_uses_with(value)
        module.graph.erase_node(node)
        folded += 1
    module.recompile()
    return folded


def _norm_at(module: fx.GraphModule, node: fx.Node) -> _Norm | None:
    from timm.layers import BatchNormAct2d

    if node.op == "call_module":
        norm = module.get_submodule(str(node.target))
        if type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d):
            return None
        then = (norm.get_submodule("drop"), norm.get_submodule("act")) if type(norm) is BatchNormAct2d else ()
        kept = tuple(rest for rest in then if not isinstance(rest, nn.Identity))
        norm = cast(nn.BatchNorm2d, norm)
        return _norm(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps, kept)
    if node.op == "call_function" and node.target is F.batch_norm:
        if argument(node, 5, "training"):
            return None
        names = ("running_mean", "running_var", "weight", "bias")
        given = [argument(node, at, name) for at, name in enumerate(names, 1)]
        mean, variance, weight, bias = tensors = [constant(module, value) for value in given]
        if any(value is not None and constant is None for value, constant in zip(given, tensors, strict=True)):
            return None
        eps = argument(node, 7, "eps")
        return _norm(mean, variance, weight, bias, eps if isinstance(eps, float) else 1e-5, ())
    return None


def _norm(
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    then: tuple[nn.Module, ...],
) -> _Norm | None:
    if mean is None or variance is None:  # it normalizes by the batch at hand
        return None
    scale = (variance.double() + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.double()
    shift = -mean.double() * scale
    return _Norm(scale, shift if bias is None else shift + bias.double(), then)
