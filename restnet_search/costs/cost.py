"""The cost of a network or of a part of one. Imports nothing, so that records can hold it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Cost"]


@dataclass(frozen=True)
class Cost:
    """MACs for one image, and parameters; of whole networks also peak memory (bytes) and latency (seconds).

    The latter two are None where nothing asked for them, and of sums: they are no sums of the parts'.
    """

    macs: int
    params: int
    memory: int | None = None
    latency: float | None = None

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.macs + other.macs, self.params + other.params)
