"""Device budgets worth searching for, read off the cost table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from restnet_search.units import Quantity, format_quantity

__all__ = ["suggest_budgets"]

_QUANTILES = (0.25, 0.5, 0.75)


def suggest_budgets(hybrids: Sequence[int], anchors: Sequence[int]) -> tuple[str, ...]:
    """Return budgets at the quartiles of the hybrids' MACs, ascending, each once, rounded up to two digits.

    Hybrids that cost less than the smallest anchor are left out where there are others: a budget below every anchor is
    possible, but what fits it is seldom good.

    Args:
        hybrids: MACs of each hybrid.
        anchors: MACs of each anchor, at least one.
    """
    smallest = min(anchors)
    counted = sorted([macs for macs in hybrids if macs > smallest] or hybrids)
    if not counted:
        return ()
    chosen = [counted[round(share * (len(counted) - 1))] for share in _QUANTILES]
    return tuple(dict.fromkeys(format_quantity(Quantity("macs", _rounded_up(macs))) for macs in chosen))


def _rounded_up(value: float) -> float:
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / step) * step
