"""Several fits at a time, each in a process of its own: small networks gain little from a second thread.

A child process fits anchors as this one would, one after the other, and leaves them in the cache of fits, from which
they are then read.
"""

from __future__ import annotations

import logging
import pickle
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue

import torch

from restnet_search.data.splits import DataSplits
from restnet_search.processes.child_process import ChildProcess, Message, RemoteTraceback
from restnet_search.processes.inside import Advances, live, send, set_up
from restnet_search.progress import PartsProgress, Progress, Task
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import SearchSpace

__all__ = ["FitOne", "FitOrder", "fit_side_by_side"]

_log = logging.getLogger("restnet_search")


@dataclass(frozen=True)
class FitOrder:
    """One fit, as a child process is asked for it.

    Attributes:
        space: Names the anchor and how to fit it.
        data: With its classes in the order that the anchors answer in.
        sources: Where the anchor comes from, and where fits are kept.
        name: Of the anchor.
        digest: Of its weights before the fit; a child that finds others fits nothing.
        macs: Multiply-accumulates per image, about: fits of one data set take as long as these are many.
    """

    space: SearchSpace
    data: DataSplits
    sources: AnchorSources
    name: str
    digest: str
    macs: int


FitOne = Callable[[FitOrder, Progress], bool]
"""Fits the anchor of an order into the cache of fits; False where it has other weights now, and is left."""


def fit_side_by_side(fit: FitOne, orders: Sequence[FitOrder], processes: int, progress: Progress) -> frozenset[str]:
    """Fit anchors in so many processes, the threads of this one divided between them.

    A process costs seconds to start, so each takes the next order when it is free. The longest fits are begun first,
    so that none is left at the end for one process while the others have nothing to do.

    Args:
        fit: A function of a module.
        orders: One or more.
        processes: That work at the same time.
        progress: Told about all of them.

    Returns:
        The names of those that are in the cache of fits now. One whose process ended early is not among them.

    Raises:
        AnchorError: If a training diverges, or an anchor cannot be fitted.
    """
    threads = max(1, torch.get_num_threads() // processes)
    with progress.task(f"Fitting {', '.join(one.name for one in orders)}", total=len(orders)) as task:
        fitters = _Fitters(pickle.dumps(fit), orders, threads)
        try:
            while fitters.start(processes):
                fitters.handle_message(task, progress)
        finally:
            fitters.end()
    return frozenset(fitters.fitted)


class _Fitters:
    """Child processes that fit, and what is left to fit.

    Args:
        fit: The pickled :data:`FitOne`.
        orders: All of them.
        threads: Of each process.
    """

    def __init__(self, fit: bytes, orders: Sequence[FitOrder], threads: int) -> None:
        self.fitted: set[str] = set()
        self._arguments = (fit, threads)
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._waiting = deque(sorted(orders, key=lambda order: order.macs, reverse=True))
        self._running: dict[ChildProcess, str | None] = {}  # the anchor that each fits; None: it has been ended

    def start(self, processes: int) -> bool:
        """Start processes while there are orders for them; say if anything is still to come."""
        while self._waiting and len(self._running) < processes:
            self._give_next(ChildProcess(_work, self._arguments, self._inbox))
        return bool(self._running)

    def handle_message(self, task: Task, progress: Progress) -> None:
        """Wait a while for a message, and do what it asks for."""
        try:
            child, content = self._inbox.get(timeout=1.0)  # a wait without end would not hear Ctrl-C everywhere
        except Empty:
            return
        if content is None:
            name, how = self._running.pop(child), child.join()
            if name is not None:
                progress.log(f"{name}: the process that fitted it ended ({how}); it is fitted in this one.")
            return
        kind, *rest = pickle.loads(content)
        match kind:
            case "advance":
                task.advance(rest[0])
            case "say":
                progress.log(rest[0])
            case "done":
                self._close_order(child, rest[0], progress)
            case "log":
                _log.log(rest[0], "%s", rest[1])
            case _:
                error, trace = rest
                raise error from RemoteTraceback(trace)

    def end(self) -> None:
        """End all processes at once."""
        for child in self._running:
            child.kill()
        for child in self._running:
            child.join()

    def _close_order(self, child: ChildProcess, is_fitted: bool, progress: Progress) -> None:
        name = self._running[child]
        assert name is not None
        if is_fitted:
            self.fitted.add(name)
        else:
            progress.log(f"{name}: another process loads other weights of it; it is fitted in this one.")
        self._give_next(child)

    def _give_next(self, child: ChildProcess) -> None:
        """Give a process the next order; end it where there is none."""
        if self._waiting:
            order = self._waiting.popleft()
            self._running[child] = order.name
            child.send((order,))
        else:
            self._running[child] = None
            child.kill()


def _work(pipe: Connection, fit: bytes, threads: int) -> None:
    live(pipe, lambda: _serve(pipe, fit, threads))


def _serve(pipe: Connection, fit: bytes, threads: int) -> None:
    set_up(pipe, threads)
    fit_one: FitOne = pickle.loads(fit)
    while True:
        try:
            message = pipe.recv_bytes()
        except (EOFError, OSError):  # the main process is gone
            return
        [order] = pickle.loads(message)
        advances = Advances(pipe)
        is_fitted = fit_one(order, PartsProgress(advances, partial(send, pipe, "say")))
        advances.tell()
        send(pipe, "done", is_fitted)
