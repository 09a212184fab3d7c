from __future__ import annotations

import re
import subprocess
import sys

import pytest
from rich.cells import cell_len

from restnet_search.reporting.assemble.statistics import final_score
from restnet_search.reporting.model.judgements import Trials
from restnet_search.reporting.terminal.report_page import render_report
from restnet_search.search.run.records import Part
from restnet_search.units import CONVENTION

from . import samples

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
LONG = "swinv2_base_window12to24_192to384.ms_in22k_ft_in1k"


def flat(text: str) -> str:
    """The text without its line breaks, as a reader reads it."""
    return " ".join(text.split())


def cases() -> dict[str, samples.Report]:
    odd = Part("[red]odd[/red]", 3, "a[b]"), Part(LONG, 12, "layers.3.blocks.1.attn.qkv")
    return {
        "usual": samples.report(),
        "several budgets": samples.report(budgets=("85MFLOPs", "2GFLOPs", "10MFLOPs", "20MFLOPs,100kparams")),
        "no hybrids": samples.report([], trials=Trials(0, 0, 0)),
        "no budget": samples.report(budgets=()),
        "odd names": samples.report([samples.hybrid("an-id-" + "x" * 60, 5e7, 0.8, front=odd[0], back=odd[1])]),
        "long reason": samples.report(
            trials=Trials(3, 1, 0, (samples.Failure(1, "\x1b[31mred\tand long: " + "x" * 300),))
        ),
    }


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
@pytest.mark.parametrize("name", list(cases()))
def test_no_line_is_wider_than_the_console(name: str, width: int, printed) -> None:
    text = printed(render_report(cases()[name]), width)
    assert max(cell_len(line) for line in text.splitlines()) <= width


@pytest.mark.parametrize("name", list(cases()))
def test_piped_output_holds_no_control_codes_and_no_nan(name: str, printed) -> None:
    text = printed(render_report(cases()[name]))
    assert not CONTROL.search(text)
    assert not re.search(r"\b(nan|inf|None)\b", text.replace("became nan", "").replace("became inf", ""))


def test_a_terminal_gets_colour_and_the_same_words(printed) -> None:
    coloured = printed(render_report(samples.report()), terminal=True)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == printed(render_report(samples.report()))


def test_an_ascii_console_gets_ascii(printed) -> None:
    text = printed(render_report(samples.report()), encoding="ascii")
    assert text.isascii()
    assert "A anchor (2)" in text and "o Pareto hybrid" in text


def test_the_same_report_prints_the_same_twice(printed) -> None:
    # plotext keeps one figure per process: a first report must leave nothing behind.
    first = printed(render_report(samples.report()))
    printed(render_report(samples.report([samples.hybrid("h0", 1e9, 0.3)], budgets=("3GFLOPs",))), 120)
    assert printed(render_report(samples.report())) == first


@pytest.mark.parametrize("width", [80, 120])
def test_the_pareto_set_stands_with_costs_accuracies_interval_and_gain(width: int, printed) -> None:
    report = samples.report()
    text = printed(render_report(report), width)
    table = text[text.index("Budget 85MFLOPs") :]
    best = report.entry(samples.SMALL)
    for id in report.budgets[0].pareto:
        entry = report.entry(id)
        assert entry.test is not None and best.test is not None
        line = next(line for line in table.splitlines() if (id if id[0] == "h" else f"anchor {id}") in flat(line))
        assert f"{100 * entry.val.top1:.1f}" in line and f"{100 * entry.test.top1:.1f}" in line
        assert f"[{100 * entry.test.ci95[0]:.1f}, {100 * entry.test.ci95[1]:.1f}]" in table
        if entry != best:
            assert f"{100 * (entry.test.top1 - best.test.top1):+.1f}" in line.split()[-2:]


def test_dominated_hybrids_are_marked_counted_and_few(printed) -> None:
    report = samples.report()
    text = printed(render_report(report))
    inside = [h for h in report.hybrids if report.budgets[0].allows(h) and h.id not in report.budgets[0].pareto]
    assert f"x dominated: {len(inside)} hybrids within the budget, the 3 nearest shown." in flat(text)
    assert len(re.findall(r"^ +x h\d+", text, re.M)) == 3


def test_a_dominated_anchor_stays_in_the_picture(printed) -> None:
    report = samples.report([samples.hybrid("h0", 10e6, 0.85)])
    text = printed(render_report(report))
    assert samples.SMALL not in report.budgets[0].pareto
    assert re.search(rf"^ +x anchor +{samples.SMALL}", text, re.M)


def test_a_hybrid_that_wins_is_the_pick_with_its_margin(printed) -> None:
    anchors = samples.anchors()
    winner = samples.hybrid("win", 60e6, 0.84, test=final_score(2100, 2500))
    assert anchors[1].test is not None
    margin = 100 * (2100 / 2500 - anchors[1].test.top1)
    text = flat(printed(render_report(samples.report([winner], anchor_results=anchors))))
    assert "Pick: win, cifar_resnet8[..layer1.0] + cifar_resnet56[layer2.0..]." in text
    assert f"On test it is +{margin:.1f} points above cifar_resnet8" in text
    assert "more than chance explains" in text
    assert "No hybrid beats" not in text


def test_a_margin_within_chance_is_called_so(printed) -> None:
    anchors = samples.anchors()
    assert anchors[1].test is not None
    close = samples.hybrid("close", 60e6, 0.79, test=final_score(round(anchors[1].test.top1 * 2500) + 5, 2500))
    text = flat(printed(render_report(samples.report([close], anchor_results=anchors))))
    assert "which chance alone could explain" in text


def test_a_pick_that_loses_on_test_is_admitted(printed) -> None:
    loser = samples.hybrid("lose", 60e6, 0.84, test=final_score(1500, 2500))
    assert "On test it does not beat the anchors" in flat(printed(render_report(samples.report([loser]))))


def test_it_says_so_plainly_when_no_hybrid_beats_the_anchors(printed) -> None:
    hybrids = [samples.hybrid("h1", 60e6, 0.70), samples.hybrid("h2", 5e6, 0.60)]
    text = flat(printed(render_report(samples.report(hybrids))))
    assert "Pick: the anchor cifar_resnet8. No hybrid beats the anchors within this budget" in text
    assert "1 hybrid of the Pareto set is a cheaper trade-off." in text
    assert "restnet-search export cifar10_resnet-20261122-185612 h2" in text


def test_a_budget_that_no_anchor_fits_has_no_gain_but_says_why(printed) -> None:
    text = flat(printed(render_report(samples.report([samples.hybrid("tiny", 5e6, 0.6)], budgets=("10MFLOPs",)))))
    assert "No anchor fits this budget" in text
    assert "The smallest anchor, cifar_resnet8, needs 12.5M MACs" in text
    assert "Pick: tiny" in text


def test_a_budget_that_nothing_fits_says_so(printed) -> None:
    text = flat(printed(render_report(samples.report(budgets=("1MFLOPs",)))))
    assert "Nothing fits: no anchor and no trained hybrid needs at most 1.00M MACs." in text
    assert "restnet-search report" in text


def test_the_ranker_is_judged_in_words(printed) -> None:
    report = samples.report()
    text = flat(printed(render_report(report)))
    (ranker,) = report.rankers
    assert f"cka: Spearman {ranker.spearman:+.2f}" in text
    assert f"in {ranker.within_front.top1_hits} of {ranker.within_front.fronts} fronts" in text


def test_failed_trials_stand_with_their_reasons(printed) -> None:
    text = flat(printed(render_report(samples.report())))
    assert "Failed trials: 2" in text and "trial 17: the loss became nan in epoch 1" in text
    assert "Failed trials" not in printed(render_report(samples.report(trials=Trials(40, 0, 0))))


def test_the_convention_and_the_role_of_test_are_stated_once(printed) -> None:
    text = flat(printed(render_report(samples.report(budgets=("85MFLOPs", "50MFLOPs")))))
    assert text.count(CONVENTION) == 1
    assert text.count("searched, compared and picked on val") == 1


def test_names_with_brackets_are_printed_literally(printed) -> None:
    text = printed(render_report(cases()["odd names"]), 200)
    assert "[red]odd[/red][..a[b]]" in text


def test_reporting_imports_neither_torch_nor_plotting() -> None:
    heavy = ["torch", "timm", "optuna", "matplotlib", "plotext", "scipy", "sklearn", "numpy"]
    code = f"import sys, restnet_search.reporting.terminal.report_page; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
