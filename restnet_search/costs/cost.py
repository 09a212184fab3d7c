"""The cost of a network or of a part of one. Imports nothing heavy, so that records can hold it."""

from __future__ import annotations

from dataclasses import dataclass

from restnet_search.plain.bounds import Figure, Natural

__all__ = ["Cost"]


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
