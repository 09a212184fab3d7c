"""Trials, stitch orders and rankers, judged by what was reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from restnet_search.plain.bounds import Figure, Natural

__all__ = ["Failure", "OrderEntry", "RankerEntry", "Trials", "WithinFront"]


@dataclass(frozen=True)
class WithinFront:
    """A ranker's order of the partners of one front (same front anchor, front cut and back anchor).

    ``spearman`` is the mean over the ``spearman_fronts`` fronts with at least three trained partners (None where no
    front has a defined one); ``top1_hits`` counts in how many of the ``fronts`` with at least two trained partners
    the ranker's best-scored partner was the most accurate; ``chance_hits`` is what guessing would get on average;
    ``regret`` is how much accuracy the first choice lacks to the best of its front, on average over these fronts.
    """

    spearman: Figure | None
    top1_hits: Natural
    fronts: Natural
    spearman_fronts: Natural = 0
    chance_hits: Figure = 0.0
    regret: Figure | None = None


@dataclass(frozen=True)
class RankerEntry:
    """A ranker against the ``val`` accuracies reached: Spearman over its ``n`` trained stitch points, and per front.

    ``regret`` maps k (as text: ``1``, ``3``, ``5``) to how much accuracy the best of the ranker's first k trained
    stitch points lacks to the best trained one, as a fraction; only where more than k were trained. ``at_random`` of
    the ``n`` were drawn at random; the others were chosen by the search's own ranker.
    """

    name: str
    spearman: Figure | None
    within_front: WithinFront
    n: Natural
    regret: Mapping[Annotated[str, Field(pattern="^[0-9]{1,9}$")], Figure] = field(default_factory=dict)
    at_random: Natural = 0


@dataclass(frozen=True)
class Failure:
    """A trial that failed.

    Attributes:
        trial: Its number.
        reason: In words.
    """

    trial: Natural
    reason: str


@dataclass(frozen=True)
class Trials:
    """Trials by how they ended; ``skipped`` ones were never trained.

    Hybrids that were ``retrained``, and controls, come on top of the ``finished`` ones. ``retrainings_failed`` has the
    reason of each that failed, by id.
    """

    finished: Natural
    failed: Natural
    skipped: Natural
    failures: tuple[Failure, ...] = ()
    controls: Natural = 0
    controls_planned: Natural = 0
    retrained: Natural = 0
    retrainings_failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OrderEntry:
    """A direction between two anchors and what it came to.

    ``candidates`` are the stitch points kept for training, ``trained`` the hybrids trained, ``best`` the id of the most
    accurate of them on val (None where there is none).
    """

    front: str
    back: str
    order: str
    front_kind: str
    back_kind: str
    candidates: Natural
    trained: Natural
    best: str | None
