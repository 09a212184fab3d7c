"""A worker process: trains the trials that the main process sends, until that process closes the pipe or ends.

The module imports nothing heavy, so that Ctrl-C is ignored (the main process ends its workers) before anything slow.

Messages to a worker: ``("context", payload)`` and ``("job", ticket, job)``; from it: ``("ready", seconds)``,
``("done", ticket, outcomes, meter, seconds)``, ``("log", level, text)``, ``("warn", text)`` and
``("error", exception, traceback)``. All are pickled by value, tensors too: torch's own way of sending them through a
pipe would put them into shared memory, of which containers have little.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
import time
import traceback
import warnings
from dataclasses import dataclass, replace
from multiprocessing import connection, parent_process
from typing import TYPE_CHECKING, Any

from restnet_search.environment import prepare_environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection

    from restnet_search.compute import Compute
    from restnet_search.search.features.store import StoreRecipe
    from restnet_search.search.prepare.cut_anchor import CutAnchor
    from restnet_search.search.prepare.memory_format import FormatChoice
    from restnet_search.search.run.session import RunSetup
    from restnet_search.search.training.context import TrialContext

__all__ = ["AnchorRecipe", "SharedContext", "work"]

_log = logging.getLogger("restnet_search")


@dataclass(frozen=True)
class AnchorRecipe:
    """The recipe by which a worker rebuilds the run's anchors, in the memory formats that were chosen for them."""

    setup: RunSetup
    formats: Mapping[str, FormatChoice]


@dataclass(frozen=True)
class SharedContext:
    """A trial's context without what a worker has for itself: graphs and store.

    ``pixels`` bounds the bytes of decoded images that it keeps.
    """

    context: TrialContext
    store: StoreRecipe
    pixels: int


def work(pipe: Connection, recipe: bytes, threads: int) -> None:
    """The whole life of a worker.

    Args:
        pipe: To the main process.
        recipe: A pickled :class:`AnchorRecipe`; bytes, so that nothing is imported before this function runs.
        threads: That torch may use.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare_environment()
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated")
    threading.Thread(target=_end_with_the_main_process, daemon=True).start()
    try:
        _serve(pipe, recipe, threads)
    except BaseException as error:  # noqa: BLE001  (the main process raises it)
        _send_error(pipe, error)


def _end_with_the_main_process() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)  # at once: what is half written has no name yet, and locks end with their holder


def _serve(pipe: Connection, recipe: bytes, threads: int) -> None:
    started = time.perf_counter()
    import torch
    from tqdm import tqdm

    from restnet_search.compute import open_compute
    from restnet_search.search.prepare.placement import move_to_device
    from restnet_search.search.prepare.prepared import load_prepared
    from restnet_search.search.run.records import CacheStatistics
    from restnet_search.space.space_files import admit_extensions

    # torch.fx makes a bar even where it shows none; its own lock is the system's, which a process ended at once leaks
    tqdm.set_lock(threading.RLock())
    torch.set_num_threads(threads)
    _log.setLevel(logging.INFO)
    _log.propagate = False
    _log.addHandler(_ToMain(pipe))
    what: AnchorRecipe = pickle.loads(recipe)
    run = what.setup
    admit_extensions(run.space, trust_code=run.sources.trust_code)
    names = [anchor.name for anchor in run.space.anchors]
    anchors = load_prepared(run.folder, run.space, run.inputs, run.sources, names)
    compute = open_compute(run.space.compute, lambda message: _send(pipe, "warn", message))
    move_to_device(anchors, compute, what.formats)
    _send(pipe, "ready", time.perf_counter() - started)
    context: TrialContext | None = None
    while True:
        try:
            message = pipe.recv_bytes()
        except (EOFError, OSError):  # the main process needs no more, or is gone
            return
        kind, *rest = pickle.loads(message)
        if kind == "context":
            context = _context(pickle.loads(rest[0]), anchors, compute, pipe)
            continue
        ticket, job = rest
        assert context is not None
        before, started = context.store.statistics, time.perf_counter()
        outcomes = job.run(context)
        after = context.store.statistics
        spent = CacheStatistics(after.used - before.used, after.forwarded - before.forwarded)
        _send(pipe, "done", ticket, outcomes, spent, time.perf_counter() - started)


def _context(
    shared: SharedContext, anchors: Mapping[str, CutAnchor], compute: Compute, pipe: Connection
) -> TrialContext:
    context = shared.context
    for split in (context.train, context.fit, context.val):
        split.pixels.max_bytes = shared.pixels
    store = shared.store.open(anchors, lambda message: _send(pipe, "warn", message), compute)
    return replace(context, graphs={name: cut.graph for name, cut in anchors.items()}, store=store)


class _ToMain(logging.Handler):
    """The main process writes the log."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__()
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        _send(self._pipe, "log", record.levelno, record.getMessage())


def _send(pipe: Connection, *message: Any) -> None:
    pipe.send_bytes(pickle.dumps(message))


def _send_error(pipe: Connection, error: BaseException) -> None:
    """Give the main process the exception itself, as it would have met it without workers."""
    trace = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  (whatever its own pickling raises)
        error = RuntimeError(f"{type(error).__name__}: {error}")
    try:
        _send(pipe, "error", error, trace)
    except OSError:  # nobody is left to be told
        return
