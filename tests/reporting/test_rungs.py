"""The section on rungs, and dropped candidates in results.json."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from restnet_search.reporting.assemble.rung_judgement import judge_rung
from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.results_file.codec import from_json, to_json
from restnet_search.reporting.terminal.report_page import render_report
from restnet_search.search.run.records import Dropped, Part, RungSummary
from tests.reporting.samples import BACK, FRONT, LARGE, SMALL, hybrid, report

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
    printed = io.StringIO()
    Console(file=printed, width=100).print(render_report(found))
    return printed.getvalue()


def test_the_section_shows_each_rung_and_the_best_that_was_dropped() -> None:
    text = text_of(replace(report(), rungs=RUNGS, dropped=DROPPED))
    section = text[text.index("Successive halving") : text.index("Was the ranker right?")]
    rows = [line.split() for line in section.splitlines()]
    assert ["ranker", "(cka)", "172", "61", "4.2"] in rows
    assert any(row[:2] == ["closed-form", "stitch,"] and row[-3:] == ["61", "40", "12.2"] for row in rows)
    assert "2 candidates were dropped after a score on val, of which the best had reached 71.5 %" in " ".join(
        section.split()
    )


def test_what_the_scores_of_a_rung_foretold_is_said_of_those_that_were_trained() -> None:
    """Four hybrids, of which one was trained twice, and a score of one that was not; ranks by hand."""
    places = [(Part(SMALL, 1), Part(LARGE, cut)) for cut in (3, 5, 7, 9)]
    made = [
        hybrid(f"h{n}", 5e7, top1, front=places[at][0], back=places[at][1])
        for n, (at, top1) in enumerate([(0, 0.60), (1, 0.70), (1, 0.74), (2, 0.72), (3, 0.80)])
    ]
    scores = {
        (SMALL, 1, LARGE, cut, "linear"): score for cut, score in ((3, 0.3), (5, 0.6), (7, 0.4), (9, 0.5), (11, 0.9))
    }
    judged = judge_rung(RUNGS[2], scores, made)
    # scores 0.3 0.6 0.4 0.5 have the ranks 1 4 2 3, accuracies 0.60 0.74 0.72 0.80 the ranks 1 3 2 4
    assert judged.agreement == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert (judged.judged, judged.regret) == (4, pytest.approx(0.80 - 0.74))
    text = " ".join(text_of(replace(report(), rungs=(*RUNGS[:2], judged, RUNGS[3]))).split())
    assert "trained in full: closed form +0.80 over 4 (its first 6.0 points below the best)." in text
    assert (judge_rung(RUNGS[2], {}, made).agreement, judge_rung(RUNGS[2], scores, []).judged) == (None, 0)


def test_a_verdict_says_what_was_never_trained() -> None:
    none_better = [hybrid("h000", 3e7, 0.5), hybrid("h001", 3.5e7, 0.6)]
    short = Dropped(FRONT, BACK, "small_to_large", 39_000_000, "short", 0.6, "place 5 of 6", 400)
    dear = replace(DROPPED[1], macs=90_000_000)  # over this budget: it was never tried for it
    found = replace(report(none_better, ["40MFLOPs"]), rungs=RUNGS, dropped=(*DROPPED[:2], short, dear))
    text = " ".join(text_of(found).split())
    assert (
        "none of the 2 trained here is more accurate on val; "
        "1 dropped after a closed form and 1 dropped after short training." in text
    )


def test_where_nothing_was_halved_there_is_no_section() -> None:
    plain = [rung for rung in RUNGS if rung.name != "closed_form"]
    assert "Successive halving" not in text_of(replace(report(), rungs=tuple(plain), dropped=DROPPED[:1]))
    assert "Successive halving" not in text_of(report())


def test_results_keep_them_and_older_results_have_none() -> None:
    found = replace(report(), rungs=RUNGS, dropped=DROPPED)
    data = json.loads(json.dumps(to_json(found)))
    assert from_json(data) == found
    judged = {"agreement": None, "regret": None, "judged": 0}
    assert data["rungs"][2] == judged | {"name": "closed_form", "entered": 61, "kept": 40, "seconds": 12.25}
    assert data["dropped"][1] == {
        "front": {"anchor": FRONT.anchor, "cut": FRONT.cut, "path": FRONT.path},
        "back": {"anchor": BACK.anchor, "cut": BACK.cut, "path": BACK.path},
        "order": "small_to_large", "macs": 40_000_000, "rung": "closed_form", "score": 0.715,
        "reason": "place 5 of 6", "n": 400, "kind": None,
    }  # fmt: skip
    del data["rungs"], data["dropped"]
    assert (from_json(data).rungs, from_json(data).dropped) == ((), ())
