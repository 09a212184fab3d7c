"""Device budgets and their Pareto sets."""

from __future__ import annotations

from dataclasses import dataclass

from restnet_search.search.run.records import AnchorRecord, Count, HybridRecord
from restnet_search.units import DeviceBudget

__all__ = ["BudgetEntry", "Limits"]


@dataclass(frozen=True)
class Limits:
    """The most that a device allows of each cost, None for no limit; ``memory`` in bytes, ``latency`` in seconds."""

    macs: Count | None = None
    params: Count | None = None
    memory: Count | None = None
    latency: Count | None = None


@dataclass(frozen=True)
class BudgetEntry:
    """One device budget: its Pareto set (ids by rising cost; an anchor stands by its name) and its pick.

    ``pick`` is the most accurate entry on ``val`` within the budget, and ``best_anchor`` the most accurate anchor;
    each is None where nothing fits.
    """

    name: str
    limits: Limits
    pareto: tuple[str, ...]
    pick: str | None
    best_anchor: str | None = None

    def allows(self, entry: AnchorRecord | HybridRecord) -> bool:
        """Return True where an anchor or hybrid stays within every limit."""
        held = tuple((kind, limit) for kind, limit in vars(self.limits).items() if limit is not None)
        return DeviceBudget(self.name, held).allows(
            macs=entry.macs, params=entry.params, memory=entry.memory, latency=entry.latency
        )
