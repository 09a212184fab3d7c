"""Controls: which are planned, and how the study keeps them apart from the search."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import TrialState

from restnet_search.search.points.candidates import Enumeration
from restnet_search.search.points.controls import Control, plan_controls
from restnet_search.search.prepare.cut_anchor import CutAnchor
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.run.record_store import read_records
from restnet_search.search.run.records import HybridRecord, Part, Score, Stitch
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.study.study import SearchStudy
from restnet_search.search.training.choices import control_choices
from restnet_search.space.schema import SearchSpace, TrainingSpec
from restnet_search.units import parse_budget
from tests.search.test_candidates import NAMES, _anchors, _enumerate, _space

BUDGET = parse_budget("30MFLOPs")


def plan(space: SearchSpace, found: Enumeration) -> tuple[Control, ...]:
    graphs, costs = _anchors()
    anchors = {name: CutAnchor(None, graph) for name, graph in graphs.items()}  # pyright: ignore[reportArgumentType]
    return plan_controls(space, Prepared(anchors, costs, ()), found)


def test_each_anchor_is_stitched_to_itself_spread_over_its_depth() -> None:
    space = _space(top_k=2, controls={"self": 3, "random": 0})
    found, _ = _enumerate(space, BUDGET)
    costs = _anchors()[1]
    controls = plan(space, found)
    assert [control.kind for control in controls] == ["self"] * 6
    for name in NAMES:
        mine = [control.candidate for control in controls if control.candidate.direction.front == name]
        assert all((c.direction.back, c.back_cut) == (name, c.front_cut) for c in mine)
        depths = [costs[name].depth(candidate.front_cut) for candidate in mine]
        assert depths == sorted(depths)
        assert len(set(depths)) == 3
        assert depths[0] < 0.45 < depths[2]
        for candidate in mine:
            assert candidate.cost.macs == costs[name].total.macs + candidate.plan.cost.macs


def test_random_ones_are_passed_over_stitch_points_at_the_flops_of_the_candidates() -> None:
    space = _space(top_k=1, controls={"self": 0, "random": 4})
    found, _ = _enumerate(space, BUDGET)
    controls = plan(space, found)
    assert [(control.id, control.kind) for control in controls] == [(f"r00{i}", "random") for i in range(4)]
    kept = {candidate.key for candidate in found.candidates}
    keys = [control.candidate.key for control in controls]
    assert len(set(keys)) == 4
    assert not kept & set(keys)
    assert set(keys) <= {candidate.key for candidate in found.passed_over}
    macs = [control.candidate.cost.macs for control in controls]
    costs = sorted(candidate.cost.macs for candidate in found.candidates)
    assert all(costs[0] <= value <= costs[-1] for value in macs)
    assert max(macs[:2]) < min(macs[2:])  # ranges from the cheapest to the dearest
    assert plan(space, found) == controls
    other = plan(_space(top_k=1, controls={"self": 0, "random": 4}, search={"seed": 1}), found)
    assert [control.candidate.key for control in other] != keys


def test_where_the_ranker_passed_nothing_over_none_is_drawn() -> None:
    space = _space(controls={"self": 1, "random": 2})  # top_k: 100
    found, _ = _enumerate(space, BUDGET)
    assert [control.kind for control in plan(space, found)] == ["self", "self"]


@pytest.mark.parametrize(("epochs", "wanted"), [((1, 3), 2), ((1, 2), 2), ((0, 0), 0), ((4, 4), 4)])
def test_controls_train_at_the_middle_of_the_ranges(epochs: tuple[int, int], wanted: int) -> None:
    choices = control_choices(TrainingSpec(epochs=epochs, lr=(1e-4, 1e-2)))
    assert (choices.epochs, choices.lr) == (wanted, pytest.approx(1e-3))


def record(control: Control) -> HybridRecord:
    candidate = control.candidate
    return HybridRecord(
        control.id, Part(candidate.direction.front, candidate.front_cut),
        Part(candidate.direction.back, candidate.back_cut), "self", Stitch("linear", 1), candidate.cost,
        Score.of(5, 10), 0.1, choices=TrainingChoices(1e-3, 1), images=10, scores={"lstsq": 0.5},
        control=control.kind,
    )  # fmt: skip


def test_the_study_keeps_controls_apart_and_never_learns_from_them(tmp_path: Path) -> None:
    space = _space(top_k=1, search={"trials": 4})
    found, _ = _enumerate(space, BUDGET)

    def opened() -> SearchStudy:
        return SearchStudy.open(tmp_path / "study.db", found.candidates, space)

    study, controls = opened(), plan(space, found)
    for control in controls[:2]:
        study.add_record(record(control), control.candidate)
    study.fail_listed(controls[2].id, "the loss became nan")
    again = opened()
    assert again.records == []
    assert again.controls == [record(control) for control in controls[:2]]
    assert again.failed_listed == {controls[2].id: "the loss became nan"}
    assert {r.id for r in read_records(tmp_path / "study.db")} == {control.id for control in controls[:2]}
    assert all(not trial.params for trial in again._trials(TrialState.COMPLETE))
    proposal = again.ask()
    assert proposal is not None and proposal.candidate in found.candidates
