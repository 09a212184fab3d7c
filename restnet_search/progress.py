"""Progress of long steps: bars in a terminal, lines in logs and pipes; the library is silent by default."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

from restnet_search.units import format_duration

__all__ = ["LineProgress", "PartsProgress", "Progress", "SilentProgress", "Task"]


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


class PartsProgress:
    """Tells somebody else how far tasks are, each as parts of 1.

    Args:
        advance: Takes the parts.
        say: Takes the messages.
    """

    def __init__(self, advance: Callable[[float], None], say: Callable[[str], None]) -> None:
        self._advance, self._say = advance, say

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Task]:
        yield _Parts(self._advance, total)

    def log(self, message: str) -> None:
        self._say(message)


class _Parts:
    def __init__(self, advance: Callable[[float], None], total: float) -> None:
        self._advance, self._total = advance, max(total, 1.0)

    def advance(self, steps: float = 1.0) -> None:
        self._advance(steps / self._total)


class LineProgress:
    """A line at the start of each step, one a minute inside it, also where nothing advances, and one at its end.

    Args:
        say: Takes the lines, from any thread.
        beside: Another progress that is told the same; messages go to it alone.
        every: Seconds between the lines inside a step.
    """

    def __init__(self, say: Callable[[str], None], *, beside: Progress | None = None, every: float = 60.0) -> None:
        self._say, self._beside, self._every = say, beside, every

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Task]:
        with ExitStack() as stack:
            other = None if self._beside is None else stack.enter_context(self._beside.task(description, total))
            step = _LineTask(description, total, other)
            self._say(f"{description} ...")
            stack.enter_context(_repeated(lambda: self._say(step.line()), self._every))
            yield step
        self._say(f"{description}: {step.elapsed():.1f} s")

    def log(self, message: str) -> None:
        self._say(message)
        if self._beside is not None:
            self._beside.log(message)


class _LineTask:
    def __init__(self, description: str, total: float, other: Task | None) -> None:
        self._description, self._total, self._other = description, total, other
        self._started, self._done = time.monotonic(), 0.0

    def advance(self, steps: float = 1.0) -> None:
        self._done += steps
        if self._other is not None:
            self._other.advance(steps)

    def elapsed(self) -> float:
        return time.monotonic() - self._started

    def line(self) -> str:
        elapsed, done = self.elapsed(), min(self._done, self._total)
        text = f"{self._description}: {int(done)} of {self._total:g} after {format_duration(elapsed)}"
        return f"{text}, about {format_duration(elapsed / done * (self._total - done))} left" if done else text


@contextmanager
def _repeated(call: Callable[[], None], every: float) -> Iterator[None]:
    """Call a function in a thread, again and again until the block ends."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(every):
            call()

    threading.Thread(target=repeat, daemon=True).start()
    try:
        yield
    finally:
        over.set()
