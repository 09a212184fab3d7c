"""Local processes that run the jobs of a search; the main process alone asks, tells and writes."""

from __future__ import annotations

import logging
import pickle
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

import torch

from restnet_search.errors import RunError
from restnet_search.processes.child_process import Message, RemoteTraceback
from restnet_search.progress import Progress
from restnet_search.search.features.passes import CacheMeter
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.run.clock import Clock
from restnet_search.search.run.session import Session
from restnet_search.search.training.context import TrialContext
from restnet_search.search.training.jobs import Advance, Engine, Job, LocalEngine, unheard
from restnet_search.search.workers.job_bounds import JobBounds, Patience, WatchedTime
from restnet_search.search.workers.worker import AnchorRecipe, SharedContext
from restnet_search.search.workers.worker_process import WorkerProcess

__all__ = ["WorkerPool", "open_engine"]

_MAX_ATTEMPTS = 2  # workers that one job may take down, or keep busy for too long; then it is the job
_MAX_STARTS = 3  # workers in a row that may not get ready
_LOOK = 1.0  # seconds between two looks at workers that say nothing

_log = logging.getLogger("restnet_search")


@contextmanager
def open_engine(session: Session, prepared: Prepared) -> Iterator[Engine]:
    """Open what trains the trials of a session: this process, or workers, which end with the block."""
    if session.workers == 1:
        if session.space.compute.workers not in (1, "auto"):
            session.warn("Joint training is one network in one process: workers have nothing to do (compute.workers).")
        yield LocalEngine()
        return
    recipe = AnchorRecipe(session.setup, prepared.formats)
    with WorkerPool(recipe, session.workers, session.progress, session.warn) as pool:
        if not session.folder.study.exists():  # nothing is done yet: they get ready while features are computed
            pool.start()
        yield pool


@dataclass(frozen=True)
class _Given:
    """A job that has not ended, the MACs of its work, and who hears of its progress."""

    job: Job[Any]
    work: int
    advance: Advance


class WorkerPool:
    """``count`` processes that run jobs, the threads of this process divided between them.

    They start when they are first needed; each rebuilds the anchors from the run folder. One that dies, or keeps a job
    for longer than :class:`JobBounds` allows, is replaced and its job run again. All end with this process, however it
    ends.

    Args:
        recipe: What workers rebuild the run's anchors from; the run must have its anchors.
        count: Of processes.
        progress: Is told of their start.
        warn: Takes what workers warn of, and the message that one was replaced.
        patience: With workers that say nothing.
    """

    def __init__(
        self,
        recipe: AnchorRecipe,
        count: int,
        progress: Progress,
        warn: Callable[[str], None],
        patience: Patience = Patience(),  # noqa: B008  (frozen)
    ) -> None:
        self.count, self.threads = count, max(1, torch.get_num_threads() // count)
        self._recipe, self._progress, self._warn = pickle.dumps(recipe), progress, warn
        self._workers: list[WorkerProcess] = []
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._jobs: dict[int, _Given] = {}
        self._results: dict[int, Any] = {}
        self._queue: deque[int] = deque()
        self._deaths: dict[int, int] = {}
        self._overdue: dict[int, list[float]] = {}
        self._forgotten: set[int] = set()
        self._lost: list[str] = []
        self._last, self._slow_starts = 0, 0
        self._bounds = JobBounds(patience)
        self._used: TrialContext | None = None
        self._context, self._payload, self._meter = 0, b"", CacheMeter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Of the processes that run now."""
        return [worker.pid for worker in self._workers]

    @property
    def lost(self) -> tuple[str, ...]:
        """A sentence for each worker that died, or was ended because it kept a job for too long."""
        return tuple(self._lost)

    def start(self) -> None:
        """Start the processes that do not run yet; returns before they are ready."""
        if not self._workers:
            self._progress.log(f"{self.count} workers, {self.threads} thread{'s' * (self.threads != 1)} each.")
        while len(self._workers) < self.count:
            self._workers.append(WorkerProcess(self._recipe, self.threads, self._inbox))

    def use(self, context: TrialContext) -> None:
        """Run the jobs that follow in this context; what workers use of features counts in its store."""
        if context is self._used:
            return
        shared = SharedContext(
            replace(context, graphs={}, store=None, clock=Clock()),
            context.store.recipe(),
            context.train.pixels.max_bytes // self.count,
        )
        self._context, self._payload = self._context + 1, pickle.dumps(shared)
        self._used, self._meter = context, context.store.meter

    @property
    def has_room(self) -> bool:
        """True while a worker is free for one more job."""
        busy = [worker.ticket for worker in self._workers if worker.ticket not in (None, *self._forgotten)]
        return len(self._queue) + len(busy) < self.count

    def submit(self, job: Job[Any], advance: Advance = unheard) -> int:
        """Give a job to the next free worker; returns its ticket."""
        assert self._used is not None
        self.start()
        self._last += 1
        self._jobs[self._last] = _Given(job, job.work(self._used), advance)
        self._queue.append(self._last)
        self._hand_out()
        return self._last

    def wait(self, tickets: Collection[int]) -> dict[int, Any]:
        """Wait until one or more of these jobs have ended; what they came to, by ticket.

        Raises:
            RunError: If a worker cannot start, or a job ended several.
            Exception: What a job raised in its worker.
        """
        watched = WatchedTime(time.monotonic(), 2 * _LOOK)
        while self._results.keys().isdisjoint(tickets):
            self._hand_out()
            for message in self._messages():  # what was said counts before what was not
                self._handle_message(message)
            passed = watched.look(time.monotonic())
            for worker in list(self._workers):
                worker.spent += passed
                self._replace_overdue(worker)
        return {ticket: self._results.pop(ticket) for ticket in tickets if ticket in self._results}

    def close(self) -> None:
        """End the processes at once."""
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.join()
        self._workers.clear()
        self._queue.clear()

    def forget(self, tickets: Iterable[int]) -> None:
        """Drop jobs that nobody waits for any more: those that run end unheard."""
        for ticket in tickets:
            if ticket in self._queue:
                self._queue.remove(ticket)
                del self._jobs[ticket]
            elif ticket in self._jobs:
                self._forgotten.add(ticket)
            else:
                self._results.pop(ticket, None)

    def _hand_out(self) -> None:
        for worker in self._workers:
            if not self._queue:
                return
            if worker.ready and worker.ticket is None:
                ticket = self._queue.popleft()
                context = [] if worker.context == self._context else [("context", self._payload)]
                worker.context = self._context
                worker.give(ticket, *context, ("job", ticket, self._jobs[ticket].job))

    def _messages(self) -> Iterator[Message]:
        """Yield the messages that have come; waits for the first, but not for long."""
        with suppress(Empty):
            yield self._inbox.get(timeout=_LOOK)
            while True:
                yield self._inbox.get_nowait()

    def _handle_message(self, message: Message) -> None:
        worker = message.child
        if not isinstance(worker, WorkerProcess) or worker not in self._workers:  # it was replaced
            return
        if message.content is None:
            self._replace_dead(worker)
            return
        kind, *content = pickle.loads(message.content)
        match kind:
            case "ready":
                worker.ready, self._slow_starts = True, 0
                self._bounds.started(content[0])
            case "advance":
                if (ticket := worker.ticket) is not None and ticket not in self._forgotten:
                    self._jobs[ticket].advance(content[0])
            case "done":
                ticket, result, meter, seconds = content
                worker.ticket = None
                self._bounds.ended(self._jobs.pop(ticket).work, seconds)
                self._meter.add(used=meter.used, forwarded=meter.forwarded)
                if ticket not in self._forgotten:
                    self._results[ticket] = result
            case "log":
                _log.log(content[0], "%s: %s", worker.name, content[1])
            case "warn":
                self._warn(content[0])
            case _:
                error, trace = content
                raise error from RemoteTraceback(trace)

    def _replace_dead(self, worker: WorkerProcess) -> None:
        """Replace a worker that died, and run its job again."""
        how = worker.join()
        if not worker.ready:
            self._workers.remove(worker)
            raise RunError(
                f"A worker process ended before it could do anything ({how}).",
                hint="see what it said above; with less memory at hand pass fewer --workers. A Python script that calls"
                ' run_search does so below `if __name__ == "__main__":`',
            )
        if (ticket := worker.ticket) is not None and ticket not in self._forgotten:
            deaths = self._deaths[ticket] = self._deaths.get(ticket, 0) + 1
            if deaths == _MAX_ATTEMPTS:
                self._workers.remove(worker)
                raise RunError(
                    f"{deaths} worker processes ended while {self._jobs[ticket].job.name} ({how}).",
                    hint="what had finished is kept: go on with --resume RUN and fewer --workers, if memory ran out",
                )
            self._queue.appendleft(ticket)
        self._replace(worker, f"ended ({how})")

    def _replace_overdue(self, worker: WorkerProcess) -> None:
        """Replace a worker that has kept its job for too long; the job is run again, or has failed the second time."""
        if not worker.ready:
            self._replace_slow_start(worker)
            return
        if (ticket := worker.ticket) is None:
            return
        given, before = self._jobs[ticket], self._overdue.get(ticket, [])
        bound = self._bounds.of_job(given.work, len(before))
        if worker.spent <= bound:
            return
        worker.kill()
        worker.join()
        spent = f"spent more than {bound:.0f} s on {given.job.name}, many times what that should take"
        if ticket not in self._forgotten:
            bounds = self._overdue[ticket] = [*before, bound]
            if len(bounds) < _MAX_ATTEMPTS:
                self._queue.appendleft(ticket)
            else:
                del self._jobs[ticket]
                tried = " and ".join(f"{seconds:.0f} s" for seconds in bounds)
                reason = f"{len(bounds)} workers that trained it did not answer within {tried}"
                self._results[ticket] = given.job.given_up(reason)
        self._replace(worker, f"{spent}, and was ended")

    def _replace_slow_start(self, worker: WorkerProcess) -> None:
        bound = self._bounds.of_start(self._slow_starts)
        if worker.spent <= bound:
            return
        worker.kill()
        worker.join()
        self._slow_starts += 1
        if self._slow_starts == _MAX_STARTS:
            self._workers.remove(worker)
            raise RunError(
                f"{_MAX_STARTS} worker processes in a row were not ready in time, the last not within {bound:.0f} s.",
                hint="what had finished is kept: go on with --resume RUN --workers 1",
            )
        self._replace(worker, f"was not ready within {bound:.0f} s, and was ended")

    def _replace(self, worker: WorkerProcess, why: str) -> None:
        sentence = f"{worker.name.capitalize()} {why}; another takes its place."
        self._lost.append(sentence)
        self._warn(sentence)
        self._workers[self._workers.index(worker)] = WorkerProcess(self._recipe, self.threads, self._inbox)
