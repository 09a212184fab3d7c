"""Local processes that train trials for a search; the main process alone asks, tells and writes."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Self

import torch

from restnet_search.errors import RunError
from restnet_search.progress import Progress
from restnet_search.search.features.passes import CacheMeter
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.run.clock import Clock
from restnet_search.search.run.session import Session
from restnet_search.search.training.context import TrialContext
from restnet_search.search.training.jobs import Engine, Job, LocalEngine, Outcome
from restnet_search.search.workers.worker import AnchorRecipe, SharedContext, work

__all__ = ["WorkerPool", "open_engine"]

_MAX_ATTEMPTS = 2  # workers that one job may take down; then it is the job
_JOIN_TIMEOUT = 10.0  # seconds for a process that was ended to be gone

_log = logging.getLogger("restnet_search")


@contextmanager
def open_engine(session: Session, prepared: Prepared) -> Iterator[Engine]:
    """Open what trains the trials of a session: this process, or workers, which end with the block."""
    if session.workers == 1:
        if session.space.compute.workers > 1:
            session.warn("Joint training is one network in one process: workers have nothing to do (compute.workers).")
        yield LocalEngine()
        return
    recipe = AnchorRecipe(session.setup, prepared.formats)
    with WorkerPool(recipe, session.workers, session.progress, session.warn) as pool:
        if (
            not session.folder.study.exists()
        ):  # nothing is done yet: they get ready while this process solves closed forms
            pool.start()
        yield pool


class RemoteTraceback(Exception):
    """The traceback in a worker of an exception; its cause in the main process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    ready: bool = False
    context: int = 0
    ticket: int | None = None

    @property
    def name(self) -> str:
        return f"worker {self.process.pid}"


class WorkerPool:
    """``count`` processes that run jobs, the threads of this process divided between them.

    They start when they are first needed, by ``spawn``, since a fork of a process with running threads is not safe;
    each rebuilds the anchors from the run folder. One that is killed is replaced and its job run again. All end with
    this process, however it ends.

    Args:
        recipe: What workers rebuild the run's anchors from; the run must have its anchors.
        count: Of processes.
        progress: Is told of their start.
        warn: Takes what workers warn of, and the message that one died.
    """

    def __init__(self, recipe: AnchorRecipe, count: int, progress: Progress, warn: Callable[[str], None]) -> None:
        self.count, self.threads = count, max(1, torch.get_num_threads() // count)
        self._recipe, self._progress, self._warn = pickle.dumps(recipe), progress, warn
        self._workers: list[_Worker] = []
        self._jobs: dict[int, Job] = {}
        self._queue: deque[int] = deque()
        self._deaths: dict[int, int] = {}
        self._forgotten: set[int] = set()
        self._last = 0
        self._used: TrialContext | None = None
        self._context, self._payload, self._meter = 0, b"", CacheMeter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Of the processes that run now."""
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    def start(self) -> None:
        """Start the processes that do not run yet; returns before they are ready."""
        if not self._workers:
            text = f"{self.count} workers, {self.threads} thread{'s' * (self.threads != 1)} each."
            self._progress.log(text)
            _log.info(text)
        while len(self._workers) < self.count:
            self._workers.append(self._start_one())

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

    def submit(self, job: Job) -> int:
        """Give a job to the next free worker; returns its ticket."""
        self.start()
        self._last += 1
        self._jobs[self._last] = job
        self._queue.append(self._last)
        self._hand_out()
        return self._last

    def wait(self) -> dict[int, list[Outcome]]:
        """Wait until jobs have ended; what became of their trials, by ticket.

        Raises:
            RunError: If a worker cannot start, or a job ended several.
            Exception: What a job raised in its worker.
        """
        ended: dict[int, list[Outcome]] = {}
        while not ended:
            self._hand_out()
            waited = connection.wait([worker.pipe for worker in self._workers])
            for worker in [worker for worker in self._workers if worker.pipe in waited]:
                self._handle_message(worker, ended)
        return ended

    def close(self) -> None:
        """End the processes at once: they hold nothing that would have to be put down."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            _join_or_kill(worker)
        self._workers.clear()
        self._queue.clear()

    def _start_one(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, self._recipe, self.threads), daemon=True)
        with _deaf_to_ctrl_c():
            process.start()
        theirs.close()  # so that ours ends when the worker does
        return _Worker(process, ours)

    def _hand_out(self) -> None:
        for worker in self._workers:
            if not self._queue:
                return
            if worker.ready and worker.ticket is None:
                worker.ticket = self._queue.popleft()
                try:
                    if worker.context != self._context:
                        worker.pipe.send_bytes(pickle.dumps(("context", self._payload)))
                        worker.context = self._context
                    worker.pipe.send_bytes(pickle.dumps(("job", worker.ticket, self._jobs[worker.ticket])))
                except OSError:  # it has died; its pipe says so to :meth:`wait`
                    continue

    def _handle_message(self, worker: _Worker, ended: dict[int, list[Outcome]]) -> None:
        try:
            kind, *content = pickle.loads(worker.pipe.recv_bytes())
        except (EOFError, OSError):
            self._replace_dead(worker)
            return
        match kind:
            case "ready":
                worker.ready = True
            case "done":
                ticket, outcomes, used, forwarded = content
                worker.ticket = None
                del self._jobs[ticket]
                self._meter.add(used=used, forwarded=forwarded)
                if ticket not in self._forgotten:
                    ended[ticket] = outcomes
            case "log":
                _log.log(content[0], "%s: %s", worker.name, content[1])
            case "warn":
                self._warn(content[0])
            case _:
                error, trace = content
                raise error from RemoteTraceback(trace)

    def _replace_dead(self, worker: _Worker) -> None:
        """Replace a worker that died, and run its job again."""
        _join_or_kill(worker)
        self._workers.remove(worker)
        how = _how_it_ended(worker.process.exitcode)
        if not worker.ready:
            raise RunError(
                f"A worker process ended before it could train anything ({how}).",
                hint="see what it said above; with less memory at hand pass fewer --workers. A Python script that calls"
                ' run_search does so below `if __name__ == "__main__":`',
            )
        if (ticket := worker.ticket) is not None and ticket not in self._forgotten:
            deaths = self._deaths[ticket] = self._deaths.get(ticket, 0) + 1
            if deaths == _MAX_ATTEMPTS:
                raise RunError(
                    f"{deaths} worker processes ended while they trained {_named(self._jobs[ticket])} ({how}).",
                    hint="what had finished is kept: go on with --resume RUN and fewer --workers, if memory ran out",
                )
            self._queue.appendleft(ticket)
        self._warn(f"{worker.name.capitalize()} ended ({how}); another takes its place.")
        self._workers.append(self._start_one())

    def forget(self, tickets: Iterable[int]) -> None:
        """Drop jobs that nobody waits for any more: those that run end unheard."""
        for ticket in tickets:
            if ticket in self._queue:
                self._queue.remove(ticket)
                del self._jobs[ticket]
            else:
                self._forgotten.add(ticket)


def _join_or_kill(worker: _Worker) -> None:
    """Wait until a process that should end is gone."""
    worker.pipe.close()
    worker.process.join(_JOIN_TIMEOUT)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()


def _named(job: Job) -> str:
    (one, _), *others = job.trials
    point = f"{one.direction.front}[..{one.front_cut}] + {one.direction.back}[{one.back_cut}..]"
    return f"{point} and {len(others)} more" if others else point


def _how_it_ended(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}, as the system sends where memory runs out" if name == "SIGKILL" else name


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach from their first moment on; one meanwhile reaches us afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows; there they are deaf once they run
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # starting it would take the mask off
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
