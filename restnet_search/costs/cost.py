"""The cost of a network or of a part of one. Imports nothing heavy, so that records can hold it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from restnet_search.plain.bounds import Figure, Natural
from restnet_search.units import DeviceBudget

__all__ = ["NOTABLE", "Cost", "Uncounted", "notable"]

NOTABLE = 0.01
"""Share of the MACs from which on an uncounted operator could matter."""


@dataclass(frozen=True)
class Cost:
    """MACs for one image, and parameters; of whole networks also peak memory (bytes) and latency (seconds).

    The latter two are None where nothing asked for them, and of sums: they are no sums of the parts'.
    """

    macs: Natural
    params: Natural
    memory: Natural | None = None
    latency: Figure | None = None

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.macs + other.macs, self.params + other.params)

    def fits(self, budget: DeviceBudget) -> bool:
        """Say if a network of this cost stays within every limit; a cost that is not known does not."""
        return budget.allows(macs=self.macs, params=self.params, memory=self.memory, latency=self.latency)


@dataclass(frozen=True)
class Uncounted:
    """An operator that costs count as nothing.

    Attributes:
        operator: As a trace names it: ``aten::softmax``.
        calls: How often it runs for one image.
        values: That it computes, or reads where those are more, in all calls: what it would cost at one
            multiply-accumulate for each. 0 for operators that only move values.
    """

    operator: str
    calls: int
    values: int = 0


def notable(uncounted: Iterable[Uncounted], macs: int) -> tuple[Uncounted, ...]:
    """Return the operators that would add :data:`NOTABLE` or more of ``macs``, the largest first."""
    large = [one for one in uncounted if one.values and one.values >= NOTABLE * macs]
    return tuple(sorted(large, key=lambda one: (-one.values, one.operator)))
