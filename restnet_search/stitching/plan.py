"""Plans of stitch layers, which follow from a kind and two layouts alone: resampling, map, costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal

from restnet_search.costs.cost import Cost
from restnet_search.graph.layout import Layout
from restnet_search.space.schema import STITCH_TERMS, StitchTerm
from restnet_search.stitching.kinds import MapShape, StitchKind, stitch_kind

__all__ = ["Resample", "StitchPlan", "divides", "plans_between", "terms_between", "why_not_stitchable"]


@dataclass(frozen=True)
class Resample:
    """Bring a grid to another size: ``pool`` averages, ``bilinear`` interpolates; ``none`` leaves it."""

    mode: Literal["none", "pool", "bilinear"]
    grid: tuple[int, int]


def why_not_stitchable(source: Layout, target: Layout) -> str | None:
    """Return the reason why no kind of stitch layer joins these layouts; None where one does."""
    if "unknown" in (source.kind, target.kind):
        if not source.places or (source.kind, source.family) != (target.kind, target.family):
            return "the layout of the features is unknown"
        return None if source.places == target.places else "their layout is unknown, and they have different places"
    if source.spatial != target.spatial:
        return "one side has an image grid, the other is a pooled vector"
    return None


@dataclass(frozen=True)
class StitchPlan:
    """A stitch layer from ``source`` features to what the back expects at ``target``.

    The features are brought to a grid ``(B, C, h, w)``, resampled (average-pooled down, bilinear up), mapped as the
    kind says (:mod:`restnet_search.stitching.kinds`), and brought to the target's layout. Prefix tokens of the target
    are mapped from the source's, or learned where it has none. Unknown layouts of one family are mapped place by place
    (1x1).

    ``terms`` are what the layer has beside its map (:func:`terms_between`); without any it is a layer of the versions
    before there were terms.
    """

    kind: str
    source: Layout
    target: Layout
    terms: tuple[StitchTerm, ...] = ()

    @cached_property
    def definition(self) -> StitchKind:
        """The kind itself.

        Raises:
            ExtensionError: If there is none of that name, or its code was not admitted.
        """
        return stitch_kind(self.kind)

    @cached_property
    def kernel(self) -> int:
        """Side of the square of places that the map reads."""
        return self.definition.kernel if self.target.spatial else 1

    @property
    def shape(self) -> MapShape:
        """Sizes of the map."""
        height, width = self.before.grid
        grid = (height // self.stride, width // self.stride)
        return MapShape(self.source.channels, self.target.channels, self.kernel, self.stride, grid)

    @cached_property
    def stride(self) -> int:
        """2 where a map of more than one place does the last halving itself, else 1."""
        (h, w), (th, tw) = self.source_grid, self.target_grid
        halves = h % (2 * th) == 0 and w % (2 * tw) == 0 and h // th == w // tw
        return 2 if self.kernel > 1 and halves else 1

    @property
    def source_grid(self) -> tuple[int, int]:
        return _grid(self.source)

    @property
    def target_grid(self) -> tuple[int, int]:
        return _grid(self.target)

    @cached_property
    def before(self) -> Resample:
        """Resampling before the map."""
        needed = (self.target_grid[0] * self.stride, self.target_grid[1] * self.stride)
        if needed == self.source_grid:
            return Resample("none", needed)
        if needed[0] <= self.source_grid[0] and needed[1] <= self.source_grid[1]:
            return Resample("pool", needed)
        # a linear 1x1 map and bilinear interpolation commute, so the map runs on the smaller grid; an mlp may as well
        return Resample("none", self.source_grid) if self.kernel == 1 else Resample("bilinear", needed)

    @cached_property
    def after(self) -> Resample:
        """Resampling after the map."""
        return Resample("none" if self.shape.grid == self.target_grid else "bilinear", self.target_grid)

    @property
    def maps_prefix(self) -> bool:
        """True where the target's prefix tokens are mapped from the source's."""
        return self.target.prefix > 0 and self.source.prefix > 0

    @property
    def pools_prefix(self) -> bool:
        """True where the target's prefix tokens are mapped from the mean of the source's features over all places."""
        return "prefix" in self.terms and self.target.prefix > 0 and self.source.prefix == 0

    @property
    def has_positions(self) -> bool:
        """True where every place of the target's grid has an offset of its own."""
        return "positions" in self.terms

    @cached_property
    def cost(self) -> Cost:
        """MACs by fvcore's rules, and parameters; equal to profiling the layer."""
        source, target = self.source.channels, self.target.channels
        own = self.definition.cost(self.shape)
        macs, params = own.macs, own.params
        macs += self._resample_macs(self.before, source, self.source_grid)
        macs += self._resample_macs(self.after, target, None)
        if self.maps_prefix:
            macs += self.target.prefix * source * target
            params += source * target + target
        elif self.pools_prefix:
            macs += self.target.prefix * source * target
            params += self.target.prefix * (source * target + target)
        elif self.target.prefix:
            params += self.target.prefix * target
        if self.has_positions:
            params += target * prod(self.target_grid)
        return Cost(macs, params)

    @staticmethod
    def _resample_macs(resample: Resample, channels: int, grid: tuple[int, int] | None) -> int:
        if resample.mode == "bilinear":
            return 4 * channels * prod(resample.grid)
        if resample.mode == "pool" and grid is not None and not divides(resample.grid, grid):
            return channels * prod(grid)
        return 0


def terms_between(terms: Iterable[StitchTerm], source: Layout, target: Layout) -> tuple[StitchTerm, ...]:
    """Return those of the terms that mean something between two layouts, each once, in a fixed order.

    ``positions`` and ``prefix`` are for targets of tokens on a grid: a vision transformer adds position embeddings
    before its first block and gathers in its class token what it has seen, so tokens at a cut point behind hold both;
    a map of a front's features, equal at all places, gives neither. ``scale`` is for pairs with a transformer on
    either side. Between two CNNs there is none.
    """
    wanted = set(terms)
    of_tokens = target.kind == "tokens" and target.spatial
    fits = {
        "positions": of_tokens,
        "prefix": of_tokens and target.prefix > 0 and source.prefix == 0,
        "scale": source.spatial and {source.kind, target.kind} != {"NCHW"},
    }
    return tuple(term for term in STITCH_TERMS if term in wanted and fits[term])


def plans_between(
    kinds: Iterable[str], source: Layout, target: Layout, terms: Iterable[StitchTerm] = ()
) -> tuple[StitchPlan, ...]:
    """Return the plan of every kind that joins two layouts, in the order of the kinds; none where nothing does."""
    if why_not_stitchable(source, target) is not None:
        return ()
    fitting = terms_between(terms, source, target)
    plans = (StitchPlan(kind, source, target, fitting) for kind in kinds)
    return tuple(plan for plan in plans if plan.definition.why_not(source, target) is None)


def _grid(layout: Layout) -> tuple[int, int]:
    return layout.grid or (1, prod(layout.places))


def divides(small: tuple[int, int], large: tuple[int, int]) -> bool:
    """Say whether the large grid is a whole multiple of the small one on both axes."""
    return large[0] % small[0] == 0 and large[1] % small[1] == 0
