"""Quantities and device budgets as users write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restnet_search.errors import BudgetError
from restnet_search.units import (
    UNLIMITED,
    DeviceBudget,
    Quantity,
    format_count,
    format_quantity,
    parse_budget,
    parse_quantity,
    round_up,
)


class TestParseQuantity:
    @pytest.mark.parametrize(
        ("text", "kind", "value"),
        [
            ("2GFLOPs", "macs", 2e9),
            ("2GMACs", "macs", 2e9),
            ("2G", "macs", 2e9),
            ("2gflops", "macs", 2e9),
            (" 2 GFLOPs ", "macs", 2e9),
            ("1.5TFLOP", "macs", 1.5e12),
            ("85MMACs", "macs", 85e6),
            ("85M", "macs", 85e6),
            ("640flops", "macs", 640),
            (".5k", "macs", 500),
            ("1e3MFLOPs", "macs", 1e9),
            ("10Mparams", "params", 10e6),
            ("10mparam", "params", 10e6),
            ("10Mparameters", "params", 10e6),
            ("10Mp", "params", 10e6),
            ("75290params", "params", 75290),
            ("64MB", "memory", 64e6),
            ("64 MiB", "memory", 64 * 2**20),
            ("512kb", "memory", 512e3),
            ("30ms", "latency", 0.03),
            ("1.5s", "latency", 1.5),
            ("250us", "latency", 250e-6),
        ],
    )
    def test_what_users_write(self, text: str, kind: str, value: float) -> None:
        quantity = parse_quantity(text)
        assert quantity.kind == kind
        assert quantity.value == pytest.approx(value, rel=1e-12)

    @pytest.mark.parametrize(
        ("text", "kind", "at"), [("64MB@int8", "memory", "int8"), ("30ms@onnxruntime", "latency", "onnxruntime")]
    )
    def test_what_stands_behind_the_at(self, text: str, kind: str, at: str) -> None:
        quantity = parse_quantity(text)
        assert (quantity.kind, quantity.at) == (kind, at)
        assert parse_quantity(format_quantity(quantity)) == quantity
        budget = parse_budget(f"2G,{text}")
        assert (budget.at, parse_budget(budget.name)) == (((kind, at),), budget)

    @pytest.mark.parametrize("text", ["64MB@", "64MB@int3", "30ms@float32", "2GFLOPs@int8", "30ms@@x", "0MB", "0ms"])
    def test_what_cannot_stand_behind_the_at(self, text: str) -> None:
        with pytest.raises(BudgetError):
            parse_quantity(text)

    def test_flops_macs_and_the_bare_scale_are_the_same_quantity(self) -> None:
        assert parse_quantity("2GFLOPs") == parse_quantity("2GMACs") == parse_quantity("2G")

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "G",
            "GFLOPs",
            "2Gflopz",
            "2XFLOPs",
            "two G",
            "-2G",
            "+2G",
            "2G FLOPs x",
            "2,5G",
            "nanG",
            "infG",
            "30 m s",
        ],
    )
    def test_what_cannot_be_read_names_the_units(self, text: str) -> None:
        with pytest.raises(BudgetError) as caught:
            parse_quantity(text)
        assert repr(text) in caught.value.problem
        assert all(unit in str(caught.value) for unit in ("FLOPs", "MACs", "params", "2GFLOPs"))
        assert caught.value.exit_code == 2

    @pytest.mark.parametrize("text", ["2", "2000000000", "2e9"])
    def test_a_bare_number_is_no_quantity(self, text: str) -> None:
        with pytest.raises(BudgetError, match="has no unit"):
            parse_quantity(text)

    @pytest.mark.parametrize("text", ["0G", "0.0params", "1e999G"])
    def test_amounts_are_above_zero_and_finite(self, text: str) -> None:
        with pytest.raises(BudgetError):
            parse_quantity(text)

    @pytest.mark.parametrize(
        "text",
        ["\uff12GFLOPs", "\u0662GFLOPs", "2\uff0e5GFLOPs", "2\u212aFLOPs", "2GFLOP\u017f", "\u00b2G", "2\u00a0G",
         "1_000MFLOPs", "0x10M", "1:30G", "\u06f13ms", "\u0967MB"],
    )  # fmt: skip
    def test_digits_and_letters_are_those_of_the_keyboard(self, text: str) -> None:
        with pytest.raises(BudgetError, match="Cannot read the quantity"):
            parse_quantity(text)

    @pytest.mark.parametrize("text", ["1" * 400 + "G", "1e30G", "1e999G", "9" * 400 + "ms", "1e19B", "1e7s", "1e400MB"])
    def test_what_no_device_has_is_refused_in_few_words(self, text: str) -> None:
        with pytest.raises(BudgetError, match="more than any device has") as caught:
            parse_quantity(text)
        assert len(str(caught.value)) < 200

    @pytest.mark.parametrize("text", ["30\u00b5s", "30\u03bcs"])
    def test_the_sign_micro_and_the_greek_letter_are_the_same(self, text: str) -> None:
        quantity = parse_quantity(text)
        assert quantity.kind == "latency" and quantity.value == pytest.approx(30e-6, rel=1e-12)

    @given(st.text(max_size=12))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            quantity = parse_quantity(text)
        except BudgetError:
            return
        assert quantity.kind in ("macs", "params", "memory", "latency")  # "1B" is one byte
        assert quantity.value > 0
        assert math.isfinite(quantity.value)


quantities = st.builds(Quantity, st.sampled_from(["macs", "params"]), st.floats(1e-3, 1e18))


class TestFormat:
    @given(quantities)
    def test_a_quantity_is_read_back_to_six_digits(self, quantity: Quantity) -> None:
        back = parse_quantity(format_quantity(quantity))
        assert back.kind == quantity.kind
        assert back.value == pytest.approx(quantity.value, rel=1e-5)

    @given(st.sampled_from(["macs", "params"]), st.integers(1, 999_999), st.integers(0, 12))
    def test_six_digits_are_read_back_exactly(self, kind: str, digits: int, zeros: int) -> None:
        quantity = Quantity(kind, float(digits * 10**zeros))
        assert parse_quantity(format_quantity(quantity)).value == pytest.approx(quantity.value, rel=1e-15)

    @pytest.mark.parametrize(
        ("text", "written"),
        [
            ("85MMACs", "85MFLOPs"),
            ("2g", "2GFLOPs"),
            ("1500Mparams", "1.5Gparams"),
            ("640flops", "640FLOPs"),
            ("0.5G", "500MFLOPs"),
        ],
    )
    def test_the_way_it_is_written(self, text: str, written: str) -> None:
        assert format_quantity(parse_quantity(text)) == written

    @pytest.mark.parametrize(
        ("value", "written"),
        [
            (0, "0"),
            (640, "640"),
            (75_290, "75.3k"),
            (1_258_000_000, "1.26G"),
            (125_485_706, "125.5M"),
            (4.6e12, "4.60T"),
        ],
    )
    def test_counts(self, value: float, written: str) -> None:
        assert format_count(value) == written


class TestBudgets:
    def test_limits_joined_by_commas_hold_together(self) -> None:
        budget = parse_budget("2GFLOPs, 10Mparams")
        assert dict(budget.limits) == {"macs": 2e9, "params": 10e6}
        assert budget.allows(macs=2e9, params=10e6)
        assert not budget.allows(macs=2e9 + 1, params=1)
        assert not budget.allows(macs=1, params=10e6 + 1)

    def test_what_is_not_limited_may_be_anything(self) -> None:
        assert parse_budget("10Mparams").allows(macs=1e30, params=10e6)
        assert UNLIMITED.allows(macs=1e30, params=1e30)

    def test_a_limited_cost_that_is_unknown_is_not_within_the_limit(self) -> None:
        budget = parse_budget("64MB,30ms")
        assert budget.allows(macs=1, params=1, memory=64e6, latency=0.03)
        assert not budget.allows(macs=1, params=1, memory=64e6)
        assert not budget.allows(macs=1, params=1, memory=64e6 + 1, latency=0.01)

    def test_a_budget_is_named_as_it_would_be_typed(self) -> None:
        budget = parse_budget("85mmacs,1000kparams")
        assert budget.name == "85MFLOPs,1Mparams"
        assert parse_budget(budget.name) == budget

    @pytest.mark.parametrize("text", ["1G,2G", "1GFLOPs,2GMACs", "1Mparams,2G,1kp"])
    def test_one_cost_is_limited_once(self, text: str) -> None:
        with pytest.raises(BudgetError, match="limits one cost twice") as caught:
            parse_budget(text)
        assert "repeat --budget" in str(caught.value)

    @pytest.mark.parametrize("text", ["", ",", "2G,", ",2G", "2G;10Mparams", "2G,10Mparamz"])
    def test_every_part_is_a_quantity(self, text: str) -> None:
        with pytest.raises(BudgetError, match="Cannot read the quantity"):
            parse_budget(text)

    @given(quantities, st.floats(0, 1e18))
    def test_a_limit_is_hard_and_inclusive(self, quantity: Quantity, cost: float) -> None:
        budget = DeviceBudget("one", ((quantity.kind, quantity.value),))
        costs = {"macs": 0.0, "params": 0.0, quantity.kind: cost}
        assert budget.allows(**costs) == (cost <= quantity.value)


@given(st.one_of(st.integers(1, 10**14), st.floats(1e-6, 100.0)))
def test_what_is_rounded_up_is_a_limit_that_its_value_keeps(value: float) -> None:
    up = round_up(value)
    assert value * (1 - 1e-12) <= up <= value * 1.011
    if isinstance(value, int):
        said = parse_budget(f"{format_count(up)}FLOPs")
        assert said.allows(macs=value, params=0, memory=None, latency=None)
