"""Two networks, compared on the images that both were scored on."""

from __future__ import annotations

from dataclasses import dataclass

from restnet_search.plain.answers import PairedCounts
from restnet_search.plain.bounds import Figure, Natural

__all__ = ["Comparison"]


@dataclass(frozen=True)
class Comparison:
    """Two networks on test.

    Attributes:
        first: Id of a network.
        second: Id of another one.
        difference: Accuracy of the first minus that of the second, a fraction.
        ci95: 95 % interval [low, high] of the difference.
        n: Images that they were scored on.
        paired: Images by which of the two got them right; the interval is then Tango's, of pairs. None where the run
            does not say which images they were; the interval is then Newcombe's, of independent samples, far too wide.
    """

    first: str
    second: str
    difference: Figure
    ci95: tuple[Figure, Figure]
    n: Natural
    paired: PairedCounts | None = None
