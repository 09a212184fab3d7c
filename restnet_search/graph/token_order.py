"""Order of tokens: move one place of the image, or of features known already, and see which tokens move most."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor, fx

from restnet_search.graph.layout import Layout
from restnet_search.graph.slicing import slice_model
from restnet_search.graph.trace import TracedModel

__all__ = ["moved_most", "settle_orders"]

_Place = tuple[int, int]
_AT_ONCE = 8  # images in one pass
_DRAWS = 8  # of the image: patch embeddings may overlap, so that a neighbour moves nearly as much
_ATTEMPTS = ((1.0, 1), (1.0, 8), (30.0, 8))  # strength of the movement in standard deviations; times as many draws


def settle_orders(traced: TracedModel, layouts: Iterable[tuple[fx.Node, Layout]]) -> dict[fx.Node, Layout]:
    """Check that tokens lie in raster order, cut point by cut point, or find the order in which they lie.

    Each token layout is probed from the last cut point whose places are known (at first the image): places of its grid
    are moved there and the tokens that move most must be those of the same places. On one image that costs about six
    forward passes of the parts between them, forty of the first one; where tokens lie in another order, more by the
    rows and columns of their grid. Found are orders in which row and column each add their share to the token's index:
    Hiera's unrolled units, windows.

    Attention without a residual path (LeViT's subsampling) spreads a small movement evenly, for the token's own query
    hardly counts in a flat softmax. Where few small movements show no places, more are drawn, then large ones: they
    sharpen it. Each cut point in a row whose tokens answer to no order leaves the next one an attempt less, down to the
    first and until places are known again: weights that tell nothing (constant ones) would take hours otherwise.

    Args:
        traced: The traced model.
        layouts: Cut points in the order of the graph, with their layouts as shapes tell.

    Returns:
        The layouts, with ``order`` where it is not raster order; ``unknown`` where tokens answer to no such order.
    """
    settled = dict(layouts)
    if all(layout.kind != "tokens" for layout in settled.values()):
        return settled
    source, at_source = None, Layout("NCHW", traced.image_size[0], traced.image_size[1:])
    failures = 0
    with torch.no_grad():
        features = traced.example(1)
        for node, layout in settled.items():
            if not layout.spatial:
                continue
            segment = slice_model(traced, source, [node])
            if layout.kind == "tokens":
                attempts = _ATTEMPTS[: max(1, len(_ATTEMPTS) - failures)]
                draws = _DRAWS if source is None else 1
                layout = _settle(segment, features, at_source, layout, attempts, draws)  # noqa: PLW2901
                settled[node] = layout
            failures = 0 if layout.spatial else failures + 1
            if layout.spatial:
                source, at_source, features = node, layout, segment(features)
    return settled


def _settle(
    segment: Callable[[Tensor], Tensor],
    features: Tensor,
    source: Layout,
    target: Layout,
    attempts: Iterable[tuple[float, int]],
    draws: int,
) -> Layout:
    for strength, times in attempts:

        def answers(places: list[_Place], strength: float = strength, times: int = times) -> list[int | None]:
            return moved_most(segment, features, source, target, places, draws=times * draws, strength=strength)

        if (settled := _order_told_by(answers, source, target)) is not None:
            return settled
    return Layout("unknown")


def _order_told_by(
    answers: Callable[[list[_Place]], list[int | None]], source: Layout, target: Layout
) -> Layout | None:
    """The target in raster order, in the source's or in one that rows and columns add up to; None: in none of them."""
    assert target.grid is not None
    height, width = target.grid
    if height * width == 1:
        return replace(target, order=())

    places = _spread(height, width)
    moved = answers(places)
    for order in dict.fromkeys(((), source.order if source.grid == target.grid else ())):
        candidate = replace(target, order=order)
        if moved == [_token(candidate, place) for place in places]:
            return candidate
    if None in moved:  # rows and columns would take many passes and tell no more
        return None
    rows, columns = (
        [token for token in answers(line) if token is not None]
        for line in ([(y, 0) for y in range(height)], [(0, x) for x in range(width)])
    )
    if (len(rows), len(columns)) != target.grid:
        return None
    order = tuple(row + column - rows[0] for row in rows for column in columns)
    derived = replace(target, order=order)
    answering = sorted(order) == list(range(height * width)) and moved == [_token(derived, p) for p in places]
    return derived if answering else None


def _spread(height: int, width: int) -> list[_Place]:
    """Corners and inner neighbours: no other order in use answers to all of them as raster order does.

    Neighbours lie inside: at the border, patches that overlap without padding share the pixels of the second place.
    """
    y, x = height // 2, width // 3
    places = [(0, 0), (height - 1, 0), (y, x), (y, x + 1), (y + 1, x)]
    return list(dict.fromkeys((min(y, height - 1), min(x, width - 1)) for y, x in places))


def _token(layout: Layout, place: _Place) -> int:
    assert layout.grid is not None
    raster = place[0] * layout.grid[1] + place[1]
    return layout.order[raster] if layout.order else raster


def moved_most(
    segment: Callable[[Tensor], Tensor],
    features: Tensor,
    source: Layout,
    target: Layout,
    places: list[_Place],
    draws: int = 1,
    strength: float = 1.0,
) -> list[int | None]:
    """Return, for each place of the target's grid, which position moves most when the source moves there.

    None stands where nothing moves, or by what is no number.

    Args:
        segment: Maps features of layout ``source`` to features of layout ``target``.
        features: One image's features ``(1, ...)``.
        source: A layout whose places are known.
        target: A layout with a grid; its positions are counted as they come, prefix tokens left out.
        places: Rows and columns of the target's grid.
        draws: Over how many random movements the answer is taken.
        strength: Of the movement, in standard deviations of the features.
    """
    assert source.grid is not None and target.grid is not None
    plain = replace(target, order=())
    still = plain.to_grid(segment(features))
    masks = torch.zeros(len(places), source.channels, *source.grid)
    for mask, (y, x) in zip(masks, places, strict=True):
        mask[:, _span(y, target.grid[0], source.grid[0]), _span(x, target.grid[1], source.grid[1])] = 1
    chosen = source.from_grid(masks)
    if source.prefix:
        chosen = torch.cat([torch.zeros(len(places), source.prefix, source.channels), chosen], 1)
    generator = torch.Generator().manual_seed(1)
    moved = torch.zeros(len(places), target.grid[0] * target.grid[1])
    for _ in range(draws):
        noise = torch.randn(features.shape, generator=generator) * (strength * features.std())
        for start in range(0, len(places), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            difference = plain.to_grid(segment(features + noise * chosen[part])) - still
            moved[part] += difference.flatten(2).square().sum(dim=1)
    return [int(row.argmax()) if 0 < float(row.max()) < torch.inf else None for row in moved]


def _span(position: int, steps: int, size: int) -> slice:
    """The part of an axis of ``size`` that one of ``steps`` equal parts covers; at least one position."""
    start = position * size // steps
    return slice(start, max(start + 1, (position + 1) * size // steps))
