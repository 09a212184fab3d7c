"""The ways round each pair of anchors: which one supplies the front."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OrderEntry", "Way"]

Way = tuple[str, str, str]
"""Front anchor, back anchor, stitch order."""


@dataclass(frozen=True)
class OrderEntry:
    """One way round a pair of anchors, and what it came to.

    ``candidates`` are the stitch points kept for training, ``trained`` the hybrids trained, ``best`` the id of the most
    accurate of them on val (None where there is none).
    """

    front: str
    back: str
    order: str
    front_kind: str
    back_kind: str
    candidates: int
    trained: int
    best: str | None
