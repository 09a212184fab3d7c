"""Recorded shapes of a trace: what every value looks like at two batch sizes, and at another image size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from restnet_search.graph.nodes import is_shape_query

__all__ = ["OtherSize", "look_at_other_size", "record_shapes"]

_REFUSALS = (RuntimeError, AssertionError, ValueError, IndexError, TypeError, KeyError)


@dataclass(frozen=True)
class OtherSize:
    """The values of a trace for larger images than it was made with.

    Attributes:
        shapes: Of all tensors (batch axis included), by the name of the node; empty if the trace refuses the size.
        answers: To queries of shapes and other sizes, likewise.
        alike: Whether the trace then still computes what the model does; False also where either refuses the size.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    answers: Mapping[str, object] = field(default_factory=dict)
    alike: bool = False


class _Recorder(fx.Interpreter):
    """Runs the graph and keeps the shape of every tensor and every other value (sizes)."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.answers: dict[fx.Node, object] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.shapes[n] = tuple(value.shape)
        elif is_shape_query(n) or _is_size(value):
            self.answers[n] = tuple(value) if isinstance(value, tuple | list) else value
        return value


def record_shapes(module: fx.GraphModule, images: Tensor) -> Tensor:
    """Write to each node's ``meta`` what its value looks like; return what the model returns.

    Two batch sizes are run: what differs between them is the batch. ``shape`` is a tensor's shape, ``answer`` the value
    of a shape query, ``batch_axes`` the positions in either that follow the batch size.
    """
    first, second = _Recorder(module), _Recorder(module)
    with torch.no_grad():
        returned = first.run(images)
        second.run(torch.cat([images, images[:1]]).flip(0) * 2)  # other pixels, too
    for node in module.graph.nodes:
        if node in first.shapes:
            node.meta["shape"] = first.shapes[node]
            node.meta["batch_axes"] = _differing(first.shapes[node], second.shapes[node])
        elif node in first.answers:
            node.meta["answer"] = first.answers[node]
            node.meta["batch_axes"] = _differing(first.answers[node], second.answers[node])
    if not isinstance(returned, Tensor):
        raise TypeError(f"the trace returns {type(returned).__name__}, not logits")
    return returned


def look_at_other_size(model: nn.Module, module: fx.GraphModule, images: Tensor) -> OtherSize:
    """Run a trace, in which shapes are recorded, and its model on images of another size than it was made with.

    Args:
        model: In eval mode.
        module: Its trace.
        images: A batch ``(2, C, H, W)``.
    """
    recorder = _Recorder(module)
    with torch.no_grad():
        try:
            returned = recorder.run(images)
        except _REFUSALS:  # a fixed image size is a fact about the model, no failure
            return OtherSize()
        try:
            expected = model(images[:1])
            alike = torch.allclose(returned[:1], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
        except _REFUSALS:
            alike = False
    shapes = {node.name: shape for node, shape in recorder.shapes.items()}
    return OtherSize(shapes, {node.name: answer for node, answer in recorder.answers.items()}, alike)


def _is_size(value: object) -> bool:
    """Say if an operation returned sizes, or None; a number read off the pixels would be a float or a tensor."""
    parts = value if isinstance(value, tuple | list) else (value,)
    return all(part is None or type(part) is int for part in parts)


def _differing(here: object, there: object) -> tuple[int, ...]:
    if isinstance(here, tuple) and isinstance(there, tuple) and len(here) == len(there):
        return tuple(axis for axis, (a, b) in enumerate(zip(here, there, strict=True)) if a != b)
    return (0,) if here != there else ()
