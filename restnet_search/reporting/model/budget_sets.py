"""Device budgets and their Pareto sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from restnet_search.reporting.model.comparison import Comparison
from restnet_search.search.run.records import AnchorRecord, Count, HybridRecord
from restnet_search.units import DeviceBudget

__all__ = ["BudgetEntry"]


@dataclass(frozen=True)
class BudgetEntry:
    """One device budget: its Pareto set (ids by rising cost; an anchor stands by its name) and its pick.

    ``limits`` holds the most that the device allows of each cost that it limits: ``macs``, ``params``, ``memory`` in
    bytes, ``latency`` in seconds. ``pick`` is the most accurate entry on ``val`` within the budget, and ``best_anchor``
    the most accurate anchor; each is None where nothing fits. ``gains`` compares each other member of the Pareto set
    with that anchor on test, ``rivals`` the pick with each of its rivals, by their ids.
    """

    name: str
    limits: Mapping[str, Count]
    pareto: tuple[str, ...]
    pick: str | None
    best_anchor: str | None = None
    gains: Mapping[str, Comparison] = field(default_factory=dict)
    rivals: Mapping[str, Comparison] = field(default_factory=dict)

    def allows(self, entry: AnchorRecord | HybridRecord) -> bool:
        """Return True where an anchor or hybrid stays within every limit."""
        return entry.cost.fits(DeviceBudget(self.name, tuple(self.limits.items())))
