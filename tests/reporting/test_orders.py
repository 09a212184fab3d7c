"""Stitch orders and licences in the report: counted from the hybrids, shown, and read back."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from restnet_search.reporting import Report, build_report, finalists, from_json, render_report, to_json
from restnet_search.reporting.report import Part, Trials
from tests.reporting.samples import BACK, FRONT, LARGE, SMALL, SUMMARY, anchors, hybrid


def mixed(licences: tuple[str | None, str | None] = ("apache-2.0", "cc-by-nc-4.0")) -> Report:
    """The large anchor a CNN, the small one a Transformer; three hybrids from it, one onto it."""
    large, small = anchors()
    both = [replace(large, kind="cnn", licence=licences[0]), replace(small, kind="transformer", licence=licences[1])]
    found = [
        hybrid("h000", 30e6, 0.80),
        hybrid("h001", 40e6, 0.82),
        hybrid("h002", 50e6, 0.82),
        hybrid("h003", 60e6, 0.70, front=Part(LARGE, 3, "layer1.2"), back=Part(SMALL, 2, "layer2.0")),
    ]
    chosen = finalists(both, found, ())
    scored = [replace(one, test=one.val) if one.id in chosen else one for one in found]
    return build_report(
        run="mixed", created="2026-11-22T12:00:00+00:00", command="restnet-search", space="mixed", seed=0,
        environment={}, search=SUMMARY, anchors=both, hybrids=scored, budgets=(), trials=Trials(4, 0, 0),
        candidates={(SMALL, LARGE, "small_to_large"): 9, (LARGE, SMALL, "large_to_small"): 5},
    )  # fmt: skip


def told(report: Report) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(render_report(report))
    return console.file.getvalue()  # type: ignore[attr-defined]


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


def test_licences_are_said_and_warned_of() -> None:
    report = mixed()
    text = " ".join(told(report).split())
    assert f"Weights of {SMALL}: cc-by-nc-4.0 (non-commercial)" in text
    assert f"NOT FOR COMMERCIAL USE: 4 of 4 hybrids hold the weights of {SMALL}." in text
    assert all(one.non_commercial == (SMALL,) for one in report.hybrids)
    free = mixed(("apache-2.0", None))
    assert "COMMERCIAL" not in told(free) and f"Weights of {SMALL}: unknown" in told(free)
    assert all(one.non_commercial == () for one in free.hybrids)


def test_the_json_holds_them_and_older_results_are_read_without() -> None:
    report = mixed()
    plain = to_json(report)
    assert from_json(plain) == report
    assert plain["anchors"][1]["licence"] == "cc-by-nc-4.0" and plain["hybrids"][0]["non_commercial"] == [SMALL]
    del (
        plain["orders"],
        plain["anchors"][0]["licence"],
        plain["anchors"][0]["kind"],
        plain["hybrids"][0]["non_commercial"],
    )
    older = from_json(plain)
    assert older.orders == () and older.anchors[0].licence is None and "Stitch orders" not in told(older)
