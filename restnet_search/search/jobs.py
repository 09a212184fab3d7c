"""What is trained at a time, in this process or in a worker: one trial, or several on one pass over the images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from restnet_search.search.candidates import Candidate
from restnet_search.search.together import run_together
from restnet_search.search.trial import NonFiniteLoss, TrainingChoices, TrialContext, TrialOutcome, run_trial

__all__ = ["Job", "Outcome", "Workers", "run_jobs"]

Outcome = TrialOutcome | NonFiniteLoss


@dataclass(frozen=True)
class Job:
    """Trials that are trained one after the other, or ``together``: on one pass, of one front anchor."""

    trials: tuple[tuple[Candidate, TrainingChoices], ...]
    together: bool = False

    def run(self, context: TrialContext) -> list[Outcome]:
        """Train and score each; one whose loss stops being finite does not end the others."""
        if self.together:
            return run_together(self.trials, context)
        return [_outcome(candidate, choices, context) for candidate, choices in self.trials]


class Workers(Protocol):
    """Processes that run jobs; see :class:`restnet_search.search.workers.WorkerPool`."""

    count: int

    @property
    def room(self) -> bool:
        """Whether a worker is free for one more job."""
        ...

    def use(self, context: TrialContext) -> None:
        """Run the jobs that follow in this context."""
        ...

    def submit(self, job: Job) -> int:
        """Give a job to the next free worker; returns its ticket."""
        ...

    def wait(self) -> dict[int, list[Outcome]]:
        """Wait until jobs have ended; what became of their trials, by ticket."""
        ...

    def map(self, jobs: Iterable[Job]) -> Iterator[list[Outcome]]:
        """What becomes of each job, in their order; the next job is taken when a worker is free for it."""
        ...


def run_jobs(jobs: Iterable[Job], context: TrialContext, workers: Workers | None) -> Iterator[list[Outcome]]:
    """What becomes of each job, in order: run here one by one as they are asked for, or by workers ahead of that."""
    if workers is None:
        for job in jobs:
            yield job.run(context)
    else:
        workers.use(context)
        yield from workers.map(jobs)


def _outcome(candidate: Candidate, choices: TrainingChoices, context: TrialContext) -> Outcome:
    try:
        return run_trial(candidate, choices, context)
    except NonFiniteLoss as error:
        return error
