"""Hybrids beside their rivals: networks compared image by image, and heights above the line between the anchors."""

from __future__ import annotations

import base64
import csv
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from restnet_search import compare_networks, load_run
from restnet_search.cli.main import main
from restnet_search.errors import RunError
from restnet_search.plain.answers import Answers, PairedCounts
from restnet_search.reporting.assemble.statistics import difference_interval, final_score, paired_interval
from restnet_search.reporting.model.run_report import Report, with_line
from restnet_search.reporting.results_file.codec import from_json, to_json, write_results
from restnet_search.reporting.terminal.line_words import line_fact, line_verdict
from restnet_search.reporting.terminal.report_page import render_report
from restnet_search.reporting.terminal.verdicts import verdict

from . import samples

N = 500
IMAGES = "0" * 64


def right(count: int, start: int = 0, n: int = N) -> np.ndarray:
    """So many of n images right, one after another, from a place on."""
    flags = np.zeros(n, dtype=bool)
    flags[start : start + count] = True
    return flags


def scored(flags: np.ndarray, images: str = IMAGES):
    return final_score(Answers.of(flags.tolist(), images), len(flags))


def run(hybrid_flags: np.ndarray, anchor_flags: np.ndarray) -> Report:
    """A run whose pick and smaller anchor were right on these images of test."""
    large, small = samples.anchors()
    pick = samples.hybrid("h007", 60e6, 0.87, test=scored(hybrid_flags))
    anchors = [replace(large, test=scored(right(450))), replace(small, test=scored(anchor_flags))]
    return samples.report([pick], anchor_results=anchors)


@pytest.fixture
def gained() -> Report:
    """The pick is right on 431 images, the anchor on 418 of them and on 2 more: +2.2 points, as the demo had."""
    return run(right(431), right(420, start=13))


def flat(text: str) -> str:
    return " ".join(text.split())


def test_two_networks_are_compared_on_the_images_that_only_one_of_them_got_right(gained: Report) -> None:
    compared = compare_networks(gained, "h007", samples.SMALL)
    assert compared.paired == PairedCounts(both=418, only_first=13, only_second=2, neither=67)
    assert (compared.difference, compared.n) == (pytest.approx(11 / N), N)
    assert compared.ci95 == paired_interval(13, 2, N)
    low, high = difference_interval((431, 420), (N, N))
    assert compared.ci95[1] - compared.ci95[0] < 0.45 * (high - low)


def test_a_gain_that_independent_samples_could_not_tell_from_chance_is_certain_in_pairs(gained: Report) -> None:
    text = " ".join(verdict(gained, gained.budgets[0]))
    assert "On test it is +2.2 points above cifar_resnet8 (95 % interval +0.8 to +4.0" in text
    assert "only it is right on 13 images, only cifar_resnet8 on 2), more than chance explains." in text
    assert difference_interval((431, 420), (N, N))[0] < 0


def test_a_run_that_did_not_keep_its_answers_is_compared_as_before_and_says_so(printed) -> None:
    report = samples.report()
    pick, anchor = (report.entry(id or "") for id in (report.budgets[0].pick, report.budgets[0].best_anchor))
    assert pick.test is not None and anchor.test is not None
    compared = compare_networks(report, pick.id, anchor.id)
    counts = round(pick.test.top1 * pick.test.n), round(anchor.test.top1 * anchor.test.n)
    assert compared.paired is None
    assert compared.ci95 == difference_interval(counts, (pick.test.n, anchor.test.n))
    text = flat(printed(render_report(report)))
    assert "too wide: the run does not say which images each was right on" in text
    assert "Newcombe's interval of independent samples" in text and "Tango" not in text


def test_answers_to_other_images_are_not_taken_as_pairs() -> None:
    report = run(right(431), right(420))
    other = replace(report.hybrids[0], test=scored(right(431), images="1" * 64))
    assert compare_networks(replace(report, hybrids=(other,)), "h007", samples.SMALL).paired is None


def test_only_networks_that_were_scored_on_test_can_be_compared() -> None:
    report = samples.report()
    unscored = next(hybrid.id for hybrid in report.hybrids if hybrid.test is None)
    with pytest.raises(RunError, match=f"{unscored} was not scored on test"):
        compare_networks(report, unscored, samples.SMALL)
    with pytest.raises(RunError, match="no anchor or hybrid 'h999'"):
        compare_networks(report, "h999", samples.SMALL)


def test_results_keep_which_images_were_right_and_the_gain_with_its_interval(gained: Report, tmp_path: Path) -> None:
    file, table = write_results(gained, tmp_path)
    plain = json.loads(file.read_text("utf-8"))
    answers = plain["hybrids"][0]["test"]["answers"]
    unpacked = np.unpackbits(np.frombuffer(base64.b64decode(answers["bits"]), dtype=np.uint8))[:N]
    assert (unpacked == right(431)).all()
    assert (answers["n"], answers["correct"], answers["images"]) == (N, 431, IMAGES)
    compared = compare_networks(load_run(tmp_path), "h007", samples.SMALL)
    written = plain["budgets"][0]["gains"]["h007"]
    assert written["ci95"] == list(compared.ci95) and written["paired"]["only_first"] == 13
    with table.open(newline="", encoding="utf-8") as handle:
        row = next(row for row in csv.DictReader(handle) if row["id"] == "h007")
    assert [float(row[key]) for key in ("gain_low", "gain_high")] == list(compared.ci95)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"bits": "AAAA"}, "not those of 500 images"), ({"correct": 430}, "but 0.8620 of 500 were"), ({"n": 9}, "of 9")],
)
def test_answers_that_contradict_their_score_are_refused(gained: Report, change: dict[str, object], words: str) -> None:
    plain = to_json(gained)
    plain["hybrids"][0]["test"]["answers"] |= change
    with pytest.raises(RunError, match=f"answers of 'h007' on test do not hold: .*{words}"):
        from_json(plain)


def test_the_command_line_compares_two_networks_of_a_run(
    gained: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(gained, tmp_path / "run")
    (tmp_path / "run" / "space.yaml").touch()  # which makes it a run folder
    for arguments in ([], ["--json"]):
        with pytest.raises(SystemExit, match=r"^0$"):
            main(["compare", str(tmp_path / "run"), "h007", samples.LARGE, *arguments])
    text, plain = capsys.readouterr().out.split("{", 1)
    assert "On 500 test images h007 is -3.8 points against cifar_resnet56" in flat(text)
    assert "only it is right on 0 images, only cifar_resnet56 on 19), more than chance explains." in flat(text)
    assert json.loads("{" + plain)["paired"] == {"both": 431, "only_first": 0, "only_second": 19, "neither": 50}


def middle(report: Report, top1: Sequence[float]) -> Report:
    """Hybrids halfway between both anchors over the logarithm of MACs, with these accuracies on test."""
    macs = math.sqrt(samples.MACS[samples.SMALL] * samples.MACS[samples.LARGE])
    made = [
        samples.hybrid(f"h{i}", macs + i, 0.8 + i / 1000, test=final_score(round(5000 * a), 5000))
        for i, a in enumerate(top1)
    ]
    return samples.report(made, ("130MFLOPs",), report.anchors)


@pytest.fixture
def lined() -> Report:
    """Anchors at 77.8 and 88.6 % on test: the line halfway is at 83.2 %."""
    return middle(samples.report([]), (0.812, 0.842))


def test_heights_are_measured_on_test_where_a_hybrid_was_scored_there_else_on_val(lined: Report) -> None:
    line = lined.line
    assert line is not None and (line.scale, line.anchors["test"]) == ("log", (samples.SMALL, samples.LARGE))
    assert line.heights["h1"].split == "test" and line.heights["h1"].line == pytest.approx(0.832, abs=1e-6)
    assert [line.heights[id].height for id in ("h0", "h1")] == pytest.approx([-0.02, 0.01], abs=1e-6)
    unscored = replace(lined.hybrids[1], test=None)
    on_val = with_line(replace(lined, hybrids=(unscored,)), "log").measured_line
    assert on_val is not None and on_val.heights["h1"].split == "val"
    assert on_val.heights["h1"].height == pytest.approx(0.8012 - (0.786 + 0.894) / 2, abs=1e-3)


def test_the_first_lines_of_a_report_say_how_many_pareto_hybrids_lie_above_the_line(lined: Report, printed) -> None:
    first_screen = flat(printed(render_report(lined)).split("Anchors")[0])
    assert "1 of 2 Pareto hybrids lies above the line between the anchors (over log MACs, on test)" in first_screen
    assert "mean -0.5 points" in first_screen


def test_the_pick_is_set_against_a_mix_of_the_anchors(lined: Report) -> None:
    below = line_verdict(lined, lined.hybrids[0])
    assert below == (
        "It lies 2.0 points below the line between the anchors: a straight mix of the anchors' accuracies at its 39.6M "
        "MACs, over log MACs, would be 83.2 % on test."
    )
    assert (line_verdict(lined, lined.hybrids[1]) or "").startswith("It lies 1.0 points above the line")
    picked = replace(lined.budgets[0], pick="h0", best_anchor=samples.SMALL)
    assert below in verdict(lined, picked)


def test_the_straight_line_on_request_lies_lower(lined: Report, printed) -> None:
    straight = with_line(lined, "linear")
    small, large = samples.MACS[samples.SMALL], samples.MACS[samples.LARGE]
    share = (math.sqrt(small * large) - small) / (large - small)
    assert straight.line is not None
    assert straight.line.heights["h0"].line == pytest.approx(0.778 + share * (0.886 - 0.778), abs=1e-6)
    assert "over MACs, on test" in flat(printed(render_report(straight)))


def test_what_is_cheaper_than_every_anchor_has_no_height_and_that_is_said(printed) -> None:
    report = samples.report([samples.hybrid("tiny", 5e6, 0.6), samples.hybrid("mid", 50e6, 0.85)])
    assert report.line is not None and set(report.line.heights) == {"mid"}
    assert "1 has fewer or more MACs than any anchor, and no height" in (line_fact(report) or "")
    assert "outside the range of the anchors" in (line_verdict(report, report.hybrid("tiny")) or "")
    rows = [line.split() for line in printed(render_report(report), 160).splitlines()]
    assert next(row for row in rows if row[:1] == ["tiny"])[-1] == "-"


def test_runs_of_earlier_versions_get_their_heights_when_they_are_read(lined: Report) -> None:
    plain = to_json(lined)
    del plain["line"]
    report = from_json(plain)
    assert report.line is None and report.measured_line == lined.line


def test_heights_stand_in_the_tables_in_json_and_in_csv(lined: Report, tmp_path: Path, printed) -> None:
    file, table = write_results(lined, tmp_path)
    plain = json.loads(file.read_text("utf-8"))["line"]
    with table.open(newline="", encoding="utf-8") as handle:
        rows = {row["id"]: row for row in csv.DictReader(handle)}
    assert lined.line is not None
    for id, height in lined.line.heights.items():
        assert plain["heights"][id] == {"split": "test", "line": height.line, "height": height.height}
        assert (float(rows[id]["height"]), rows[id]["line_split"]) == (height.height, "test")
    assert rows[samples.SMALL]["height"] == ""
    shown = next(line for line in printed(render_report(lined), 160).splitlines() if " h1 " in line)
    assert shown.split()[-1] == "+1.0"


def test_the_plot_draws_the_line_from_anchor_to_anchor(lined: Report, printed) -> None:
    text = printed(render_report(lined), 100)
    plot = text[text.index("val accuracy (%)") : text.index("MACs, log scale")].splitlines()
    heights = {column: row for row, line in enumerate(plot) for column, mark in enumerate(line) if mark == "╌"}
    assert len(heights) > 40  # of some 90 columns; names and dots stand above it
    inside = sorted(heights)
    assert [heights[column] for column in inside] == sorted(heights.values(), reverse=True)
    assert "╌ the line between the anchors, over log MACs" in text
