"""Trials that no sampler asks for, in an order of their own: controls, and the best hybrids again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from restnet_search.search.points.candidates import Candidate
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.study.training_run import TrainingRun, record_of
from restnet_search.search.training.jobs import TrialJob, run_jobs
from restnet_search.search.training.stitch_trainer import FailedTrial

__all__ = ["Listed", "train_listed"]


@dataclass(frozen=True)
class Listed:
    """A trial to run, the id of its hybrid, and what the record says of where it comes from."""

    id: str
    trial: tuple[Candidate, TrainingChoices]
    control: str | None = None
    retrains: str | None = None


def train_listed(run: TrainingRun, groups: Sequence[Sequence[Listed]], task: str, noun: str) -> None:
    """Train and score, until the time is over; as with all trials, weights are on disk before their record.

    Args:
        run: The training under way; the study keeps what finished, and that another failed and would fail again.
        groups: Those of a group, of one front anchor, are trained side by side.
        task: Of the progress.
        noun: Of one of them, in messages.
    """
    study, session = run.study, run.session
    begun: deque[Sequence[Listed]] = deque()

    def jobs() -> Iterator[TrialJob]:
        for place, group in enumerate(groups):
            if time.monotonic() > run.deadline:
                left = sum(map(len, groups[place:]))
                session.progress.log(f"{left} {noun}s were left out (search.timeout).")
                return
            begun.append(group)
            yield TrialJob(tuple(one.trial for one in group))

    with session.progress.task(task, total=max(sum(map(len, groups)), 1)) as advanced:
        for outcomes in run_jobs(jobs(), run.context, run.engine):
            for one, outcome in zip(begun.popleft(), outcomes, strict=True):
                if isinstance(outcome, FailedTrial):
                    study.fail_listed(one.id, str(outcome))
                    session.warn(f"{noun.capitalize()} {one.id} failed: {outcome}")
                    continue
                candidate, choices = one.trial
                made = record_of(one.id, candidate, choices, outcome, run.context, one.control)
                study.add_record(run.save(replace(made, retrains=one.retrains), outcome), candidate)
                advanced.advance()
