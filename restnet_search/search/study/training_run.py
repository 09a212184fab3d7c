"""The training of a search's hybrids under way: what strategies share, and what is kept of every hybrid."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import ClassVar

from restnet_search.search.points.candidates import Candidate
from restnet_search.search.points.controls import Control
from restnet_search.search.prepare.hybrids import trained_tensors
from restnet_search.search.run.records import HybridRecord, Part, Score, Stitch
from restnet_search.search.run.session import Session
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.study.study import SearchStudy
from restnet_search.search.training.context import TrialContext
from restnet_search.search.training.jobs import Engine
from restnet_search.search.training.stitch_trainer import TrialOutcome

__all__ = ["AsOneNetwork", "Strategy", "TrainingRun", "record_of"]

_WHOLE = 2  # trials that an epoch of a whole hybrid is taken for

_log = logging.getLogger("restnet_search")


@dataclass(frozen=True)
class TrainingRun:
    """The objects that a strategy works with.

    Attributes:
        session: Of the search.
        study: Keeps what hybrids reached, asks for trials where the strategy wants some, and knows the candidates.
        context: What trials share.
        engine: Runs jobs.
        controls: To train after the strategy.
        deadline: When all must be over, on the monotonic clock.
    """

    session: Session
    study: SearchStudy
    context: TrialContext
    engine: Engine
    controls: Sequence[Control]
    deadline: float

    @property
    def waiting_controls(self) -> list[Control]:
        """The controls that have neither finished nor failed."""
        ended = {record.id for record in self.study.controls} | self.study.failed_listed.keys()
        return [control for control in self.controls if control.id not in ended]

    def is_out_of_time(self, seconds: Iterable[float]) -> bool:
        """Say whether no time is left but what retraining and controls will take, judged by the seconds of trials."""
        known, space = list(seconds), self.session.space
        retrained = space.retrain.hybrids * len(self.session.budgets)
        work = len(self.waiting_controls) + _WHOLE * space.retrain.epochs * retrained
        rounds = math.ceil(work / self.engine.count)
        return time.monotonic() + (fmean(known) * rounds if known else 0.0) > self.deadline

    def save(self, record: HybridRecord, outcome: TrialOutcome) -> HybridRecord:
        """Write the stitch layer of a hybrid: it is on disk before anything says that the hybrid was trained.

        Returns:
            The record, with the digest of that file.
        """
        digest = self.session.folder.save_stitch(
            record.id, trained_tensors(outcome.stitch, outcome.tuned, outcome.tuned_front)
        )
        _log.info("%s finished: %s", record.id, record)
        return replace(record, stitch=replace(record.stitch, sha256=digest))


Strategy = Callable[[TrainingRun], None]
"""How the hybrids of a search are trained; what it leaves in the study is what the search found."""


@dataclass(frozen=True)
class AsOneNetwork:
    """Decorates a strategy that trains all stitch layers as one network.

    Successive halving then drops no candidate, and one process does all: see ``Session.trains_as_one``.
    """

    train: Strategy
    trains_as_one: ClassVar[bool] = True

    def __call__(self, run: TrainingRun) -> None:
        self.train(run)


def record_of(
    id: str,
    candidate: Candidate,
    choices: TrainingChoices,
    outcome: TrialOutcome,
    context: TrialContext,
    control: str | None = None,
) -> HybridRecord:
    """Return what is kept of a hybrid that was trained.

    Args:
        id: Of the hybrid.
        candidate: Its stitch point.
        choices: How it was trained.
        outcome: What it reached.
        context: In which it was trained.
        control: Kind of a control.
    """
    own = control == "self"
    return HybridRecord(
        id=id,
        front=Part(candidate.direction.front, candidate.front_cut),
        back=Part(candidate.direction.back, candidate.back_cut),
        order="self" if own else candidate.direction.order,
        stitch=Stitch(candidate.plan.kind, candidate.plan.cost.params),
        score=candidate.score if math.isfinite(candidate.score) else None,
        rank=None if own else candidate.rank + 1,
        choices=choices,
        images=len(context.train),
        cost=candidate.cost,
        r2=outcome.r2,
        val=Score.of(outcome.correct, outcome.seen),
        seconds=round(outcome.seconds, 3),
        scores=dict(candidate.scores),
        control=control,
        finished=round(context.clock.elapsed(), 3),
    )
