"""Stitch layer ``separable``: a linear map of channels plus one of each channel's neighbourhood."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from restnet_search.costs.cost import Cost
from restnet_search.graph.layout import Layout
from restnet_search.stitching.kinds import ClosedForm, MapShape, StitchKind


class Separable(StitchKind):
    """A 1x1 convolution beside a depthwise 3x3 one with a 1x1 one behind it, which adds nothing at the start."""

    def why_not(self, source: Layout, target: Layout) -> str | None:
        return None if target.spatial else "pooled features have no neighbourhood"

    def build(self, shape: MapShape) -> Mapping[str, nn.Module]:
        around = nn.Conv2d(shape.inputs, shape.inputs, 3, padding=1, groups=shape.inputs, bias=False)
        return {
            "map": nn.Conv2d(shape.inputs, shape.outputs, 1),
            "around": nn.Sequential(around, nn.Conv2d(shape.inputs, shape.outputs, 1, bias=False)),
        }

    def cost(self, shape: MapShape) -> Cost:
        weights = 2 * shape.inputs * shape.outputs + 9 * shape.inputs
        return Cost(weights * shape.places, weights + shape.outputs)

    def start(self, branches: Mapping[str, nn.Module], generator: torch.Generator | None) -> None:
        super().start(branches, generator)
        nn.init.zeros_(branches["around"].get_parameter("1.weight"))

    def initialize(self, branches: Mapping[str, nn.Module], closed_form: ClosedForm) -> float:
        fit = closed_form.best()
        weight = branches["map"].get_parameter("weight")
        weight.copy_(fit.weight.reshape(weight.shape))
        branches["map"].get_parameter("bias").copy_(fit.bias)
        return fit.r2
