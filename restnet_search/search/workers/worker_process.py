"""One worker as the main process sees it: a child process, and what it has to do."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any

from restnet_search.processes.child_process import ChildProcess, Message
from restnet_search.search.workers.worker import work

__all__ = ["WorkerProcess"]


class WorkerProcess(ChildProcess):
    """A process that runs :func:`~restnet_search.search.workers.worker.work`.

    Args:
        recipe: A pickled ``AnchorRecipe``.
        threads: That torch may use there.
        inbox: Takes what it sends.

    Attributes:
        ready: True once it waits for jobs.
        context: Number of the context that it was given last.
        ticket: Of the job that it has; None while it has none.
        spent: Seconds that it has been starting, or has had its job, as far as somebody waited for it.
    """

    def __init__(self, recipe: bytes, threads: int, inbox: SimpleQueue[Message]) -> None:
        self.ready, self.context, self.spent = False, 0, 0.0
        self.ticket: int | None = None
        super().__init__(work, (recipe, threads), inbox)

    @property
    def name(self) -> str:
        return f"worker {self.pid}"

    def give(self, ticket: int, *messages: tuple[Any, ...]) -> None:
        """Send messages, the last of which is a job; returns at once, also where the process has died."""
        self.ticket, self.spent = ticket, 0.0
        self.send(*messages)
