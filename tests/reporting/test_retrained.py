"""Retrained hybrids in reports: in Pareto sets like any other, but no evidence for rankers, orders and controls."""

from __future__ import annotations

from dataclasses import replace

from restnet_search.reporting.assemble.control_comparisons import random_controls
from restnet_search.reporting.model.judgements import Trials
from restnet_search.reporting.results_file.codec import from_json, to_json
from restnet_search.reporting.terminal.facts import search_facts

from . import samples

TRIAL = samples.hybrid("h001", 60e6, 0.85)
AGAIN = replace(TRIAL, id="w001", val=replace(TRIAL.val, top1=0.88), retrains="h001")
DRAWN = replace(samples.hybrid("r000", 62e6, 0.80), control="random")
FAILED = {"w009": "the loss became nan"}
REPORT = samples.report(
    [TRIAL, AGAIN, DRAWN],
    trials=Trials(1, 0, 0, controls=1, controls_planned=1, retrained=1, retrainings_failed=FAILED),
)


def test_one_may_be_the_pick_and_its_place_in_the_file_is_kept() -> None:
    assert REPORT.budgets[0].pick == "w001"
    again = from_json(to_json(REPORT))
    assert again == REPORT and again.hybrid("w001").retrains == "h001" and again.hybrid("h001").retrains is None


def test_facts_count_them_and_name_what_failed() -> None:
    facts = dict(search_facts(REPORT))
    assert facts["trials"].startswith("1 finished, 0 failed, 0 skipped, 1 retrained with their fronts, and 1 controls")
    assert facts["retraining"] == "w009 failed: the loss became nan"
    plain = dict(search_facts(samples.report([TRIAL])))
    assert "retrain" not in plain["trials"] and "retraining" not in plain


def test_random_controls_are_compared_with_trials_alone() -> None:
    (control,) = random_controls(REPORT)
    assert (control.chosen, control.best) == (1, TRIAL.val.top1)


def test_orders_count_stitch_points_that_were_trained_once() -> None:
    assert sum(order.trained for order in REPORT.orders) == 2
    assert {order.best for order in REPORT.orders if order.trained} == {"w001"}
