"""Evidence about the axes of features: which axis operations treat as channels."""

from __future__ import annotations

from torch import fx, nn

__all__ = ["channel_axis"]


def channel_axis(root: nn.Module, node: fx.Node) -> int | None:
    """The axis that the layers around a node treat as channels: 1 by convolutions, the last by linear layers.

    Follows elementwise operations (same shape) forwards and backwards to the nearest layer that tells.
    """
    shape: tuple[int, ...] = node.meta.get("shape", ())
    seen: set[fx.Node] = {node}
    frontier = [node]
    while frontier:
        reached: list[fx.Node] = []
        for current in frontier:
            if (axis := _told_by(root, current, shape)) is not None:
                return axis
            reached += [
                other
                for other in (*current.users, *current.all_input_nodes)
                if other not in seen and other.meta.get("shape") == shape
            ]
            for user in current.users:
                if user not in seen and (axis := _told_by(root, user, shape, as_input=True)) is not None:
                    return axis
        seen.update(reached)
        frontier = reached
    return None


def _told_by(root: nn.Module, node: fx.Node, shape: tuple[int, ...], *, as_input: bool = False) -> int | None:
    """Read off a layer which axis of its output (or, ``as_input``, of its input) holds channels."""
    if node.op != "call_module":
        return None
    module = root.get_submodule(str(node.target))
    if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
        return 1
    if isinstance(module, nn.Linear):
        return len(shape) - 1
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        # subclasses exist that normalise axis 1 of NCHW (LayerNorm2d): the size must settle it
        width = module.normalized_shape[0]
        axes = [axis for axis in range(1, len(shape)) if shape[axis] == width]
        return axes[0] if len(axes) == 1 else None
    return None
