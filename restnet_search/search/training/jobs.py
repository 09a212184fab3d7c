"""Jobs: what is trained at a time, and the engine that runs them, in this process or elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from restnet_search.search.points.candidates import Candidate
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.training.context import TrialContext
from restnet_search.search.training.stitch_trainer import FailedTrial, TrialOutcome
from restnet_search.search.training.trial import is_cached, run_trials

__all__ = ["Engine", "Job", "LocalEngine", "Outcome", "first_group", "group_by_pass", "run_jobs"]

Outcome = TrialOutcome | FailedTrial

_JOBS_AHEAD = 2  # per slot of an engine: what may have begun before the first of them has ended
_T = TypeVar("_T")


@dataclass(frozen=True)
class Job:
    """Trials of one front anchor, trained side by side."""

    trials: tuple[tuple[Candidate, TrainingChoices], ...]

    def run(self, context: TrialContext) -> list[Outcome]:
        """Train and score each; one whose loss stops being finite does not end the others."""
        return run_trials(self.trials, context)


class Engine(Protocol):
    """Slots that run jobs. An outcome depends on its job and the context, not on the engine or the order of jobs."""

    count: int
    """Slots: jobs that run at the same time."""

    @property
    def lost(self) -> tuple[str, ...]:
        """A sentence for each slot that broke down and was replaced."""
        ...

    @property
    def has_room(self) -> bool:
        """True while a slot is free for one more job."""
        ...

    def start(self) -> None:
        """Get ready; jobs may be submitted without."""
        ...

    def use(self, context: TrialContext) -> None:
        """Run the jobs that follow in this context."""
        ...

    def submit(self, job: Job) -> int:
        """Give a job to the next free slot; return its ticket."""
        ...

    def wait(self) -> dict[int, list[Outcome]]:
        """Wait until one job or more have ended; return the outcomes of their trials, by ticket."""
        ...

    def forget(self, tickets: Iterable[int]) -> None:
        """Drop jobs that nobody waits for any more: those that run may end, unheard."""
        ...


class LocalEngine:
    """One slot: this process, which runs a job while somebody waits for it."""

    count = 1
    lost = ()

    def __init__(self) -> None:
        self._context: TrialContext | None = None
        self._queue: deque[tuple[int, Job]] = deque()
        self._last = 0

    @property
    def has_room(self) -> bool:
        return not self._queue

    def start(self) -> None:
        return

    def use(self, context: TrialContext) -> None:
        self._context = context

    def submit(self, job: Job) -> int:
        self._last += 1
        self._queue.append((self._last, job))
        return self._last

    def wait(self) -> dict[int, list[Outcome]]:
        assert self._context is not None
        ticket, job = self._queue.popleft()
        return {ticket: job.run(self._context)}

    def forget(self, tickets: Iterable[int]) -> None:
        gone = set(tickets)
        self._queue = deque((ticket, job) for ticket, job in self._queue if ticket not in gone)


def run_jobs(jobs: Iterable[Job], context: TrialContext, engine: Engine) -> Iterator[list[Outcome]]:
    """Yield the outcomes of each job, in their order; the next job is taken when a slot is free for it."""
    engine.use(context)
    left, order, ended = iter(jobs), deque[int](), dict[int, list[Outcome]]()
    more = True
    try:
        while True:
            while more and engine.has_room and len(order) < _JOBS_AHEAD * engine.count:
                job = next(left, None)
                more = job is not None
                if job is not None:
                    order.append(engine.submit(job))
            if not order:
                return
            if order[0] in ended:
                yield ended.pop(order.popleft())
            else:
                ended |= engine.wait()
    finally:
        engine.forget(order)


def first_group(
    items: Sequence[_T], candidate_of: Callable[[_T], Candidate], context: TrialContext, most: int
) -> list[_T]:
    """Return the first item and those that better share its pass over the images, at most ``most`` in all.

    The first is alone where the features of its front can be cached: nothing is saved by company.
    """
    first = candidate_of(items[0])
    if is_cached(first, context):
        return [items[0]]
    front = first.direction.front
    alike = [one for one in items if candidate_of(one).direction.front == front]
    return [one for one in alike if not is_cached(candidate_of(one), context)][:most]


def group_by_pass(candidates: Iterable[Candidate], context: TrialContext, most: int) -> Iterator[list[Candidate]]:
    """Yield the candidates in groups, each of which is one job: see :func:`first_group`."""
    left = list(candidates)
    while left:
        group = first_group(left, lambda candidate: candidate, context, most)
        keys = {candidate.key for candidate in group}
        left = [candidate for candidate in left if candidate.key not in keys]
        yield group
