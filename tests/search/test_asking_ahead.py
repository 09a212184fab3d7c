"""Trials asked ahead of those under way: what is asked does not depend on which ends first, and a kill loses none."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import event
from sqlalchemy.engine import Engine as Database

from restnet_search.costs.cost import Cost
from restnet_search.data import Split, load_data
from restnet_search.search.features.store import FeatureStore
from restnet_search.search.points.candidates import Candidate
from restnet_search.search.run.records import Direction, HybridRecord
from restnet_search.search.run.run_folder import RunFolder
from restnet_search.search.study.independent import train_independently
from restnet_search.search.study.study import SearchStudy
from restnet_search.search.study.training_run import TrainingRun
from restnet_search.search.training.context import TrialContext
from restnet_search.search.training.jobs import Advance, Engine, Job, LocalEngine, TrialJob, unheard
from restnet_search.search.training.stitch_trainer import TrialOutcome
from restnet_search.space.schema import DataSpec, SearchSpace, TrainingSpec
from tests.search.stores import Anchors, candidate, context, cut_anchor, session_of

RESNET, VIT = "cifar_resnet8", "vit"
TRIALS = 14  # TPE learns from the eleventh on


class AnyOrder:
    """Workers in this process whose jobs end in an order that chance decides; after ``cut`` jobs all is over."""

    def __init__(self, count: int, seed: int, cut: int | None = None) -> None:
        self.count, self._chance, self._cut = count, random.Random(seed), cut
        self._jobs: dict[int, TrialJob] = {}
        self._tickets = 0
        self.order: list[int] = []
        self.most = 0
        self.submitted: list[TrialJob] = []
        self.lost = ()

    @property
    def has_room(self) -> bool:
        return len(self._jobs) < self.count

    def start(self) -> None:
        return

    def use(self, context: TrialContext) -> None:
        self._context = context

    def submit(self, job: Job[Any], advance: Advance = unheard) -> int:
        assert self.has_room and isinstance(job, TrialJob)
        self._jobs[self._tickets] = job
        self._tickets += 1
        self.submitted.append(job)
        self.most = max(self.most, len(self._jobs))
        return self._tickets - 1

    def wait(self, tickets: Collection[int]) -> dict[int, Any]:
        if len(self.order) == self._cut:
            raise KeyboardInterrupt
        ticket = self._chance.choice([ticket for ticket in self._jobs if ticket in tickets])
        self.order.append(ticket)
        return {ticket: self._jobs.pop(ticket).run(self._context)}

    def forget(self, tickets: Iterable[int]) -> None:
        for ticket in tickets:
            self._jobs.pop(ticket, None)


@pytest.fixture(scope="module")
def anchors() -> Anchors:
    return {name: cut_anchor(name) for name in (RESNET, VIT)}


@pytest.fixture(scope="module")
def digits() -> Split:
    return load_data(DataSpec(dataset="digits")).train.subset(torch.arange(160))


@pytest.fixture(scope="module")
def candidates(anchors: Anchors) -> list[Candidate]:
    """All stitch points, both ways, no two at the same cost."""
    counts = {name: len(cut.graph.cut_points) for name, cut in anchors.items()}
    points = [
        (candidate(anchors, front, i, back, j), front, back)
        for front, back in ((RESNET, VIT), (VIT, RESNET))
        for i in range(counts[front])
        for j in range(counts[back])
    ]
    return [
        replace(one, direction=Direction(front, back, "large_to_small"), cost=Cost(1000 + number, 1))
        for number, (one, front, back) in enumerate(points)
    ]


@pytest.fixture(scope="module")
def store(anchors: Anchors) -> FeatureStore:
    return FeatureStore(anchors, 2**30)


class Run:
    """A search over the candidates in a folder of its own."""

    def __init__(
        self,
        folder: Path,
        candidates: list[Candidate],
        shared: TrialContext,
        *,
        trials: int = TRIALS,
        timeout: float | None = None,
        together: int = 8,
        ask_ahead: int = 6,
    ) -> None:
        (folder / "stitches").mkdir(parents=True)
        training = shared.training.model_dump(mode="json")
        plain = {
            "anchors": [{"model": RESNET}, {"model": "vit_tiny_patch16_224", "name": VIT}],
            "data": {"dataset": "digits"},
            "training": training,
            "search": {"trials": trials, "timeout": timeout, "ask_ahead": ask_ahead},
            "cache": {"trials_per_pass": together},
        }
        self.folder, self.space = RunFolder(folder), SearchSpace.model_validate(plain)
        self._candidates, self._shared = candidates, shared

    def opened(self, goal: int | None = None) -> SearchStudy:
        return SearchStudy.open(self.folder.study, self._candidates, self.space, trials=goal)

    def go(self, engine: Engine, goal: int | None = None, warn: Callable[[str], None] | None = None) -> SearchStudy:
        study = self.opened(goal)
        deadline = time.monotonic() + (self.space.search.timeout or float("inf"))
        session = session_of(self.space, self.folder.path, warn)
        session = replace(session, setup=replace(session.setup, inputs=replace(session.setup.inputs, trials=goal)))
        train_independently(TrainingRun(session, study, self._shared, engine, (), deadline))
        return study

    def files(self) -> dict[str, int]:
        return {path.stem: path.stat().st_mtime_ns for path in (self.folder.path / "stitches").iterdir()}


def timeless(records: Iterable[HybridRecord]) -> list[HybridRecord]:
    return [replace(record, seconds=0.0, finished=None) for record in records]


@pytest.fixture(scope="module")
def shared(anchors: Anchors, digits: Split, store: FeatureStore) -> TrialContext:
    return context(anchors, digits, store=store, training=TrainingSpec(batch_size=40, epochs=(0, 1)))


def test_what_is_asked_does_not_depend_on_which_trial_ends_first(
    candidates: list[Candidate], shared: TrialContext, tmp_path: Path
) -> None:
    found: list[list[HybridRecord]] = []
    orders: list[list[int]] = []
    for seed in range(2):
        engine = AnyOrder(3, seed)
        found.append(timeless(Run(tmp_path / str(seed), candidates, shared).go(engine).records))
        orders.append(engine.order)
        assert engine.most == 3
    assert found[0] == found[1] == timeless(Run(tmp_path / "alone", candidates, shared).go(LocalEngine()).records)
    assert len({tuple(order) for order in orders}) == 2
    assert len({record.key for record in found[0]}) == TRIALS
    # and what a trial reaches is what it reaches alone
    points = {one.key: one for one in candidates}
    for record in found[0][-4:]:
        assert record.choices is not None
        job = TrialJob(((points[record.key[:-1]], record.choices),))
        (alone,) = job.run(shared)
        assert isinstance(alone, TrialOutcome)
        assert (alone.correct / alone.seen, alone.r2) == (record.val.top1, record.r2)


@pytest.mark.parametrize("cut", [1, 8])
def test_a_cut_loses_nothing_that_had_ended_and_any_number_of_workers_goes_on(
    candidates: list[Candidate], shared: TrialContext, tmp_path: Path, cut: int
) -> None:
    run = Run(tmp_path / "cut", candidates, shared)
    with pytest.raises(KeyboardInterrupt):
        run.go(AnyOrder(3, seed=1, cut=cut))
    before = run.files()
    assert len(before) == cut
    opened = run.opened()
    kept = [*opened.records, *(proposal.record for proposal in opened.pending if proposal.record is not None)]
    assert {record.id for record in kept} == set(before)
    records = run.go(AnyOrder(2, seed=0) if cut == 8 else LocalEngine()).records
    whole = Run(tmp_path / "whole", candidates, shared).go(LocalEngine())
    assert timeless(records) == timeless(whole.records)  # as if nothing had happened, ids included
    after = run.files()
    assert {name: after[name] for name in before} == before


def test_failed_trials_are_told_in_their_turn_too(
    anchors: Anchors, digits: Split, store: FeatureStore, candidates: list[Candidate], tmp_path: Path
) -> None:
    training = TrainingSpec(batch_size=40, epochs=(0, 1), lr=(1000.0, 1000.0))
    wild = context(anchors, digits, store=store, training=training)
    found: list[tuple[list[HybridRecord], list[tuple[int, str]]]] = []
    for seed in range(2):
        warnings: list[str] = []
        study = Run(tmp_path / str(seed), candidates, wild, trials=6).go(AnyOrder(2, seed), warn=warnings.append)
        found.append((timeless(study.records), study.failures))
        assert len(warnings) == len(study.failures)
    assert found[0] == found[1]
    records, failures = found[0]
    assert len(records) == 6 and failures
    assert all(record.epochs == 0 for record in records)
    assert all("loss" in reason for _, reason in failures)


def test_when_time_is_up_what_is_under_way_still_counts(
    candidates: list[Candidate], shared: TrialContext, tmp_path: Path
) -> None:
    run = Run(tmp_path / "late", candidates, shared, timeout=1e-3)
    study = run.go(AnyOrder(3, seed=0))
    assert {record.id for record in study.records} == set(run.files())
    assert len(study.records) == 3
    assert study.failures == []


def test_candidates_run_out(candidates: list[Candidate], shared: TrialContext, tmp_path: Path) -> None:
    few = [*candidates[:3], *candidates[-2:]]
    study = Run(tmp_path / "few", few, shared).go(AnyOrder(4, seed=0))
    assert {record.key[:-1] for record in study.records} == {one.key for one in few}
    assert len(study.records) == 5


def test_where_features_are_not_kept_each_job_is_one_pass(
    anchors: Anchors, digits: Split, candidates: list[Candidate], shared: TrialContext, tmp_path: Path
) -> None:
    passing = replace(shared, store=FeatureStore(anchors, 0))
    engine = AnyOrder(2, seed=0)
    study = Run(tmp_path / "passing", candidates, passing, trials=8, together=2).go(engine)
    assert len({record.key for record in study.records}) == len(study.records) == 8
    assert {len(job.trials) for job in engine.submitted} <= {1, 2} and len(engine.submitted) < 8
    for job in engine.submitted:
        assert len({one.direction.front for one, _ in job.trials}) == 1
    kept = Run(tmp_path / "kept", candidates, shared, trials=8).go(LocalEngine())
    assert timeless(study.records) == timeless(kept.records)


def test_a_session_may_ask_for_fewer_trials_or_more(
    candidates: list[Candidate], shared: TrialContext, tmp_path: Path
) -> None:
    run = Run(tmp_path / "cut", candidates, shared, trials=6)
    with pytest.raises(KeyboardInterrupt):
        run.go(AnyOrder(3, seed=1, cut=3))
    before, pending = run.files(), len(run.opened().pending)
    assert len(before) == 3 and pending > 2
    fewer = run.go(LocalEngine(), goal=2)
    assert len(fewer.records) == 3 and run.files() == before  # what was done is there, and nothing was trained
    assert not fewer.unfinished and run.opened(goal=5).unfinished
    more = run.go(LocalEngine(), goal=8)
    assert len(more.records) == 8 and len({record.key for record in more.records}) == 8
    assert {name: run.files()[name] for name in before} == before
    assert len(run.go(LocalEngine()).records) == 8


def test_a_record_is_written_once_per_trial(candidates: list[Candidate], shared: TrialContext, tmp_path: Path) -> None:
    written: list[str] = []

    def note(_: object, __: object, ___: str, values: Any, *____: object) -> None:
        rows = values if isinstance(values, list) else [values]
        written.extend("record" for row in rows if isinstance(row, Sequence) and "record" in row)

    event.listen(Database, "before_cursor_execute", note)
    try:
        records = Run(tmp_path, candidates, shared, trials=3).go(LocalEngine()).records
    finally:
        event.remove(Database, "before_cursor_execute", note)
    writes = [one for one in written if one == "record"]
    assert (len(records), len(writes)) == (3, 3)


def test_numbers_add_up_over_sessions_and_none_is_lost(
    candidates: list[Candidate], shared: TrialContext, tmp_path: Path
) -> None:
    run = Run(tmp_path, candidates, shared)
    run.opened().add_counts("seconds", {"device costs": 2.5, "trials": 1.0})
    assert run.opened().add_counts("seconds", {"trials": 0.5}) == {"device costs": 2.5, "trials": 1.5}
