"""Stitch orders and licenses in the report: counted from the hybrids, shown, and read back."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from restnet_search.reporting.assemble.build import finalists
from restnet_search.reporting.assemble.statistics import final_score
from restnet_search.reporting.model.judgements import Trials
from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.results_file.codec import from_json, to_json
from restnet_search.reporting.terminal.report_page import render_report
from restnet_search.search.run.records import Direction, Part
from tests.reporting.samples import BACK, FRONT, LARGE, SMALL, SUMMARY, anchors, built, hybrid


def mixed(licenses: tuple[str | None, str | None] = ("apache-2.0", "cc-by-nc-4.0")) -> Report:
    """The large anchor a CNN, the small one a Transformer; three hybrids from it, one onto it."""
    large, small = anchors()
    both = [replace(large, kind="cnn", license=licenses[0]), replace(small, kind="transformer", license=licenses[1])]
    found = [
        hybrid("h000", 30e6, 0.80),
        hybrid("h001", 40e6, 0.82),
        hybrid("h002", 50e6, 0.82),
        hybrid("h003", 60e6, 0.70, front=Part(LARGE, 3, "layer1.2"), back=Part(SMALL, 2, "layer2.0")),
    ]
    chosen = finalists(both, found, ())
    scored = [
        replace(one, test=final_score(round(one.val.top1 * one.val.n), one.val.n)) if one.id in chosen else one
        for one in found
    ]
    return built(
        run="mixed", created="2026-11-22T12:00:00+00:00", command="restnet-search", space="mixed", seed=0,
        environment={}, search=SUMMARY, anchors=both, hybrids=scored, budgets=(), trials=Trials(4, 0, 0),
        candidates={Direction(SMALL, LARGE, "small_to_large"): 9, Direction(LARGE, SMALL, "large_to_small"): 5},
    )  # fmt: skip


def told(report: Report) -> str:
    printed = io.StringIO()
    Console(file=printed, width=80).print(render_report(report))
    return printed.getvalue()


def test_each_way_counts_its_hybrids_and_names_the_cheapest_of_the_best() -> None:
    rows = {(entry.front, entry.back): entry for entry in mixed().orders}
    up, down = rows[FRONT.anchor, BACK.anchor], rows[LARGE, SMALL]
    assert (up.order, up.candidates, up.trained, up.best) == ("small_to_large", 9, 3, "h001")
    assert (down.order, down.candidates, down.trained, down.best) == ("large_to_small", 5, 1, "h003")
    assert (up.front_kind, up.back_kind) == ("transformer", "cnn")


def test_they_are_shown_within_80_columns() -> None:
    text = told(mixed())
    assert "small_to_large: 3 trained, best 82.0 % on val (h001)." in text
    assert "transformer > cnn: 3 trained" in text and "cnn > transformer: 1 trained" in text
    section = text.partition("Stitch orders")[2].partition("Was the ranker right?")[0]
    assert max(map(len, section.splitlines())) <= 80


def test_licenses_are_said_and_warned_of() -> None:
    report = mixed()
    text = " ".join(told(report).split())
    assert f"Weights of {SMALL}: cc-by-nc-4.0 (non-commercial)" in text
    assert f"NOT FOR COMMERCIAL USE: 4 of 4 hybrids hold the weights of {SMALL}." in text
    assert all(report.non_commercial[one.id] == (SMALL,) for one in report.hybrids)
    free = mixed(("apache-2.0", None))
    assert "COMMERCIAL" not in told(free) and f"Weights of {SMALL}: license unknown" in told(free)
    assert free.non_commercial == {}


def test_the_json_holds_them_and_older_results_are_read_without() -> None:
    report = mixed()
    plain = to_json(report)
    assert from_json(plain) == report
    assert plain["anchors"][1]["license"] == "cc-by-nc-4.0" and plain["non_commercial"]["h000"] == [SMALL]
    del (
        plain["orders"],
        plain["anchors"][0]["license"],
        plain["anchors"][0]["kind"],
        plain["non_commercial"],
    )
    older = from_json(plain)
    assert older.orders == () and older.anchors[0].license is None and "Stitch orders" not in told(older)
