"""The report's sections on controls and on what every ranker was worth."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from restnet_search.reporting.assemble.control_comparisons import random_controls, self_controls
from restnet_search.reporting.assemble.statistics import kendall, regret_of_first, within_front
from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.results_file.codec import from_json, to_json
from restnet_search.reporting.terminal.report_page import render_report
from restnet_search.search.run.records import HybridRecord, Part

from . import samples
from .test_build import build


def with_controls() -> Report:
    drawn = replace(samples.hybrid("r000", 50e6, 0.70), control="random", front=Part(samples.SMALL, 2))
    alike = [samples.hybrid(f"h{i}", macs, top1) for i, (macs, top1) in enumerate(zip(MACS, ACCURACIES, strict=True))]
    own = replace(
        samples.hybrid("s000", 13e6, 0.75), front=Part(samples.SMALL, 1), back=Part(samples.SMALL, 1), control="self"
    )
    return build(hybrids=[*alike, drawn], controls=[own], trials=samples.Trials(4, 0, 0, (), 2, 3))


MACS, ACCURACIES = (41e6, 50e6, 52e6, 39e6), (0.72, 0.80, 0.74, 0.99)  # the last one is too cheap to be alike


def test_controls_are_compared_with_anchors_and_with_hybrids_of_like_flops() -> None:
    report = with_controls()
    (drawn,) = random_controls(report)
    assert (drawn.control.id, drawn.chosen) == ("r000", 3)
    assert (drawn.median, drawn.best) == (pytest.approx(0.74), pytest.approx(0.80))
    (own,) = self_controls(report)
    anchor = report.entry(samples.SMALL)
    assert own.change == pytest.approx(0.75 - anchor.val.top1)


def test_self_stitches_are_no_entries_and_random_ones_are() -> None:
    report = with_controls()
    assert "s000" not in {entry.id for entry in report.entries}
    assert "r000" in {entry.id for entry in report.entries}
    assert from_json(to_json(report)) == report


def test_an_older_report_without_controls_can_be_read() -> None:
    plain = to_json(samples.report())
    del plain["controls"]
    for hybrid in plain["hybrids"]:
        del hybrid["scores"], hybrid["control"]
    assert from_json(plain).controls == ()


def test_the_report_has_a_section_for_controls(printed) -> None:
    text = printed(render_report(with_controls()), width=100)
    section = text.split("Controls ─")[1].split("Was the ranker right?")[0]
    assert "s000" in section
    assert "r000" in section
    assert "in 1 of 1 (mean +4.0 points)" in section
    assert "1 control was not trained to the end" in section
    assert "Controls ─" not in printed(render_report(samples.report()))


def test_all_rankers_stand_side_by_side_with_what_cannot_be_said(printed) -> None:
    hybrids = samples.cifar_hybrids(12)
    scores = {"cka": {h.id: h.val.top1 for h in hybrids}, "lstsq": {h.id: -h.val.top1 for h in hybrids}}
    text = printed(render_report(build(hybrids=hybrids, ranker_scores=scores)), width=100)
    section = text.split("Was the ranker right?")[1].split("How to read")[0]
    assert "cka *" in section
    assert "lstsq" in section
    assert "+1.00" in section
    assert "-1.00" in section
    assert "Only stitch points that were trained count" in section


pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=2, max_size=8)


@given(pairs, st.integers(1, 5))
def test_regret_is_the_worst_that_any_order_of_equal_scores_would_give(pairs: list[tuple[int, int]], k: int) -> None:
    found = regret_of_first(pairs, k)
    if len(pairs) <= k:
        assert found is None
        return
    assert found is not None
    best = max(accuracy for _, accuracy in pairs)
    sure = sorted(pairs, key=lambda pair: -pair[0])[k - 1][0]  # the score of the last that is taken
    certain = [accuracy for score, accuracy in pairs if score > sure]
    tied = sorted(accuracy for score, accuracy in pairs if score == sure)[: k - len(certain)]
    assert found == best - max([*certain, *tied])
    assert found >= 0


def test_regret_within_a_front_is_that_of_its_first_choice() -> None:
    points = [("a", 0.9, 0.70), ("a", 0.5, 0.80), ("b", 0.3, 0.60), ("b", 0.2, 0.50), ("c", 0.1, 0.10)]
    assert within_front(points).regret == pytest.approx(0.05)  # 0.10 and 0; the front with one partner has no choice
    assert within_front(points[-1:]).regret is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=12))
def test_kendall_is_scipys(values: list[tuple[int, int]]) -> None:
    first, second = map(list, zip(*values, strict=True))
    found = kendall(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(kendalltau(first, second)[0])


def test_random_controls_say_how_many_of_a_rankers_points_they_are() -> None:
    hybrids: list[HybridRecord] = [
        replace(samples.hybrid(f"h{i}", 5e7 + i, 0.7 + i / 100, score=i / 10), front=Part(samples.SMALL, i))
        for i in range(6)
    ]
    hybrids[2] = replace(hybrids[2], control="random")
    (ranker,) = build(hybrids=hybrids, ranker_scores=None).rankers
    assert (ranker.n, ranker.at_random) == (6, 1)
    assert ranker.regret == {"1": 0.0, "3": 0.0, "5": 0.0}
