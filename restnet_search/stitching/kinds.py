"""The kinds of stitch layers: what each maps, what it costs, and how least squares starts it.

A new kind is a subclass of :class:`StitchKind`, named in ``STITCH_LAYERS`` of :mod:`restnet_search.registry`, or in an
entry point of a user's package. It knows channels and a grid alone: layouts, resampling and prefix tokens are the
business of :class:`~restnet_search.stitching.plan.StitchPlan` and
:class:`~restnet_search.stitching.layer.StitchLayer`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from restnet_search.costs.cost import Cost
from restnet_search.errors import ExtensionError
from restnet_search.graph.layout import Layout
from restnet_search.registry import STITCH_LAYERS
from restnet_search.stitching.least_squares import LeastSquaresFit, NormalEquations

__all__ = [
    "Block",
    "ClosedForm",
    "Conv3x3",
    "Linear",
    "LowRank",
    "MapShape",
    "Perceptron",
    "StitchKind",
    "draw_weights",
    "stitch_kind",
]


@dataclass(frozen=True)
class MapShape:
    """Sizes of the map in a stitch layer: ``(B, inputs, H, W)`` to ``(B, outputs, *grid)``.

    Attributes:
        inputs: Channels of the front's features.
        outputs: Channels that the back expects.
        kernel: Side of the square of places that one place of the output reads; H and W are those of ``grid`` times
            ``stride``, and the sides are padded with ``kernel // 2`` zeros.
        stride: 2 where the map halves the resolution, else 1.
        grid: Height and width of the output.
    """

    inputs: int
    outputs: int
    kernel: int
    stride: int
    grid: tuple[int, int]

    @property
    def places(self) -> int:
        """Places of the output."""
        return prod(self.grid)

    @property
    def even_width(self) -> float:
        """Channels h through which two 1x1 maps cost as much as one: h (inputs + outputs) = inputs outputs."""
        return self.inputs * self.outputs / (self.inputs + self.outputs)


class ClosedForm:
    """The least-squares solutions that a stitch layer may start from; each is solved when it is asked for.

    Args:
        equations: Of this layer: ``inputs * kernel**2`` values to ``outputs``.
        ridge: Relative to the mean diagonal of the normal equations.
        full: Solves for the best map, together with those of layers that share the equations.
        rescale: Give every output the spread that the back expects, of which least squares gives the share R² alone.
    """

    def __init__(
        self,
        equations: NormalEquations,
        ridge: float,
        full: Callable[[], LeastSquaresFit],
        *,
        rescale: bool = False,
    ) -> None:
        self._equations, self._ridge, self._full, self._rescale = equations, ridge, full, rescale

    def best(self) -> LeastSquaresFit:
        """Return the best linear map; its weight is ``(outputs, inputs * kernel**2)``."""
        fit = self._full()
        return self._equations.scaled(fit, self._equations.gains(fit)) if self._rescale else fit

    def of_rank(self, rank: int) -> tuple[LeastSquaresFit, Tensor, Tensor]:
        """Return the best map of a rank, and its factors ``(outputs, rank)`` and ``(rank, inputs * kernel**2)``."""
        fit, left, right = self._equations.solve_rank(self._ridge, rank)
        if not self._rescale:
            return fit, left, right
        gains = self._equations.gains(fit)
        return self._equations.scaled(fit, gains), left * gains[:, None], right


class StitchKind(ABC):
    """One kind of stitch layer, by the map that it puts between two grids.

    Instances hold nothing: everything about a layer follows from its :class:`MapShape`.
    """

    kernel: ClassVar[int] = 1
    """Side (odd) of the square of places that the map reads where features lie on an image grid. The least-squares
    start is solved for it, and above 1 the map itself halves the resolution where that is asked."""

    def why_not(self, source: Layout, target: Layout) -> str | None:
        """Return the reason why this kind does not join two layouts that stitch layers can join; None: it does."""
        return None

    @abstractmethod
    def build(self, shape: MapShape) -> Mapping[str, nn.Module]:
        """Build the branches of the map by name, which state dicts hold; their outputs are added up.

        Each maps ``(B, inputs, H, W)`` to ``(B, outputs, *grid)``.
        """

    @abstractmethod
    def cost(self, shape: MapShape) -> Cost:
        """Return MACs for one image, by fvcore's rules, and parameters of all branches."""

    def start(self, branches: Mapping[str, nn.Module], generator: torch.Generator | None) -> None:
        """Set the weights before any data is seen, from the generator alone: by default as torch's layers draw them."""
        for branch in branches.values():
            draw_weights(branch, generator)

    def initialize(self, branches: Mapping[str, nn.Module], closed_form: ClosedForm) -> float:
        """Set the weights by least squares; by default they stay as :meth:`start` left them.

        Gradients are off.

        Returns:
            R^2 of what the map then explains, pooled over channels and places; 0 where nothing was set.
        """
        return 0.0

    def affine_layers(self, branches: Mapping[str, nn.Module]) -> Sequence[nn.Conv2d]:
        """Return the layers that map all that the map reads to all that it gives, each with a bias.

        ``training.whiten`` lets them learn in coordinates of their own; by default none does.
        """
        return ()


class Linear(StitchKind):
    """One convolution over single places (1x1)."""

    def build(self, shape: MapShape) -> Mapping[str, nn.Module]:
        kernel = shape.kernel
        return {"map": nn.Conv2d(shape.inputs, shape.outputs, kernel, stride=shape.stride, padding=kernel // 2)}

    def cost(self, shape: MapShape) -> Cost:
        weights = shape.inputs * shape.outputs * shape.kernel**2
        return Cost(weights * shape.places, weights + shape.outputs)

    def initialize(self, branches: Mapping[str, nn.Module], closed_form: ClosedForm) -> float:
        fit = closed_form.best()
        _set_layer(branches["map"], fit.weight, fit.bias)
        return fit.r2

    def affine_layers(self, branches: Mapping[str, nn.Module]) -> Sequence[nn.Conv2d]:
        return (cast(nn.Conv2d, branches["map"]),)


class Conv3x3(Linear):
    """One convolution over 3x3 places, which also halves the resolution where that is asked."""

    kernel = 3


class LowRank(StitchKind):
    """Two 1x1 convolutions through fewer channels: half the MACs of ``linear``."""

    @staticmethod
    def width(shape: MapShape) -> int:
        """Channels between both."""
        return max(1, int(shape.even_width * 0.5))

    def build(self, shape: MapShape) -> Mapping[str, nn.Module]:
        width = self.width(shape)
        inner = nn.Conv2d(shape.inputs, width, 1, bias=False)
        return {"map": nn.Sequential(inner, nn.Conv2d(width, shape.outputs, 1))}

    def cost(self, shape: MapShape) -> Cost:
        weights = self.width(shape) * (shape.inputs + shape.outputs)
        return Cost(weights * shape.places, weights + shape.outputs)

    def initialize(self, branches: Mapping[str, nn.Module], closed_form: ClosedForm) -> float:
        inner, outer = cast(Sequence[nn.Conv2d], branches["map"])
        fit, left, right = closed_form.of_rank(inner.out_channels)
        _set_layer(inner, right)
        _set_layer(outer, left, fit.bias)
        return fit.r2


class Perceptron(Linear):
    """A 1x1 convolution plus a perceptron with one hidden GELU layer per place: twice the MACs of ``linear``.

    The perceptron adds nothing until it has learned something.
    """

    @staticmethod
    def width(shape: MapShape) -> int:
        """Channels of the hidden layer."""
        return max(1, int(shape.even_width))

    def build(self, shape: MapShape) -> Mapping[str, nn.Module]:
        width = self.width(shape)
        layers = nn.Conv2d(shape.inputs, width, 1), nn.GELU(), nn.Conv2d(width, shape.outputs, 1)
        return {**super().build(shape), "mlp": nn.Sequential(*layers)}

    def cost(self, shape: MapShape) -> Cost:
        width = self.width(shape)
        weights = width * (shape.inputs + shape.outputs)
        return super().cost(shape) + Cost(weights * shape.places, weights + width + shape.outputs)

    def start(self, branches: Mapping[str, nn.Module], generator: torch.Generator | None) -> None:
        super().start(branches, generator)
        _, _, last = cast(Sequence[nn.Conv2d], branches["mlp"])
        for tensor in last.parameters():
            nn.init.zeros_(tensor)


class Block(Conv3x3):
    """A 3x3 convolution plus two of them with GELU between: what a residual block can add to the linear map.

    The second branch adds nothing until it has learned something.
    """

    @staticmethod
    def width(shape: MapShape) -> int:
        """Channels of the hidden layer: twice those of the output."""
        return 2 * shape.outputs

    def build(self, shape: MapShape) -> Mapping[str, nn.Module]:
        width, kernel = self.width(shape), shape.kernel
        first = nn.Conv2d(shape.inputs, width, kernel, stride=shape.stride, padding=kernel // 2)
        second = nn.Conv2d(width, shape.outputs, kernel, padding=kernel // 2)
        return {**super().build(shape), "block": nn.Sequential(first, nn.GELU(), second)}

    def cost(self, shape: MapShape) -> Cost:
        width = self.width(shape)
        weights = width * (shape.inputs + shape.outputs) * shape.kernel**2
        return super().cost(shape) + Cost(weights * shape.places, weights + width + shape.outputs)

    def start(self, branches: Mapping[str, nn.Module], generator: torch.Generator | None) -> None:
        super().start(branches, generator)
        _, _, last = cast(Sequence[nn.Conv2d], branches["block"])
        for tensor in last.parameters():
            nn.init.zeros_(tensor)


def stitch_kind(name: str) -> StitchKind:
    """Return the kind of that name; one of an installed package must have been admitted before.

    Raises:
        ExtensionError: As ``STITCH_LAYERS.get``, or if what is registered is no :class:`StitchKind`.
    """
    registered = STITCH_LAYERS.get(name)
    if not (isinstance(registered, type) and issubclass(registered, StitchKind)):
        raise ExtensionError(f"The stitch layer {name!r} is {registered!r}.", expected="a subclass of StitchKind")
    return registered()


def draw_weights(module: nn.Module, generator: torch.Generator | None) -> None:
    """Draw the weights of convolutions and linear layers as torch does (uniform within 1 / sqrt(fan in))."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound = layer.weight[0].numel() ** -0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            if layer.bias is not None:
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def _set_layer(layer: nn.Module, weight: Tensor, bias: Tensor | None = None) -> None:
    own = layer.get_parameter("weight")
    own.copy_(weight.reshape(own.shape))
    if bias is not None:
        layer.get_parameter("bias").copy_(bias)
