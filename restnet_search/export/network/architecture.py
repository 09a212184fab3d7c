"""The parts of a network as plain values, with its anchors described in full or by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, Literal, TypeVar

from restnet_search.graph.cut_points import CutPoint
from restnet_search.plain.bounds import Classes, Pixels
from restnet_search.space.schema import StitchTerm, Tune
from restnet_search.stitching.plan import StitchPlan

__all__ = [
    "AnchorArchitecture",
    "AnchorSource",
    "Architecture",
    "HybridArchitecture",
    "NamedArchitecture",
    "Side",
    "licenses_of",
    "weights_of",
]

A = TypeVar("A")
"""An anchor: its :class:`AnchorSource`, or its name alone where many networks share it."""

B = TypeVar("B")


@dataclass(frozen=True)
class AnchorSource:
    """The recipe of one anchor's architecture: a timm ``model`` or a ``factory`` in user code, and its arguments.

    Attributes:
        name: In reports.
        model: timm's name; None where a factory builds it.
        factory: ``file.py:function``; None where timm builds it.
        kwargs: Arguments of either.
        num_classes: Of its head.
        input_size: ``(C, H, W)`` that it is traced with.
        granularity: Of its cut points; decides what their indices mean.
        licence: Of its weights; None where it is unknown.
        digest: Content key of the anchor's weights.
        reparameterized: Whether its branches are fused; those that an earlier version exported are not.
        weights_from: Where they are from: ``published``, ``given``, ``fitted`` or ``random``; None: not known.
    """

    name: str
    model: str | None
    factory: str | None
    kwargs: Mapping[str, object]
    num_classes: Classes
    input_size: tuple[Pixels, Pixels, Pixels]
    granularity: str
    licence: str | None = None
    digest: str | None = None
    reparameterized: bool = False
    weights_from: str | None = None


@dataclass(frozen=True)
class Side(Generic[A]):
    """The front or the back of a hybrid: an anchor, and the cut point where it ends or starts."""

    anchor: A
    cut: CutPoint


@dataclass(frozen=True)
class AnchorArchitecture(Generic[A]):
    """A whole anchor."""

    anchor: A
    kind: Literal["anchor"] = field(default="anchor")

    @property
    def anchors(self) -> tuple[A, ...]:
        return (self.anchor,)

    def map_anchors(self, change: Callable[[A], B]) -> AnchorArchitecture[B]:
        """Return the same architecture with the anchor described otherwise."""
        return AnchorArchitecture(change(self.anchor))


@dataclass(frozen=True)
class HybridArchitecture(Generic[A]):
    """Front, stitch layer, back; the stitch layer follows from its kind and the layouts at both cut points.

    ``tune`` says what was tuned beside the stitch layer; ``tuned`` names the tensors that the back therefore has for
    itself, ``tuned_front`` those of the front. ``terms`` are those of the stitch layer; exports of versions before
    there were any name none.
    """

    front: Side[A]
    stitch: str
    back: Side[A]
    kind: Literal["hybrid"] = field(default="hybrid")
    tune: Tune = "stitch"
    tuned: tuple[str, ...] = ()
    tuned_front: tuple[str, ...] = ()
    terms: tuple[StitchTerm, ...] = ()

    @property
    def anchors(self) -> tuple[A, ...]:
        return (self.front.anchor, self.back.anchor)

    @property
    def plan(self) -> StitchPlan:
        return StitchPlan(self.stitch, self.front.cut.layout, self.back.cut.layout, self.terms)

    def map_anchors(self, change: Callable[[A], B]) -> HybridArchitecture[B]:
        """Return the same architecture with its anchors described otherwise."""
        front, back = (Side(change(side.anchor), side.cut) for side in (self.front, self.back))
        return replace(self, front=front, back=back)  # pyright: ignore[reportReturnType]


Architecture = AnchorArchitecture[AnchorSource] | HybridArchitecture[AnchorSource]
"""A network that can be built from this alone."""

NamedArchitecture = AnchorArchitecture[str] | HybridArchitecture[str]
"""A network whose anchors are described elsewhere, under these names."""


def weights_of(architecture: Architecture) -> dict[str, str | None]:
    """Return where every anchor's weights are from by the anchor's name; None where that is not known."""
    return {anchor.name: anchor.weights_from for anchor in architecture.anchors}


def licenses_of(architecture: Architecture) -> dict[str, str | None]:
    """Return the licence of every anchor's weights by the anchor's name; None where it is unknown."""
    return {anchor.name: anchor.licence for anchor in architecture.anchors}
