"""Layouts of features, and the shapes of tensors that have them."""

from __future__ import annotations

from math import prod

from restnet_search.graph.layout import Layout

__all__ = ["GRIDS", "PLACES", "VECTORS", "shape_of"]

GRIDS = (
    Layout("NCHW", 6, (8, 8)),
    Layout("NCHW", 5, (7, 7)),
    Layout("NHWC", 4, (4, 4)),
    Layout("tokens", 7, (4, 4), 0),
    Layout("tokens", 3, (14, 14), 2),
    Layout("tokens", 8, (2, 2), 1),
)
"""Layouts with an image grid, no two of which are alike."""

VECTORS = (Layout("vector", 4), Layout("vector", 9))
"""Pooled features."""

PLACES = tuple(Layout("unknown", channels, places=(2, 9), family="a.family") for channels in (4, 6))
"""Features of one family of models, of which nobody knows what lies where."""


def shape_of(layout: Layout) -> tuple[int, ...]:
    """Return the shape of one image's features in a layout; some shape where nothing is known of it."""
    height, width = layout.grid or (1, 1)
    return {
        "NCHW": (layout.channels, height, width),
        "NHWC": (height, width, layout.channels),
        "tokens": (layout.prefix + prod((height, width)), layout.channels),
        "vector": (layout.channels,),
        "unknown": (*layout.places, layout.channels) if layout.places else (2, 3, 4),
    }[layout.kind]
