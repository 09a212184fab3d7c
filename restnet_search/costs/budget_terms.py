"""Terms of device budgets: which kinds of cost they use, and how these are counted or where they are measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from restnet_search.errors import BudgetError
from restnet_search.units import DeviceBudget

__all__ = ["asked_for", "stated_at"]


def asked_for(kind: str, objectives: Iterable[str], budgets: Iterable[DeviceBudget]) -> bool:
    """Say whether a budget or an objective uses a kind of cost."""
    return kind in objectives or any(kind in dict(budget.limits) for budget in budgets)


def stated_at(kind: str, budgets: Sequence[DeviceBudget], otherwise: str) -> str:
    """Return what the budgets' limits of one kind are counted in or measured on (behind the ``@``).

    Raises:
        BudgetError: If they name different ones: one search counts and measures one way.
    """
    named = list(dict.fromkeys(at for budget in budgets for name, at in budget.at if name == kind))
    if len(named) > 1:
        raise BudgetError(
            f"The budgets limit {kind} in different ways: {', '.join(named)}.",
            expected="one way for all budgets of a search",
            hint="run one search for each",
        )
    return named[0] if named else otherwise
