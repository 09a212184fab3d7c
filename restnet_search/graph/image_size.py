"""Image sizes that the parts of a cut model hold for: where sizes are part of them, any other is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from restnet_search.errors import GraphError
from restnet_search.graph.slicing import recorded_queries
from restnet_search.graph.trace import TracedModel

__all__ = ["OneSize", "keep_size_check", "size_is_fixed", "take_one_size"]


@dataclass(frozen=True)
class OneSize:
    """A check before each forward: the input must have the shape that the part was cut for; the batch is left open.

    Attributes:
        model: Name of the model's class.
        image: ``(C, H, W)`` of the images that it was cut for.
        shape: Of the part's input for one image.
    """

    model: str
    image: tuple[int, int, int]
    shape: tuple[int, ...]

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Compare shapes.

        Raises:
            GraphError: If they differ.
        """
        if torch.jit.is_tracing() or torch.compiler.is_compiling():  # shapes are no plain numbers there
            return
        came = tuple(inputs[0].shape[1:])
        if came != self.shape:
            size = "x".join(map(str, self.image[1:]))
            raise GraphError(
                f"This part of {self.model} was cut for images of {size}, and its input has another size:"
                f" {_described(came)}.",
                expected=f"{_described(self.shape)} for each image",
                hint="resize the images to that size, or give the anchor another one (kwargs: {img_size: ...}, or"
                " {pretrained_cfg_overlay: {input_size: [3, H, W]}}) and search again",
            )


def size_is_fixed(traced: TracedModel, start: fx.Node | None, stops: Sequence[fx.Node]) -> bool:
    """Say if a slice holds for one image size alone; arguments as for :func:`restnet_search.graph.slicing.slice_model`.

    So it is where the trace does not compute what the model computes at another size, or where the slice needs a size
    that only a tensor before the cut could tell: the grid of features that cross as a sequence of tokens.
    """
    other = traced.other_size
    if not other.alike:
        return True
    queries = recorded_queries(traced, start, stops)
    return any(_moves(query, used, other.answers) for query, used in queries.items())


def _moves(query: fx.Node, used: frozenset[int] | None, answers: Mapping[str, object]) -> bool:
    """Say if what is used of a recorded answer (None: all of it) is another at another size; the batch is not asked."""
    here, there = query.meta["answer"], answers.get(query.name)
    if not isinstance(here, tuple) or not isinstance(there, tuple):
        return here != there
    axes = range(len(here)) if used is None else used
    return len(here) != len(there) or any(here[axis] != there[axis] for axis in axes)


def take_one_size(part: fx.GraphModule, traced: TracedModel, start: fx.Node | None) -> fx.GraphModule:
    """Let a part refuse inputs of any other size than it was cut for; return it."""
    source = start if start is not None else traced.image
    check = OneSize(type(traced.model).__name__, traced.image_size, tuple(source.meta["shape"][1:]))
    part.register_forward_pre_hook(check)
    return part


def keep_size_check(part: nn.Module, copy: nn.Module) -> None:
    """Give a copy of a part the check that the part has: copies of a torch.fx module lose it."""
    held = set(copy._forward_pre_hooks.values())
    for hook in part._forward_pre_hooks.values():
        if isinstance(hook, OneSize) and hook not in held:
            copy.register_forward_pre_hook(hook)


def _described(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
