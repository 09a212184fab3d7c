"""What the report says agrees with what it shows, names what it counts in, and keeps names whole."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from restnet_search.reporting.assemble.statistics import final_score
from restnet_search.reporting.blocks import literal, number_column, table, text_column
from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.model.summary import LatencyNote
from restnet_search.reporting.phrases import difference, is_above_chance, percent
from restnet_search.reporting.terminal.facts import effort
from restnet_search.reporting.terminal.network_tables import AnchorTable, ParetoTable
from restnet_search.reporting.terminal.report_page import render_report
from restnet_search.reporting.terminal.verdicts import verdict
from restnet_search.reporting.words import Words
from restnet_search.search.run.records import Cost, MeasuredOn

from . import samples

SMALL, LARGE = "mobilenetv4_conv_small.e2400_r224_in1k", "vit_base_patch16_224.augreg2_in21k_ft_in1k"


def printed(block: RenderableType, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False, markup=False, emoji=False).print(block)
    return stream.getvalue()


def long_names() -> Report:
    """A report whose anchors are called as timm calls them."""
    report = samples.report(samples.cifar_hybrids(12))
    names = {samples.SMALL: SMALL, samples.LARGE: LARGE}

    def named(id: str | None) -> str | None:
        return names.get(id, id) if id else id

    return replace(
        report,
        anchors=tuple(replace(one, name=names[one.name]) for one in report.anchors),
        hybrids=tuple(
            replace(
                one,
                front=replace(one.front, anchor=names[one.front.anchor]),
                back=replace(one.back, anchor=names[one.back.anchor]),
            )
            for one in report.hybrids
        ),
        budgets=tuple(
            replace(
                one,
                pareto=tuple(str(named(id)) for id in one.pareto),
                pick=named(one.pick),
                best_anchor=named(one.best_anchor),
            )
            for one in report.budgets
        ),
        orders=tuple(replace(one, front=names[one.front], back=names[one.back]) for one in report.orders),
    )


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(1, 10_000))
def test_a_difference_is_that_of_the_percentages_shown(first: int, second: int, n: int) -> None:
    a, b = (min(one, n) / n for one in (first, second))
    tenths = round(10 * float(percent(a))) - round(10 * float(percent(b)))  # what a reader subtracts
    assert difference(a, b) == ("0.0" if tenths == 0 else f"{tenths / 10:+.1f}")


def test_eighty_four_point_two_that_became_point_one_is_a_tenth() -> None:
    assert (percent(0.84249), percent(0.84051)) == ("84.2", "84.1")
    assert difference(0.84051, 0.84249) == "-0.1"  # not -0.2, which is what the exact ones round to


@pytest.mark.parametrize(
    ("low", "above"), [(0.0, False), (0.0004, False), (-0.0004, False), (-0.01, False), (0.0006, True), (0.02, True)]
)
def test_an_interval_that_touches_zero_as_it_is_shown_is_chance(low: float, above: bool) -> None:
    assert is_above_chance(low) == above


def test_the_verdict_says_chance_where_its_interval_shows_zero() -> None:
    """Counts around the border: whatever the verdict says agrees with the interval it shows."""
    seen: set[bool] = set()
    for correct in range(790, 850):
        anchors = [replace(one, test=final_score(800, 1000)) for one in samples.anchors(small=0.5, large=0.8)]
        best = replace(samples.hybrid("h000", 55e6, 0.95), test=final_score(correct, 1000))
        report = samples.report([best], ("130MFLOPs",), anchors)
        text = " ".join(verdict(report, report.budgets[0]))
        interval = re.search(r"95 % interval (\S+) to ([^,:]+)[,:]", text)
        assert interval is not None
        claims = "more than chance explains" in text
        assert claims == (float(interval[1]) > 0), text
        assert ("points above" in text) == (correct > 800)
        seen.add(claims)
    assert seen == {True, False}


def with_costs(report: Report, **search: object) -> Report:
    def costly(one):
        return replace(one, cost=Cost(one.macs, one.params, 900_000, 0.004))

    return replace(
        report,
        anchors=tuple(map(costly, report.anchors)),
        hybrids=tuple(map(costly, report.hybrids)),
        search=replace(report.search, objectives=("accuracy", "macs", "memory", "latency"), **search),
    )


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_every_table_says_what_memory_is_counted_in_and_where_latency_was_measured(width: int) -> None:
    note = LatencyNote(MeasuredOn("onnxruntime", 2, 1, "a board"), 9, 20, 0, None, None)
    report = with_costs(samples.report(samples.cifar_hybrids(6)), memory_dtype="int8", latency=note)
    budget = replace(report.budgets[0], name="pi", limits={"memory": 1_000_000, "latency": 0.005})
    report = replace(report, budgets=(budget,))
    for block in (AnchorTable(report), ParetoTable(report, budget)):
        text = printed(block, width)
        assert "int8" in text and "onnxruntime" in text
    page = printed(render_report(report), width)
    assert max(map(len, page.splitlines())) <= width
    limits = "1.00MB of memory in int8 and 5.00ms of latency on onnxruntime, 2 threads, batch 1, a board"
    assert f"Budget pi: at most {limits} " in " ".join(page.split())


@pytest.mark.parametrize("width", range(14, 60, 5))
@pytest.mark.parametrize(
    "name", [f"{SMALL}[..0]", f"{LARGE}[layer1.0..]", f"{SMALL} > {LARGE}", "hf-hub:timm/a_b", "größe"]
)
def test_names_are_parted_at_their_joints_and_nothing_is_lost(name: str, width: int) -> None:
    lines = [line.rstrip() for line in printed(Words(name), width).splitlines()]
    assert max(map(len, lines)) <= width
    assert "".join(lines).replace(" ", "") == name.replace(" ", "")
    assert all(before[-1] in "._/:@->" or after[0] in "[>" for before, after in pairwise(lines))
    assert not any(re.match(r"\.\.|\d+\]", line) for line in lines)  # a cut point is never parted from its bracket


@pytest.mark.parametrize("width", [23, 28, 33, 40])
def test_a_name_that_fits_a_line_of_its_own_is_not_parted(width: int) -> None:
    lines = printed(Words("cnn_small[..layer1.0] + cnn_large[layer3.0..]"), width).splitlines()
    assert [line.rstrip() for line in lines] == ["cnn_small[..layer1.0] +", "cnn_large[layer3.0..]"]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_line_of_a_pareto_table_begins_within_a_word(width: int) -> None:
    report = long_names()
    text = printed(ParetoTable(report, report.budgets[0]), width)
    pieces = {piece for name in (SMALL, LARGE) for piece in re.findall(r"[^._]+", name)}
    words = {word for line in text.splitlines() for word in re.findall(r"[a-z][a-z0-9]{4,}", line.split("*")[0])}
    broken = [word for word in words if any(word != piece and word in piece for piece in pieces)]
    assert not broken


@pytest.mark.parametrize("width", [60, 80, 100])
def test_numbers_stay_whole_in_every_table(width: int) -> None:
    report = long_names()
    text = printed(render_report(report), width)
    assert "…" not in text
    for entry in report.anchors:
        low, high = (percent(end) for end in entry.test.ci95)
        assert f"[{low}, {high}]" in text and percent(entry.val.top1) in text


def test_a_word_longer_than_its_column_is_folded_not_cut() -> None:
    grid = table(text_column("name"), number_column("n"))
    grid.add_row(*literal("x" * 50, "1.5"))
    assert printed(grid, 20).count("x") == 50


def test_commands_to_copy_are_quoted() -> None:
    import shlex

    from restnet_search.reporting.terminal.facts import next_commands

    report = replace(samples.report(), run="my run; rm -rf $HOME")
    for command, _ in next_commands(report):
        assert shlex.split(command)[2] == report.run


def test_the_csv_holds_no_formulas() -> None:
    import csv

    from restnet_search.reporting.results_file.csv_table import pareto_csv

    report = samples.report()
    budget = replace(report.budgets[0], name="=cmd|' /C calc'!A0")
    rows = list(csv.DictReader(io.StringIO(pareto_csv(replace(report, budgets=(budget,))))))
    assert rows and {row["budget"] for row in rows} == {"'=cmd|' /C calc'!A0"}
    assert all(float(row["val_top1"]) > 0 for row in rows)  # numbers stay numbers


def test_the_effort_is_told_with_what_the_space_set_itself() -> None:
    report = samples.report()
    assert effort(report) == ""  # of an earlier version
    own = replace(report, search=replace(report.search, effort="best", effort_but=("training.tune",)))
    assert effort(own).startswith("best: all of the front and of the back is trained")
    assert effort(own).endswith("(the space sets training.tune itself)")
    assert "effort" in printed(render_report(own), 100)
