"""The section on rungs, and dropped candidates in results.json."""

from __future__ import annotations

import io
import json
from dataclasses import replace

from rich.console import Console

from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.results_file.codec import from_json, to_json
from restnet_search.reporting.terminal.report_page import render_report
from restnet_search.search.run.records import Dropped, RungSummary
from tests.reporting.samples import BACK, FRONT, report

RUNGS = (
    RungSummary("cost", 224, 172, 0.0),
    RungSummary("ranker", 172, 61, 4.2),
    RungSummary("closed_form", 61, 40, 12.25),
    RungSummary("full", 40, 36, 431.0),
)
DROPPED = (
    Dropped(FRONT, BACK, "small_to_large", 30_000_000, "ranker", 0.31, "place 9 among the partners of its front"),
    Dropped(FRONT, BACK, "small_to_large", 40_000_000, "closed_form", 0.715, "place 5 of 6", 400),
    Dropped(FRONT, BACK, "small_to_large", 50_000_000, "closed_form", None, "the loss became nan", 400),
)


def text_of(found: Report) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(render_report(found))
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_the_section_shows_each_rung_and_the_best_that_was_dropped() -> None:
    text = text_of(replace(report(), rungs=RUNGS, dropped=DROPPED))
    section = text[text.index("Successive halving") : text.index("Was the ranker right?")]
    rows = [line.split() for line in section.splitlines()]
    assert ["ranker", "(cka)", "172", "61", "4.2"] in rows
    assert any(row[:2] == ["closed-form", "stitch,"] and row[-3:] == ["61", "40", "12.2"] for row in rows)
    assert "2 candidates were dropped after a score on val, of which the best had reached 71.5 %" in " ".join(
        section.split()
    )


def test_where_nothing_was_halved_there_is_no_section() -> None:
    plain = [rung for rung in RUNGS if rung.name != "closed_form"]
    assert "Successive halving" not in text_of(replace(report(), rungs=tuple(plain), dropped=DROPPED[:1]))
    assert "Successive halving" not in text_of(report())


def test_results_keep_them_and_older_results_have_none() -> None:
    found = replace(report(), rungs=RUNGS, dropped=DROPPED)
    data = json.loads(json.dumps(to_json(found)))
    assert from_json(data) == found
    assert data["rungs"][2] == {"name": "closed_form", "entered": 61, "kept": 40, "seconds": 12.25}
    assert data["dropped"][1] == {
        "front": {"anchor": FRONT.anchor, "cut": FRONT.cut, "path": FRONT.path},
        "back": {"anchor": BACK.anchor, "cut": BACK.cut, "path": BACK.path},
        "order": "small_to_large", "macs": 40_000_000, "rung": "closed_form", "score": 0.715,
        "reason": "place 5 of 6", "n": 400, "kind": None,
    }  # fmt: skip
    del data["rungs"], data["dropped"]
    assert (from_json(data).rungs, from_json(data).dropped) == ((), ())
