"""Jobs: the parts of a search's work that can be done elsewhere, and the engine that runs them, here or in workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from restnet_search.search.points.candidates import Candidate
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.training.context import TrialContext
from restnet_search.search.training.stitch_trainer import FailedTrial, TrialOutcome
from restnet_search.search.training.trial import is_cached, run_trials

__all__ = [
    "Advance", "Engine", "Job", "LocalEngine", "Outcome", "TrialJob", "first_group", "group_by_pass", "run_jobs",
    "unheard",
]  # fmt: skip

Outcome = TrialOutcome | FailedTrial

_JOBS_AHEAD = 2  # per slot of an engine: what may have begun before the first of them has ended
_T = TypeVar("_T")


Advance = Callable[[float], None]
"""Is told of a part of a job, by and by, that it is done; all parts together are 1. Not every job tells."""


def unheard(_: float) -> None:
    """Listen to nothing: an :data:`Advance`."""


_R_co = TypeVar("_R_co", covariant=True)
_R = TypeVar("_R")


class Job(Protocol[_R_co]):
    """Work that any slot of an engine can do; picklable. What it comes to depends on it and on the context alone."""

    @property
    def name(self) -> str:
        """Its work in words, for messages: *training NAME*."""
        ...

    def work(self, context: TrialContext) -> int:
        """Estimate its MACs."""
        ...

    def run(self, context: TrialContext, advance: Advance) -> _R_co:
        """Do it."""
        ...

    def given_up(self, reason: str) -> _R_co:
        """Return what it comes to where no worker answered in time."""
        ...


@dataclass(frozen=True)
class TrialJob:
    """Trials of one front anchor, trained side by side."""

    trials: tuple[tuple[Candidate, TrainingChoices], ...]

    @property
    def name(self) -> str:
        (one, _), *others = self.trials
        point = f"{one.direction.front}[..{one.front_cut}] + {one.direction.back}[{one.back_cut}..]"
        return f"training {point} and {len(others)} more" if others else f"training {point}"

    def work(self, context: TrialContext) -> int:
        """Estimate its MACs; the same for features that are kept and for those that it has to compute first."""
        images = len(context.train) * context.training.views + len(context.val) + len(context.fit)
        return sum(
            candidate.work(choices.epochs + choices.match_epochs) * images
            + candidate.cost.macs * images
            + (3 * choices.epochs * candidate.front_macs * images if choices.tune == "hybrid" else 0)
            for candidate, choices in self.trials
        )

    def run(self, context: TrialContext, advance: Advance = unheard) -> list[Outcome]:
        """Train and score each; one whose loss stops being finite does not end the others."""
        return run_trials(self.trials, context)

    def given_up(self, reason: str) -> list[Outcome]:
        return [FailedTrial(reason) for _ in self.trials]


class Engine(Protocol):
    """Slots that run jobs. What a job comes to does not depend on the engine or the order of jobs."""

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

    def submit(self, job: Job[Any], advance: Advance = unheard) -> int:
        """Give a job to the next free slot; return its ticket. What it does is heard while somebody waits."""
        ...

    def wait(self, tickets: Collection[int]) -> dict[int, Any]:
        """Wait until one or more of these jobs have ended; return what they came to, by ticket.

        What other jobs come to meanwhile is kept for those who wait for them.
        """
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
        self._queue: dict[int, tuple[Job[Any], Advance]] = {}
        self._last = 0

    @property
    def has_room(self) -> bool:
        return not self._queue

    def start(self) -> None:
        return

    def use(self, context: TrialContext) -> None:
        self._context = context

    def submit(self, job: Job[Any], advance: Advance = unheard) -> int:
        self._last += 1
        self._queue[self._last] = job, advance
        return self._last

    def wait(self, tickets: Collection[int]) -> dict[int, Any]:
        assert self._context is not None
        ticket = next(ticket for ticket in self._queue if ticket in tickets)
        job, advance = self._queue.pop(ticket)
        return {ticket: job.run(self._context, advance)}

    def forget(self, tickets: Iterable[int]) -> None:
        for ticket in tickets:
            self._queue.pop(ticket, None)


def run_jobs(
    jobs: Iterable[Job[_R]], context: TrialContext, engine: Engine, advance: Advance = unheard
) -> Iterator[_R]:
    """Yield what each job came to, in their order; the next job is taken when a slot is free for it.

    Where others' jobs keep all slots busy, one job waits for a slot.
    """
    engine.use(context)
    left, order, ended = iter(jobs), deque[int](), dict[int, _R]()
    more = True
    try:
        while True:
            while more and (engine.has_room or not order) and len(order) < _JOBS_AHEAD * engine.count:
                job = next(left, None)
                more = job is not None
                if job is not None:
                    order.append(engine.submit(job, advance))
            if not order:
                return
            if order[0] in ended:
                yield ended.pop(order.popleft())
            else:
                ended |= engine.wait([ticket for ticket in order if ticket not in ended])
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
