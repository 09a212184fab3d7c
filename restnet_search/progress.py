"""Progress of long steps; the command line shows it with rich, the library is silent by default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

__all__ = ["Progress", "SilentProgress", "Task"]


class Task(Protocol):
    """One long step under way."""

    def advance(self, steps: float = 1.0) -> None: ...


class Progress(Protocol):
    """Opens tasks and takes one-line messages."""

    def task(self, description: str, total: float) -> AbstractContextManager[Task]: ...

    def log(self, message: str) -> None: ...


class _SilentTask:
    def advance(self, steps: float = 1.0) -> None:
        pass


class SilentProgress:
    """Shows nothing."""

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Task]:
        yield _SilentTask()

    def log(self, message: str) -> None:
        pass
