"""Suggested budgets lie at the quartiles of what hybrids cost, and let some through."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from restnet_search.search.points.suggested_budgets import suggest_budgets
from restnet_search.units import parse_budget

MACS = st.integers(10_000, 10**11)


def test_quartiles_rounded_up() -> None:
    hybrids = [1_010_000 * step for step in range(1, 102)]  # quartiles: the 26th, 51st and 76th of 101
    assert suggest_budgets(hybrids, [1]) == ("27MFLOPs", "52MFLOPs", "77MFLOPs")


def test_hybrids_below_every_anchor_count_only_where_there_are_no_others() -> None:
    assert suggest_budgets([1_000_000, 30_000_000], [2_000_000, 50_000_000]) == ("30MFLOPs",)
    assert suggest_budgets([1_000_000], [2_000_000]) == ("1MFLOPs",)
    assert suggest_budgets([], [2_000_000]) == ()


@given(st.lists(MACS, min_size=1), st.lists(MACS, min_size=1))
def test_every_suggestion_can_be_read_and_lets_a_hybrid_through(hybrids: list[int], anchors: list[int]) -> None:
    suggestions = suggest_budgets(hybrids, anchors)
    assert 1 <= len(suggestions) <= 3
    for text in suggestions:
        assert any(parse_budget(text).allows(macs=macs, params=0) for macs in hybrids)
