from __future__ import annotations

import re

from restnet_search.reporting.figures.accuracy_plot import AccuracyPlot

from . import samples


def test_each_kind_has_its_marker_and_the_legend_counts_it(printed) -> None:
    report = samples.report()
    text = printed(AccuracyPlot(report), 120)
    canvas, legend = text.split("MACs, log scale")
    dominated = len(report.dominated)
    assert canvas.count("◆") == 2
    assert 1 <= canvas.count("●") <= len(report.hybrids) - dominated
    assert canvas.count("·") >= 3
    assert f"◆ anchor (2)   ● Pareto hybrid ({len(report.hybrids) - dominated})" in legend
    assert f"· dominated hybrid ({dominated})" in legend
    assert "│ budget: 85MFLOPs" in legend


def test_dots_stand_where_their_values_are(printed) -> None:
    low = samples.hybrid("low", 20e6, 0.30)
    high = samples.hybrid("high", 100e6, 0.84)
    lines = printed(AccuracyPlot(samples.report([low, high], budgets=())), 100).splitlines()
    found = [(line.index("●"), row) for row, line in enumerate(lines) if "●" in line and "Pareto" not in line]
    anchor_rows = [row for row, line in enumerate(lines) if "◆" in line and "anchor (" not in line]
    ((column, row),) = found  # `low` is dominated by the small anchor
    assert column > 60 and min(anchor_rows) < row < max(anchor_rows)


def test_an_anchors_name_never_hides_a_dot(printed) -> None:
    beside = samples.hybrid("beside", 100e6, 0.894)  # in the row of the large anchor, where its name would stand
    canvas = printed(AccuracyPlot(samples.report([beside], budgets=()))).split("MACs, log scale")[0]
    assert canvas.count("●") == 1 and canvas.count("◆") == 2


def test_anchors_are_named_and_far_budgets_do_not_squeeze_the_plot(printed) -> None:
    text = printed(AccuracyPlot(samples.report(budgets=("85MFLOPs", "900GFLOPs"))))
    assert samples.SMALL in text and samples.LARGE in text
    assert "outside the plot: budget 900GFLOPs" in text


def test_a_narrow_range_of_costs_is_drawn_on_a_linear_axis(printed) -> None:
    val, test = samples.Score.of(80, 100), samples.final_score(8, 10)
    anchors = [
        samples.AnchorRecord(f"a{i}", f"a{i}", samples.Cost(1_000_000_000 + i * 200_000_000, 1_000_000), val, test)
        for i in range(2)
    ]
    text = printed(AccuracyPlot(samples.report([], budgets=(), anchor_results=anchors)))
    assert "log scale" not in text
    assert len(re.findall(r"\d(?:\.\d+)?G", text)) >= 2


def test_equal_anchors_draw_without_division_by_zero(printed) -> None:
    anchors = [
        samples.AnchorRecord(
            name, name, samples.Cost(1_000_000_000, 1_000_000), samples.Score.of(8, 10), samples.final_score(8, 10)
        )
        for name in "ab"
    ]
    assert "◆" in printed(AccuracyPlot(samples.report([], budgets=(), anchor_results=anchors)))
