"""Phrases about costs: of which network they are, and what they leave out."""

from __future__ import annotations

from collections.abc import Iterable

from restnet_search.costs.cost import NOTABLE, Uncounted, notable
from restnet_search.units import format_count

__all__ = ["as_counted_and_exported", "named_uncounted", "reparameterized", "uncounted_share"]


def reparameterized(trained: float, deployed: float) -> str:
    """Say ``re-parameterised: 1.09G MACs as trained, 280.0M as deployed``."""
    return f"re-parameterised: {format_count(trained)} MACs as trained, {format_count(deployed)} as deployed"


def as_counted_and_exported(counted: float, exported: float) -> str:
    """Say ``85.1M MACs as counted, 82.3M as exported (batch-norms folded)``."""
    return f"{format_count(counted)} MACs as counted, {format_count(exported)} as exported (batch-norms folded)"


def named_uncounted(uncounted: Iterable[Uncounted], macs: float) -> str:
    """Name operators with calls, and share of the MACs at one for each value: ``gelu (12 calls, 1.4 %)``."""
    return ", ".join(
        f"{one.operator.rpartition('::')[2].rstrip('_')} ({one.calls} call{'s' * (one.calls != 1)},"
        f" {100 * one.values / macs:.1f} %)"
        for one in uncounted
    )


def uncounted_share(uncounted: tuple[Uncounted, ...], macs: float) -> str:
    """Say how much the uncounted operators would add, and name those that could matter."""
    if not uncounted or not macs:
        return ""
    share = 100 * sum(one.values for one in uncounted) / macs
    text = f"At one MAC for each value that they compute they would add {share:.1f} %"
    large = notable(uncounted, int(macs))
    return text + (f"; of {100 * NOTABLE:.0f} % and more: {named_uncounted(large, macs)}." if large else ".")
