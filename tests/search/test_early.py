"""Early decisions: real scores, kept as they come, dropped candidates with their reasons, the same after any kill."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch

from restnet_search.costs.cost_table import profile_anchor
from restnet_search.data import load_data
from restnet_search.errors import RunError
from restnet_search.search.halving.halving import Halving, _Rungs, halve, takes_part
from restnet_search.search.halving.rungs import RungStudy
from restnet_search.search.points.candidates import Enumeration, enumerate_candidates
from restnet_search.search.prepare.images import SearchImages
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.run.record_store import read_records
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.study.candidate_grid import CandidateGrid, RungScores
from restnet_search.search.study.study import SearchStudy
from restnet_search.search.training.choices import control_choices
from restnet_search.search.training.closed_form import _solve, _tuned, closed_form_scores
from restnet_search.search.training.jobs import LocalEngine
from restnet_search.space.schema import DataSpec, SearchSpace
from restnet_search.stitching.layer import StitchLayer
from restnet_search.stitching.tuning import StatisticsFit, TunedBack
from restnet_search.units import UNLIMITED
from tests.search.stores import cut_anchor, run_trial, session_of

NAMES = ("cifar_resnet8", "vit")
Decide = Callable[..., Halving]


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    anchors = {name: cut_anchor(name) for name in NAMES}
    costs = {name: profile_anchor(cut.graph) for name, cut in anchors.items()}
    return Prepared(anchors, costs, tuple("0123456789"))


@pytest.fixture(scope="module")
def images() -> SearchImages:
    data = load_data(DataSpec(dataset="digits"))
    return SearchImages(
        replace(data, val=data.train.subset(torch.arange(200, 300))), data.train.subset(torch.arange(128))
    )


def space_of(trials: int = 4, **changes: object) -> SearchSpace:
    early = {"when": "always", "images": 64, "closed_form": 0.6, "short": 0.6, "short_images": 0.6, "buckets": 3}
    plain: dict[str, object] = {
        "anchors": [{"model": name} for name in NAMES],
        "data": {"dataset": "digits"},
        "top_k": 3,
        "training": {"epochs": [1, 1], "batch_size": 32, "lr": [1e-3, 1e-2]},
        "search": {"trials": trials},
        "halving": early | changes.pop("halving", {}),  # pyright: ignore[reportOperatorIssue]
    }
    return SearchSpace.model_validate(plain | changes)


def enumeration_of(space: SearchSpace, prepared: Prepared) -> Enumeration:
    points = {name: cut.graph.cut_points for name, cut in prepared.anchors.items()}
    draw = np.random.default_rng(0)
    scores = {(a, b): draw.random((len(points[a]), len(points[b]))) for a in NAMES for b in NAMES}
    return enumerate_candidates(space, (UNLIMITED,), points, prepared.costs, {space.ranker.kind: scores})


@pytest.fixture(scope="module")
def warnings() -> list[str]:
    """What the user was warned of."""
    return []


@pytest.fixture(scope="module")
def decide(prepared: Prepared, images: SearchImages, warnings: list[str]) -> Decide:
    def run(folder: Path, space: SearchSpace) -> Halving:
        enumeration = enumeration_of(space, prepared)
        return halve(session_of(space, folder, warnings.append), prepared, images, enumeration, LocalEngine())

    return run


@pytest.fixture(scope="module")
def whole(decide: Decide, tmp_path_factory: pytest.TempPathFactory) -> tuple[Halving, Path]:
    """Both rungs without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    return decide(folder, space_of()), folder


def rungs_in(folder: Path) -> RungStudy:
    found = RungStudy.open(folder / "study.db", ["accuracy", "macs"])
    assert found is not None
    return found


def facts(early: Halving) -> tuple[object, ...]:
    """Everything but the clock."""
    counts = [(rung.name, rung.entered, rung.kept) for rung in early.rungs]
    survivors = [c.key for c in early.survivors]
    return survivors, early.scores, early.trained, early.reached, counts, early.dropped, early.images_seen


def test_every_candidate_goes_on_or_is_dropped_with_its_rung_and_reason(
    whole: tuple[Halving, Path], prepared: Prepared
) -> None:
    early, _ = whole
    found = enumeration_of(space_of(), prepared)
    ends = [candidate.key for candidate in early.survivors] + [dropped.key for dropped in early.dropped]
    assert sorted(ends) == sorted(c.key for c in (*found.candidates, *found.passed_over))
    entered = len(found.candidates)
    for rung in early.rungs:
        gone = [dropped for dropped in early.dropped if dropped.rung == rung.name]
        assert (rung.entered, rung.kept) == (entered, entered - len(gone))
        assert gone and all("range of FLOPs" in dropped.reason and dropped.n == 64 for dropped in gone)
        assert rung.seconds > 0
        entered = rung.kept
    assert [rung.name for rung in early.rungs] == ["closed_form", "short"]
    assert len(early.survivors) == entered >= 4
    ranked_out = [dropped for dropped in early.dropped if dropped.rung == "ranker"]
    assert len(ranked_out) == found.ranked_out > 0
    assert all("top_k is 3" in dropped.reason for dropped in ranked_out)


def test_scores_are_those_of_single_trials(
    whole: tuple[Halving, Path], prepared: Prepared, images: SearchImages, tmp_path: Path
) -> None:
    early, folder = whole
    space = space_of()
    candidates = {candidate.key: candidate for candidate in enumeration_of(space, prepared).candidates}
    session = session_of(space, tmp_path)
    rungs = _Rungs(session, prepared, images, LocalEngine(), rungs_in(folder))
    context = rungs._open(list(candidates.values()))
    choices = control_choices(space.training)
    closed, short = rungs_in(folder).scores("closed_form"), rungs_in(folder).scores("short")
    assert closed.keys() == candidates.keys()
    for key, score in closed.items():
        alone = run_trial(candidates[key], replace(choices, epochs=0), context)
        assert score.top1 == pytest.approx(alone.correct / 64, abs=1.01 / 64)  # another order of sums
        assert score.tie == pytest.approx(alone.r2, abs=1e-6)
    for key in list(short)[:3]:
        alone = run_trial(candidates[key], replace(choices, epochs=1), context)
        assert (short[key].top1, short[key].images) == (alone.correct / 64, 77)
    assert early.images_seen == 77 * len(short)


@pytest.mark.parametrize("cache", [{}, {"memory_gb": 0, "disk_gb": 0}], ids=["kept", "passed through"])
def test_closed_forms_have_the_batch_norm_statistics_that_a_trial_would_start_with(
    cache: dict[str, object], prepared: Prepared, images: SearchImages, tmp_path: Path
) -> None:
    """Against trials of no epoch on the same images: the statistics, and what hybrids with them score."""
    space = space_of(training={"epochs": 0, "batch_size": 32, "tune": "stitch+norm-stats"}, cache=cache)
    chosen = [c for c in enumeration_of(space, prepared).candidates if c.direction.back == "cifar_resnet8"][::4]
    rungs = RungStudy.open(tmp_path / "study.db", ["accuracy", "macs"])
    assert rungs is not None
    context = _Rungs(session_of(space, tmp_path), prepared, images, LocalEngine(), rungs)._open(chosen)
    few = replace(context, images=replace(context.images, train=context.fit))
    found = {score.key: score for score in closed_form_scores(chosen, context)}
    stitches = {one.key: StitchLayer(one.plan) for one in chosen}
    _solve(chosen, stitches, context, lambda: None)
    fits = {one.key: StatisticsFit(context.graphs["cifar_resnet8"].back(one.back_cut)) for one in chosen}
    own = _tuned(chosen, stitches, fits, context, lambda: None)
    for one in chosen:
        alone = run_trial(one, TrainingChoices(1e-3, 0, "stitch+norm-stats"), few)
        assert found[one.key].top1 == pytest.approx(alone.correct / 64, abs=1.01 / 64)  # another order of sums
        back = own[one.key]
        assert isinstance(back, TunedBack) and back.changed().keys() == alone.tuned.keys() != set()
        for name, values in back.changed().items():
            torch.testing.assert_close(values, alone.tuned[name], rtol=1e-3, atol=1e-5)


def test_killed_before_any_write_nothing_is_lost_or_done_again(
    whole: tuple[Halving, Path], decide: Decide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sitting is allowed a few writes to the study and dies before the next."""
    early, folder = whole
    allowance = 0

    def limited(write: Callable[..., object]) -> Callable[..., object]:
        def checked(*arguments: object, **named: object) -> object:
            nonlocal allowance
            if allowance == 0:
                raise KeyboardInterrupt
            allowance -= 1
            return write(*arguments, **named)

        return checked

    sittings = 0
    with monkeypatch.context() as patched:
        for name in ("set_user_attr", "add_trial"):
            patched.setattr(optuna.Study, name, limited(getattr(optuna.Study, name)))
        while True:
            sittings += 1
            assert sittings < 60
            allowance = 1 + sittings % 3
            try:
                resumed = decide(tmp_path, space_of())
                break
            except KeyboardInterrupt:
                continue
    assert sittings > 8  # it died among the scores and the drops of both rungs
    assert facts(resumed) == facts(early)
    for rung in ("closed_form", "short"):
        steps, before = (rungs_in(where)._steps(rung) for where in (tmp_path, folder))
        assert [step.scores for step in steps] == [step.scores for step in before]  # each once, to the last bit
    with pytest.raises(RunError, match="no trials yet"):
        read_records(tmp_path / "study.db")


def test_a_second_look_computes_and_writes_nothing(whole: tuple[Halving, Path], decide: Decide) -> None:
    early, folder = whole
    again = decide(folder, space_of())
    assert facts(again) == facts(early)
    assert again.statistics is None


def test_a_rung_that_was_decided_stays_so_under_another_rule(
    whole: tuple[Halving, Path], decide: Decide, tmp_path: Path
) -> None:
    """Other shares stand for the rule of another version: a run that goes on has the candidates that it had."""
    early, folder = whole
    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)
    again = decide(copied, space_of(halving={"closed_form": 0.95, "short": 0.95}))
    assert [c.key for c in again.survivors] == [c.key for c in early.survivors]
    assert (again.scores, again.dropped) == (early.scores, early.dropped)


def test_until_something_was_trained_the_first_trials_are_drawn_from_each_direction_in_turn(
    prepared: Prepared,
) -> None:
    """Closed forms that put one direction above the other everywhere; each has the turns that it would have alone."""
    space = space_of()
    candidates = enumeration_of(space, prepared).candidates
    above = candidates[0].direction
    scores = RungScores({c.key: (0.6 if c.direction == above else 0.3, -c.rank / 10) for c in candidates})
    first = CandidateGrid(candidates, space.training, scores).start(6)
    for chosen in (True, False):
        own = [c for c in candidates if (c.direction == above) == chosen]
        alone = CandidateGrid(own, space.training, scores)
        drawn = [key for key in first if key in alone.work]
        assert drawn == alone.start(3)
        assert all((key in alone.work) == (first[0] in alone.work) for key in first[::2])


def test_features_too_large_to_keep_give_the_same_scores(
    whole: tuple[Halving, Path], decide: Decide, tmp_path: Path
) -> None:
    decide(tmp_path, space_of(cache={"memory_gb": 0, "disk_gb": 0, "trials_per_pass": 3}))
    kept, passed = (rungs_in(folder).scores("closed_form") for folder in (whole[1], tmp_path))
    assert kept.keys() == passed.keys()
    assert passed == kept
    both = rungs_in(whole[1]).scores("short"), rungs_in(tmp_path).scores("short")
    assert both[0] == both[1]
    assert len(rungs_in(tmp_path)._steps("closed_form")) == len(NAMES)  # one pass of each anchor
    assert len(rungs_in(tmp_path).scores("short")) > 3


def test_what_fails_in_short_training_ranks_last_and_says_why(
    prepared: Prepared, images: SearchImages, tmp_path: Path
) -> None:
    broken = replace(prepared, anchors={**prepared.anchors, "vit": cut_anchor("vit")})
    with torch.no_grad():
        broken.anchors["vit"].anchor.model.get_parameter("head.bias").fill_(float("nan"))
    space = space_of(halving={"closed_form": 1.0, "buckets": 1})
    early = halve(session_of(space, tmp_path), broken, images, enumeration_of(space, prepared), LocalEngine())
    scores = rungs_in(tmp_path).scores("short")
    assert {key for key, score in scores.items() if score.top1 is None} == {key for key in scores if key[2] == "vit"}
    gone = {dropped.key: dropped for dropped in early.dropped if dropped.rung == "short"}
    sound = [key for key in scores if key[2] != "vit"]
    assert not gone.keys() & sound or all(candidate.key in sound for candidate in early.survivors)
    assert any("loss became" in dropped.reason and dropped.score is None for dropped in gone.values())


def test_out_of_time_nothing_is_dropped_also_later(decide: Decide, tmp_path: Path, warnings: list[str]) -> None:
    hurried = space_of(search={"trials": 4, "timeout": 0.001})
    assert warnings == []
    early = decide(tmp_path, hurried)
    assert len(warnings) == 2 and all("so none is dropped (search.timeout)" in message for message in warnings)
    assert [(rung.entered, rung.kept) for rung in early.rungs] == [(len(early.survivors),) * 2] * 2
    assert not early.scores
    assert 0 < len(rungs_in(tmp_path).scores("closed_form")) < len(early.survivors)
    assert facts(decide(tmp_path, space_of())) == facts(early)


@pytest.mark.parametrize(
    ("changes", "candidates", "wanted"),
    [
        ({}, 40, (False, False)),
        ({}, 41, (True, True)),
        ({"halving": {"when": "always"}}, 21, (True, True)),
        ({"halving": {"when": "always"}}, 20, (False, False)),
        ({"halving": {"when": "never"}}, 1000, (False, False)),
        ({"halving": {"short": 1}}, 1000, (True, False)),
        ({"halving": {"closed_form": 1}}, 1000, (False, True)),
        ({"training": {"epochs": 0}}, 1000, (True, False)),
    ],
)
def test_rungs_are_run_where_there_is_something_to_drop(
    changes: dict[str, object], candidates: int, wanted: tuple[bool, bool]
) -> None:
    plain = {"anchors": [{"model": name} for name in NAMES], "data": {"dataset": "digits"}, "search": {"trials": 20}}
    space = SearchSpace.model_validate(plain | changes)
    assert (takes_part(space, "closed_form", candidates), takes_part(space, "short", candidates)) == wanted


def test_trials_are_asked_among_survivors_the_best_of_each_slice_first(
    whole: tuple[Halving, Path], tmp_path: Path
) -> None:
    early, _ = whole
    space = space_of(trials=50)
    path = tmp_path / "study.db"
    study = SearchStudy.open(path, early.survivors, space, RungScores(early.scores, comparable=early.trained))
    asked = [proposal.candidate for _ in early.survivors if (proposal := study.ask()) is not None]
    assert {candidate.key for candidate in asked} == {candidate.key for candidate in early.survivors}
    first = asked[0]
    direction = [c for c in early.survivors if c.direction == first.direction]
    cheapest = min(direction, key=lambda candidate: candidate.cost.macs)
    assert early.scores[first.key] >= early.scores[cheapest.key]


def test_a_start_that_was_cut_off_is_completed_in_the_same_order(
    whole: tuple[Halving, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early, _ = whole
    space = space_of(trials=8)

    def opened(name: str) -> list[object]:
        study = SearchStudy.open(tmp_path / name, early.survivors, space, RungScores(early.scores))
        study.ask()  # the start is queued when the first trial is asked for
        return [trial.system_attrs["fixed_params"] for trial in study._study.get_trials()]

    wanted = opened("whole.db")
    enqueue, done = optuna.Study.enqueue_trial, []

    def dying(self: optuna.Study, params: dict[str, object]) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(params)
        enqueue(self, params)

    with monkeypatch.context() as patched:
        patched.setattr(optuna.Study, "enqueue_trial", dying)
        with pytest.raises(KeyboardInterrupt):
            opened("cut.db")
    assert len(wanted) > 2
    assert opened("cut.db") == wanted


def test_one_trial_alone_can_be_asked_for(prepared: Prepared, tmp_path: Path) -> None:
    space = space_of(trials=1)
    found = enumeration_of(space, prepared)
    study = SearchStudy.open(tmp_path / "study.db", found.candidates, space)
    proposal = study.ask()
    assert proposal is not None and proposal.candidate in found.candidates


def test_a_study_begun_without_rungs_goes_on_without_them(decide: Decide, prepared: Prepared, tmp_path: Path) -> None:
    space = space_of()
    found = enumeration_of(space, prepared)
    SearchStudy.open(tmp_path / "study.db", found.candidates, space)
    early = decide(tmp_path, space)
    assert (early.survivors, early.rungs, early.dropped) == (found.candidates, (), ())
