"""The report's section on rivals: who is above whom, by pairs, in words that follow from the intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from restnet_search.plain.answers import Answers
from restnet_search.plain.predictions import Predictions
from restnet_search.reporting.assemble.statistics import final_score, paired_interval
from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.results_file.codec import from_json, to_json
from restnet_search.reporting.terminal.report_page import render_report
from restnet_search.search.run.records import FinalScore
from restnet_search.search.run.rival_records import DISTILLED, Distillation, Distilled, Rivals

from . import samples

N = 400
SMALL, LARGE = samples.SMALL, samples.LARGE


def right(*spans: tuple[int, int]) -> list[bool]:
    """Images that are classified correctly: those within the spans."""
    return [any(low <= place < high for low, high in spans) for place in range(N)]


def scored(flags: Sequence[bool]) -> FinalScore:
    return final_score(Answers.of(flags, "test"), N)


def report_with(distilled: Sequence[bool], pick: Sequence[bool], budget: str = "85MFLOPs") -> Report:
    """A pick of 60 MMACs, a small anchor that is right on the first 200 images, and a large one on the first 360.

    The small anchor is sure of exactly what it gets right, and the less sure the earlier an image comes after that, so
    that a cascade which leaves 160 images to the large anchor is right on the first 360 as well.
    """
    anchors = [replace(one, test=scored(right((0, 200 if one.name == SMALL else 360)))) for one in samples.anchors()]
    hybrid = samples.hybrid("h000", 60_000_000, 0.82, test=scored(pick))
    network = replace(next(one for one in anchors if one.name == SMALL), name=DISTILLED, test=scored(distilled))
    control = Distilled(network, Distillation(SMALL, LARGE, 2000, 5, 10_003), seconds=61.0, sha256="0" * 64)
    sure = np.where(right((0, 200)), 0.9, 0.2 + np.arange(N) / 10_000)
    seen = {
        name: {split: Predictions(split, np.array(right((0, least))), sure) for split in ("val", "test")}
        for name, least in ((SMALL, 200), (LARGE, 360))
    }
    return samples.report([hybrid], [budget], anchors, predictions=seen, rivals=Rivals(distilled=control))


def section(report: Report, printed: Callable[..., str]) -> str:
    text = printed(render_report(report), width=100).split("Rivals ─")[1].split("Stitch orders ─")[0]
    return " ".join(text.split("Was the ranker")[0].split())


def test_the_pick_is_compared_with_each_rival_by_pairs() -> None:
    report = report_with(distilled=right((0, 210)), pick=right((10, 330)))
    (budget,) = report.budgets
    assert list(budget.rivals) == [DISTILLED, "cascade at the pick's MACs", "cascade at the budget's MACs"]
    control = budget.rivals[DISTILLED]
    assert (control.first, control.second, control.n) == ("h000", DISTILLED, N)
    assert control.difference == pytest.approx((320 - 210) / N)
    assert control.ci95 == pytest.approx(paired_interval(120, 10, N))  # images 210 to 330, and 0 to 10
    assert from_json(to_json(report)) == report


def test_a_budget_without_room_for_the_distilled_anchor_has_no_such_rival() -> None:
    (budget,) = report_with(right((0, 210)), right((0, 300)), budget="70kparams").budgets
    assert DISTILLED not in budget.rivals


def test_what_a_pick_leaves_behind_would_not_have_done(printed: Callable[..., str]) -> None:
    text = section(report_with(distilled=right((0, 210)), pick=right((0, 330))), printed)
    assert (
        "Would distilling have done? d000 is cifar_resnet8, trained whole to follow cifar_resnet56 on 10,000 images"
        in text
    )
    assert "(the search saw 212,000), in 5 epochs of 2,000, 1 min 01 s." in text
    assert "It reaches 52.5 % on test; before, 50.0 %." in text
    assert "Against it the pick is at +30.0 points" in text
    assert "more than chance explains: distilling the small model would not have done." in text


def test_a_rival_that_is_better_is_named_in_the_verdict_and_can_be_exported(printed: Callable[..., str]) -> None:
    report = report_with(distilled=right((0, 399)), pick=right((0, 330)))
    text = " ".join(printed(render_report(report), width=100).split())
    verdict = text.split("Budget 85MFLOPs")[1].split("Rivals ─")[0]
    assert (
        "A rival does better: d000, cifar_resnet8 distilled, +17.3 points on test at 12.5M MACs (see Rivals)."
        in verdict
    )
    assert "more than chance explains: distilling the small model does better." in text
    assert f"restnet-search export {report.run} d000" in text.split("Next ─")[1]


def test_what_chance_could_explain_is_said_to_be_open(printed: Callable[..., str]) -> None:
    text = section(report_with(distilled=right((1, 332)), pick=right((0, 330))), printed)
    assert "which chance alone could explain: distilling the small model may have done as well." in text


def test_a_cascade_says_its_macs_on_average_and_at_most(printed: Callable[..., str]) -> None:
    report = report_with(distilled=right((0, 210)), pick=right((0, 330)))
    at_pick, at_budget = report.rivals.cascades
    most = samples.MACS[SMALL] + samples.MACS[LARGE]
    assert at_pick.cost.macs == at_budget.cost.macs == most
    for one, limit in ((at_pick, 60e6), (at_budget, 85e6)):
        assert one.limit == limit and one.mean_macs["val"] <= limit
    assert (at_pick.deferred["test"], at_pick.test.top1) == (151 / N, 351 / N)  # as many as 60 MMACs leave room for
    assert (at_budget.deferred["test"], at_budget.test.top1) == (160 / N, 0.9)  # as many as it is better with
    text = section(report, printed)
    assert "cifar_resnet8 answers where it is surer than 0.236, and cifar_resnet56 the other 40.0 % of test." in text
    assert "It reaches 90.0 % with 62.7M MACs on average and 931.1k params." in text
    assert "138.0M" in text  # of an image that both see


def test_an_earlier_report_has_no_section(printed: Callable[..., str]) -> None:
    assert "Rivals ─" not in printed(render_report(samples.report()))
