"""A worker process: does the jobs that the main process sends, until that process closes the pipe or ends.

The module imports nothing heavy, so that Ctrl-C is ignored (the main process ends its workers) before anything slow.

Messages to a worker: ``("context", payload)`` and ``("job", ticket, job)``; from it: ``("ready", seconds)``,
``("done", ticket, result, meter, seconds)``, ``("warn", text)``, and what every child process may say
(:mod:`restnet_search.processes.inside`).
"""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from restnet_search.processes.inside import Advances, live, send, set_up

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
    live(pipe, lambda: _serve(pipe, recipe, threads))


def _serve(pipe: Connection, recipe: bytes, threads: int) -> None:
    started = time.perf_counter()
    from restnet_search.compute import open_compute
    from restnet_search.search.prepare.placement import move_to_device
    from restnet_search.search.prepare.prepared import load_prepared
    from restnet_search.search.run.records import CacheStatistics
    from restnet_search.space.space_files import admit_extensions

    set_up(pipe, threads)
    what: AnchorRecipe = pickle.loads(recipe)
    run = what.setup
    admit_extensions(run.space, trust_code=run.sources.trust_code)
    names = [anchor.name for anchor in run.space.anchors]
    anchors = load_prepared(run.folder, run.space, run.inputs, run.sources, names)
    compute = open_compute(run.space.compute, lambda message: send(pipe, "warn", message))
    move_to_device(anchors, compute, what.formats)
    send(pipe, "ready", time.perf_counter() - started)
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
        advances = Advances(pipe)
        result = job.run(context, advances)
        advances.tell()
        after = context.store.statistics
        spent = CacheStatistics(after.used - before.used, after.forwarded - before.forwarded)
        send(pipe, "done", ticket, result, spent, time.perf_counter() - started)


def _context(
    shared: SharedContext, anchors: Mapping[str, CutAnchor], compute: Compute, pipe: Connection
) -> TrialContext:
    context = shared.context
    for split in (context.train, context.fit, context.val):
        split.pixels.max_bytes = shared.pixels
    store = shared.store.open(anchors, lambda message: send(pipe, "warn", message), compute)
    return replace(context, graphs={name: cut.graph for name, cut in anchors.items()}, store=store)
