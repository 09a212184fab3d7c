from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from restnet_search.errors import RunError
from restnet_search.reporting.assemble.build import finalists
from restnet_search.reporting.assemble.statistics import final_score
from restnet_search.search.run.records import HybridRecord, Part, Score
from restnet_search.units import UNLIMITED, DeviceBudget, parse_budget

from . import samples

results = st.lists(
    st.tuples(st.integers(1, 200), st.integers(0, 20), st.integers(1, 3)), max_size=12
).map(
    lambda rows: [
        samples.hybrid(f"h{i}", macs * 1e6, correct / 20, n=20, params=params * 1e5)
        for i, (macs, correct, params) in enumerate(rows)
    ]
)  # fmt: skip


@given(results)
def test_pareto_sets_picks_and_flags_follow_their_definitions(hybrids: list[HybridRecord]) -> None:
    report = samples.report(hybrids, ("85MFLOPs", "10MFLOPs", "200kparams"), samples.anchors(n=20))
    entries = report.entries

    def beats(a, b) -> bool:
        return a.val.top1 >= b.val.top1 and a.macs <= b.macs and (a.val.top1, -a.macs) != (b.val.top1, -b.macs)

    for hybrid in report.hybrids:
        assert (hybrid.id in report.dominated) == any(beats(other, hybrid) for other in entries)
    for budget in report.budgets:
        inside = [entry for entry in entries if budget.allows(entry)]
        assert set(budget.pareto) == {e.id for e in inside if not any(beats(other, e) for other in inside)}
        assert (budget.pick is None) == (not inside)
        if inside:
            best = max(entry.val.top1 for entry in inside)
            cheapest = min(entry.macs for entry in inside if entry.val.top1 == best)
            picked = report.entry(str(budget.pick))
            assert (picked.val.top1, picked.macs) == (best, cheapest)
            assert budget.pick in budget.pareto


def test_the_pick_is_chosen_on_val_even_where_test_disagrees() -> None:
    lucky = samples.hybrid("lucky", 50e6, 0.80, test=final_score(2400, 2500))
    best = samples.hybrid("best", 60e6, 0.85, test=final_score(1000, 2500))
    (budget,) = samples.report([lucky, best]).budgets
    assert budget.pick == "best"


def test_an_equal_hybrid_does_not_take_the_pick_from_a_cheaper_anchor() -> None:
    equal = samples.hybrid("h0", 60e6, 0.786)
    (budget,) = samples.report([equal]).budgets
    assert (budget.pick, budget.best_anchor) == (samples.SMALL, samples.SMALL)


def test_every_trained_hybrid_is_listed_and_only_finalists_are_scored_on_test() -> None:
    hybrids = samples.cifar_hybrids()
    report = samples.report(hybrids)
    assert [h.id for h in report.hybrids] == [h.id for h in hybrids]
    scored = {h.id for h in report.hybrids if h.test is not None}
    assert scored == {id for id in report.budgets[0].pareto if id.startswith("h")}
    assert all(anchor.test.n == 2500 for anchor in report.anchors)


def test_finalists_of_several_budgets_are_the_union_of_their_hybrids() -> None:
    hybrids, anchors = samples.cifar_hybrids(), samples.anchors()
    small, large = parse_budget("50MFLOPs"), parse_budget("120MFLOPs")
    alone = set(finalists(anchors, hybrids, [small])) | set(finalists(anchors, hybrids, [large]))
    assert set(finalists(anchors, hybrids, [small, large])) == alone


def test_params_among_the_objectives_keep_a_smaller_network_in_the_set() -> None:
    heavy = samples.hybrid("heavy", 50e6, 0.80, params=900_000)
    light = samples.hybrid("light", 55e6, 0.79, params=100_000)
    anchors, budget = samples.anchors(), [parse_budget("85MFLOPs")]
    assert finalists(anchors, [heavy, light], budget) == ("heavy",)
    assert finalists(anchors, [heavy, light], budget, ("accuracy", "macs", "params")) == ("heavy", "light")


def test_no_budget_means_one_without_limits() -> None:
    report = samples.report([samples.hybrid("h0", 50e6, 0.8)], budgets=())
    (budget,) = report.budgets
    assert (budget.name, budget.limits) == (UNLIMITED.name, {})
    assert budget.pick == samples.LARGE


def test_spearman_is_over_stitch_points_each_with_the_best_hybrid_trained_there() -> None:
    places = [(Part(samples.SMALL, cut, ""), Part(samples.LARGE, other, "")) for cut in range(3) for other in (4, 9)]
    scores, accuracies = [0.9, 0.2, 0.7, 0.4, 0.5, 0.6], [0.80, 0.71, 0.75, 0.77, 0.74, 0.70]
    hybrids = [
        samples.hybrid(f"h{i}", 50e6 + i, top1, front=front, back=back, score=score)
        for i, ((front, back), score, top1) in enumerate(zip(places, scores, accuracies, strict=True))
    ]
    again = replace(hybrids[0], id="again", val=Score.of(1, 2500))
    (ranker,) = samples.report([*hybrids, again]).rankers
    assert ranker.n == 6
    assert ranker.spearman == pytest.approx(spearmanr(scores, accuracies)[0])
    assert (ranker.within_front.fronts, ranker.within_front.top1_hits) == (3, 1)


def test_scores_that_are_not_numbers_never_reach_the_report() -> None:
    hybrids = [samples.hybrid(f"h{i}", 50e6 + i, 0.7 + i / 100, score=math.nan) for i in range(4)]
    report = samples.report(hybrids)
    assert {h.score for h in report.hybrids} == {None}
    assert (report.rankers[0].n, report.rankers[0].spearman) == (0, None)


def test_several_rankers_are_judged_on_the_same_hybrids() -> None:
    hybrids = samples.cifar_hybrids(10)
    scores = {"good": {h.id: h.val.top1 for h in hybrids}, "bad": {h.id: -h.val.top1 for h in hybrids}}
    report = build(hybrids=hybrids, ranker_scores=scores)
    assert [(r.name, r.spearman) for r in report.rankers] == [("good", pytest.approx(1)), ("bad", pytest.approx(-1))]


def test_whole_costs_are_ints() -> None:
    report = samples.report([samples.hybrid("h0", 5e7, 0.8)])
    assert type(report.hybrids[0].macs) is int
    assert type(report.budgets[0].limits["macs"]) is int


def test_ids_must_differ_also_from_anchor_names() -> None:
    with pytest.raises(ValueError, match=samples.SMALL):
        samples.report([samples.hybrid(samples.SMALL, 5e7, 0.8)])


def test_an_anchor_without_test_score_is_refused() -> None:
    with pytest.raises(ValueError, match="has not been scored on test"):
        build(anchors=[replace(anchor, test=None) for anchor in samples.anchors()])


def test_a_score_for_an_unknown_hybrid_is_refused() -> None:
    with pytest.raises(ValueError, match="ghost"):
        build(ranker_scores={"cka": {"ghost": 0.5}})


def test_the_report_is_frozen_and_finds_its_entries() -> None:
    report = samples.report()
    with pytest.raises(FrozenInstanceError):
        report.seed = 1  # pyright: ignore[reportAttributeAccessIssue]
    assert report.hybrid("h003").id == report.entry("h003").id == "h003"
    assert report.entry(samples.SMALL).macs == samples.MACS[samples.SMALL]
    with pytest.raises(RunError, match="no hybrid 'h0x3'"):
        report.hybrid("h0x3")
    with pytest.raises(RunError, match="85MFLOPs"):
        report.budget("85MFlop")


def build(**changes):
    arguments = {
        "run": "run", "created": "", "command": "", "space": "s", "seed": 0, "environment": {},
        "search": samples.SUMMARY, "anchors": samples.anchors(), "hybrids": [samples.hybrid("h0", 5e7, 0.8)],
        "budgets": [DeviceBudget("b", (("macs", 8.5e7),))], "trials": samples.Trials(1, 0, 0),
    }  # fmt: skip
    return samples.built(**(arguments | changes))
