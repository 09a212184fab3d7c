"""Layout of a feature tensor: which axis holds channels, which the image grid, which tokens come first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

__all__ = ["Layout", "LayoutKind", "layout_from_shapes"]

_MOST_PREFIX = 5  # class, distillation and register tokens of models that do not declare them

LayoutKind = Literal["NCHW", "NHWC", "tokens", "vector", "unknown"]


@dataclass(frozen=True)
class Layout:
    """Meaning of the axes of a feature tensor (the batch axis comes first and is left out).

    ============ ============================================ ==============================
    kind         tensor                                       fields that count
    ============ ============================================ ==============================
    ``NCHW``     ``(B, channels, h, w)``                      ``channels``, ``grid``
    ``NHWC``     ``(B, h, w, channels)``                      ``channels``, ``grid``
    ``tokens``   ``(B, prefix + h * w, channels)``, or        ``channels``, ``grid``, ``prefix``, ``order``,
                 ``(B, *places, channels)``                   ``places``
    ``vector``   ``(B, channels)``                            ``channels``
    ``unknown``  anything else; ``(B, *places, channels)``    ``channels``, ``places``, ``family`` (empty and 0
                 where the channels are known to come last    where even that is not known)
    ============ ============================================ ==============================

    ``order`` holds for every place of the grid, row by row, the index of its token (prefix tokens not counted); empty
    where tokens lie row by row themselves. ``places`` are set where tokens have two axes (NesT's blocks), which are
    counted as one.

    What lies where is not known of ``unknown`` features, but it is the same in two models of one ``family`` (the
    Python module of their class), so there features of the same ``places`` may be mapped place by place.
    """

    kind: LayoutKind
    channels: int = 0
    grid: tuple[int, int] | None = None
    prefix: int = 0
    order: tuple[int, ...] = ()
    places: tuple[int, ...] = ()
    family: str = ""

    @property
    def spatial(self) -> bool:
        """Say if the features lie on an image grid."""
        return self.grid is not None

    def to_grid(self, features: Tensor) -> Tensor:
        """Bring features of this layout to ``(B, channels, h, w)``; prefix tokens are dropped, vectors become 1x1.

        The places of an unknown layout become one row, in the order in which they come.
        """
        if self.kind == "NCHW":
            return features
        if self.kind == "NHWC":
            return features.permute(0, 3, 1, 2)
        if self.kind == "tokens" and self.grid is not None:
            patches = features.flatten(1, -2)[:, self.prefix :]
            if self.order:
                patches = patches[:, list(self.order)]
            return patches.transpose(1, 2).reshape(-1, self.channels, self.grid[0], self.grid[1])
        if self.kind == "vector":
            return features[:, :, None, None]
        if self.places:
            return features.flatten(1, -2).transpose(1, 2)[:, :, None]
        raise ValueError(f"features of layout {self.kind!r} have no grid")

    def from_grid(self, grid: Tensor) -> Tensor:
        """Bring ``(B, channels, h, w)`` to this layout, without prefix tokens; the inverse of :meth:`to_grid`."""
        if self.kind == "NCHW":
            return grid
        if self.kind == "NHWC":
            return grid.permute(0, 2, 3, 1)
        if self.kind == "tokens":
            patches = grid.flatten(2).transpose(1, 2)
            if self.order:
                patches = patches[:, sorted(range(len(self.order)), key=self.order.__getitem__)]
            return patches.unflatten(1, self.places) if self.places else patches
        if self.kind == "vector":
            return grid.flatten(1)
        if self.places:
            return grid.flatten(2).transpose(1, 2).unflatten(1, self.places)
        raise ValueError(f"features of layout {self.kind!r} have no grid")

    def __str__(self) -> str:
        if self.kind == "tokens" and self.grid:
            lead = f"{self.prefix}+" if self.prefix else ""
            return f"tokens {lead}{self.grid[0]}x{self.grid[1]}{' reordered' if self.order else ''}"
        return self.kind


def layout_from_shapes(
    shape: Sequence[int],
    image: tuple[int, int],
    *,
    other_shape: Sequence[int] | None = None,
    declared_prefix: int = 0,
    channel_axis: int | None = None,
    grids: Sequence[tuple[int, int]] = (),
) -> Layout:
    """Derive a layout from what is known about a feature tensor.

    Args:
        shape: Shape for one image, batch axis included.
        image: Height and width of that image.
        other_shape: Shape for an image of another size; the axes that moved are spatial.
        declared_prefix: Prefix tokens that the model declares (timm's ``num_prefix_tokens``).
        channel_axis: Axis of the channels as the operations around the tensor tell (a convolution, a linear layer).
        grids: Grids that the model's convolutions put out; tokens lie on one of them, or on one that divides the image.

    Returns:
        The layout; ``unknown`` where the evidence does not settle it.
    """
    moved = None
    if other_shape is not None and len(other_shape) == len(shape):
        moved = {axis for axis in range(1, len(shape)) if shape[axis] != other_shape[axis]}
    if len(shape) == 2:
        return Layout("vector", shape[1]) if not moved else Layout("unknown")
    if len(shape) == 4:
        layout = _layout_of_grid(shape, moved, channel_axis)
        if layout.grid is None or _like_the_image(layout.grid, image):
            return layout
        return _layout_of_blocks(shape, image, grids) if layout.kind == "NHWC" else Layout("unknown")
    if len(shape) == 3:
        return _layout_of_tokens(shape, image, moved, declared_prefix, channel_axis, grids)
    return Layout("unknown")


def _layout_of_grid(shape: Sequence[int], moved: set[int] | None, channel_axis: int | None) -> Layout:
    nchw = Layout("NCHW", shape[1], (shape[2], shape[3]))
    nhwc = Layout("NHWC", shape[3], (shape[1], shape[2]))
    if moved == {2, 3}:
        return nchw
    if moved == {1, 2}:
        return nhwc
    if moved:
        return Layout("unknown")
    if channel_axis in (1, 3):
        return nchw if channel_axis == 1 else nhwc
    if shape[2] == shape[3] and shape[1] != shape[2]:
        return nchw
    if shape[1] == shape[2] and shape[2] != shape[3]:
        return nhwc
    return Layout("unknown")


def _layout_of_tokens(
    shape: Sequence[int],
    image: tuple[int, int],
    moved: set[int] | None,
    declared_prefix: int,
    channel_axis: int | None,
    grids: Sequence[tuple[int, int]],
) -> Layout:
    if moved and moved != {1}:
        return Layout("unknown")
    if not moved and channel_axis not in (None, 2):
        return Layout("unknown")
    count, channels = shape[1], shape[2]
    for prefix in dict.fromkeys((0, declared_prefix, *range(1, _MOST_PREFIX + 1))):
        drawn = (grid for grid in grids if grid[0] * grid[1] == count - prefix and _like_the_image(grid, image))
        if grid := _grid_of(count - prefix, image) or next(drawn, None):
            return Layout("tokens", channels, grid, prefix)
    return Layout("unknown")


def _layout_of_blocks(shape: Sequence[int], image: tuple[int, int], grids: Sequence[tuple[int, int]]) -> Layout:
    """Tokens in blocks ``(B, blocks, tokens, channels)``; in which order they lie is still to be found."""
    _, blocks, tokens, channels = shape
    grid = _grid_of(blocks * tokens, image) or next((g for g in grids if g[0] * g[1] == blocks * tokens), None)
    return Layout("tokens", channels, grid, places=(blocks, tokens)) if grid else Layout("unknown")


def _grid_of(tokens: int, image: tuple[int, int]) -> tuple[int, int] | None:
    """The grid of ``tokens`` patches that divides the image by one stride on both axes, if there is one."""
    height, width = image
    for stride in range(1, min(height, width) + 1):
        if -(-height // stride) * -(-width // stride) == tokens:
            return -(-height // stride), -(-width // stride)
    return None


def _like_the_image(grid: tuple[int, int], image: tuple[int, int]) -> bool:
    """Say if a grid has the image's shape, but for what convolutions without padding cut off (windows have not)."""
    (h, w), (height, width) = grid, image
    return h == w if height == width else abs(h * width - w * height) <= max(height, width, h * width // 4)
