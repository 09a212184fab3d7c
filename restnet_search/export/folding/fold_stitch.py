"""A 1x1 stitch layer folds into the layers that read it, where that is exact."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from restnet_search.export.folding.linear_maps import CONVOLUTIONS, LinearMap, argument, linear_map_at, replace_weights
from restnet_search.stitching.layer import resample

__all__ = ["fold_stitch"]

_STITCH = "stitch.map"


def fold_stitch(module: fx.GraphModule, image_size: tuple[int, int, int]) -> tuple[str, ...]:
    """Fold a 1x1 stitch layer into the layers that read it, where that is exact and costs nothing.

    Exact it is where nothing but unpadded convolutions and linear layers read it (no residual, no normalization, and
    no zero padding, which knows nothing of the stitch layer's bias), directly or through averages over places.
    Free it is where neither parameters nor MACs grow.

    Args:
        module: As :func:`flatten_hybrid` makes it.
        image_size: ``(C, H, W)``.

    Returns:
        Paths of the layers it was folded into; empty where it stays.
    """
    node = next((node for node in module.graph.nodes if node.target == _STITCH), None)
    stitch = linear_map_at(module, node) if node is not None else None
    if node is None or stitch is None or prod(stitch.weight.shape[2:]) != 1:
        return ()
    shapes = _Shapes(module).of(torch.zeros(2, *image_size))
    readers = _readers(module, node, shapes)
    if not readers or not _is_free(stitch, readers, shapes):
        return ()
    paths = tuple(reader.path for reader in readers)
    stitch_weight, stitch_bias = stitch.weight.double().flatten(1), cast(Tensor, stitch.bias).double()
    for reader in readers:
        weight = reader.weight.double()
        bias = torch.einsum("ot...,t->o", weight, stitch_bias)
        if reader.bias is not None:
            bias = bias + reader.bias.double()
        replace_weights(module, reader, torch.einsum("ot...,ts->os...", weight, stitch_weight), bias)
    node.replace_all_uses_with(stitch.source)
    module.graph.erase_node(node)
    module.recompile()
    return paths


class _Shapes(fx.Interpreter):
    """Shapes of all values, batch axis included."""

    def of(self, images: Tensor) -> dict[fx.Node, tuple[int, ...]]:
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.run(images)
        return self.shapes

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.shapes[n] = tuple(value.shape)
        return value


def _readers(module: fx.GraphModule, node: fx.Node, shapes: dict[fx.Node, tuple[int, ...]]) -> list[LinearMap] | None:
    """Return the layers that read a value (channels: axis 1), through averages; None if anything else reads it."""
    readers: list[LinearMap] = []
    for user in node.users:
        layer = linear_map_at(module, user)
        if layer is not None and layer.source is node:
            if not _unpadded(module, layer, shapes[node]):
                return None
            readers.append(layer)
        elif _averages(module, user, shapes):
            beyond = _readers(module, user, shapes)
            if beyond is None:
                return None
            readers += beyond
        else:
            return None
    return readers


def _unpadded(module: fx.GraphModule, layer: LinearMap, shape: Sequence[int]) -> bool:
    """Return True if the layer maps all channels (axis 1) to each output, at places inside the grid alone."""
    if layer.weight.ndim == 2:
        return len(shape) == 2
    if layer.node.op != "call_module":
        return len(layer.node.args) == 3 and layer.node.kwargs.keys() <= {"stride"}
    convolution = module.get_submodule(str(layer.node.target))
    if type(convolution) not in CONVOLUTIONS:
        return False
    convolution = cast(nn.Conv2d, convolution)
    return convolution.groups == 1 and not isinstance(convolution.padding, str) and not any(convolution.padding)


def _averages(module: fx.GraphModule, node: fx.Node, shapes: dict[fx.Node, tuple[int, ...]]) -> bool:
    """Return True if every channel of the value (axis 1) is an average over places of the same channel of the input."""
    before, after = shapes.get(cast(fx.Node, node.args[0]), ()), shapes.get(node, ())
    same_channels = len(before) >= 2 <= len(after) and before[:2] == after[:2]
    if not same_channels:
        return False
    one_place = prod(before[2:]) == 1
    if node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        if isinstance(layer, nn.AvgPool2d):
            return layer.padding in (0, (0, 0)) and layer.ceil_mode is False
        return isinstance(layer, nn.Identity | nn.Dropout | nn.AdaptiveAvgPool2d) or (
            isinstance(layer, nn.Flatten) and one_place
        )
    if node.op == "call_function":
        return bool(node.target in (resample, F.adaptive_avg_pool2d))
    if node.op == "call_method":
        if node.target == "mean":
            return argument(node, 1, "dim") in ((2, 3), [2, 3], (-2, -1), [-2, -1]) and len(before) == 4
        return node.target == "contiguous" or (node.target == "flatten" and one_place)
    return False


def _is_free(stitch: LinearMap, readers: Sequence[LinearMap], shapes: dict[fx.Node, tuple[int, ...]]) -> bool:
    growth = stitch.weight.shape[1] / stitch.weight.shape[0] - 1
    params = sum(reader.weight.numel() for reader in readers)
    macs = sum(reader.weight.numel() * prod(shapes[reader.node][2:]) for reader in readers)
    saved_params = stitch.weight.numel() + stitch.weight.shape[0]
    saved_macs = stitch.weight.numel() * prod(shapes[stitch.node][2:])
    return params * growth <= saved_params and macs * growth <= saved_macs
