"""Several fits at a time, each in a process of its own: small networks gain little from a second thread.

A child process fits one anchor as this one would, and leaves it in the cache of fits, from which it is then read.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue

import torch

from restnet_search.data.splits import DataSplits
from restnet_search.processes.child_process import ChildProcess, Message, RemoteTraceback
from restnet_search.processes.inside import live, send, set_up
from restnet_search.progress import Progress
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import SearchSpace

__all__ = ["FitOne", "FitOrder", "fit_side_by_side"]

_log = logging.getLogger("restnet_search")

_TELL = 0.5  # seconds between two messages of how far a fit is


@dataclass(frozen=True)
class FitOrder:
    """One fit, as a child process is asked for it.

    Attributes:
        space: Names the anchor and how to fit it.
        data: With its classes in the order that the anchors answer in.
        sources: Where the anchor comes from, and where fits are kept.
        name: Of the anchor.
        digest: Of its weights before the fit; a child that finds others fits nothing.
    """

    space: SearchSpace
    data: DataSplits
    sources: AnchorSources
    name: str
    digest: str


FitOne = Callable[[FitOrder, Progress], bool]
"""Fits the anchor of an order into the cache of fits; False where it has other weights now, and is left."""


def fit_side_by_side(fit: FitOne, orders: Sequence[FitOrder], processes: int, progress: Progress) -> frozenset[str]:
    """Fit anchors in so many processes, the threads of this one divided between them.

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
    inbox: SimpleQueue[Message] = SimpleQueue()
    waiting, running, fitted = deque(orders), dict[ChildProcess, str](), set[str]()
    with progress.task(f"Fitting {', '.join(one.name for one in orders)}", total=len(orders)) as task:
        try:
            while waiting or running:
                while waiting and len(running) < processes:
                    order = waiting.popleft()
                    running[ChildProcess(_work, (pickle.dumps((fit, order)), threads), inbox)] = order.name
                with suppress(Empty):
                    child, content = inbox.get(timeout=1.0)  # a wait without end would not hear Ctrl-C everywhere
                    if content is None:
                        name, how = running.pop(child), child.join()
                        if name not in fitted:
                            progress.log(f"{name}: the process that fitted it ended ({how}); it is fitted in this one.")
                        continue
                    kind, *rest = pickle.loads(content)
                    match kind:
                        case "advance":
                            task.advance(rest[0])
                        case "say":
                            progress.log(rest[0])
                        case "done":
                            fitted.add(running[child])
                        case "log":
                            _log.log(rest[0], "%s", rest[1])
                        case _:
                            error, trace = rest
                            raise error from RemoteTraceback(trace)
        finally:
            for child in running:
                child.kill()
            for child in running:
                child.join()
    return frozenset(fitted)


def _work(pipe: Connection, content: bytes, threads: int) -> None:
    live(pipe, lambda: _serve(pipe, content, threads))


def _serve(pipe: Connection, content: bytes, threads: int) -> None:
    set_up(pipe, threads)
    fit, order = pickle.loads(content)
    if fit(order, _Told(pipe)):
        send(pipe, "done")


class _Told:
    """Progress of the one fit of a child, told to the main process."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[_ToldTask]:
        task = _ToldTask(self._pipe, total)
        yield task
        task.tell()

    def log(self, message: str) -> None:
        send(self._pipe, "say", message)


class _ToldTask:
    def __init__(self, pipe: Connection, total: float) -> None:
        self._pipe, self._total = pipe, total
        self._new, self._told = 0.0, time.monotonic()

    def advance(self, steps: float = 1.0) -> None:
        self._new += steps
        if time.monotonic() - self._told > _TELL:
            self.tell()

    def tell(self) -> None:
        self._told = time.monotonic()
        send(self._pipe, "advance", self._new / max(self._total, 1.0))
        self._new = 0.0
