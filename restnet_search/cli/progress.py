"""Progress of long steps: bars with the time left in a terminal, one line per step elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from restnet_search import progress as interface
from restnet_search.cli.console import error_console

__all__ = ["show_progress"]


class _BarTask:
    def __init__(self, bars: Progress, task: int) -> None:
        self._bars, self._task = bars, task

    def advance(self, steps: float = 1.0) -> None:
        self._bars.advance(self._task, steps)  # pyright: ignore[reportArgumentType]


class _Bars:
    def __init__(self, bars: Progress) -> None:
        self._bars = bars

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[interface.Task]:
        yield _BarTask(self._bars, self._bars.add_task(description, total=total))

    def log(self, message: str) -> None:
        self._bars.console.print(message)


class _NoTask:
    def advance(self, steps: float = 1.0) -> None:
        pass


class _Lines:
    """One line at the end of each step, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[interface.Task]:
        started = time.perf_counter()
        yield _NoTask()
        self._console.print(f"{description}: {time.perf_counter() - started:.1f} s", soft_wrap=True)

    def log(self, message: str) -> None:
        self._console.print(message, soft_wrap=True)


@contextmanager
def show_progress() -> Iterator[interface.Progress]:
    """Show progress on standard error while the block runs."""
    console = error_console()
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        yield _Bars(bars)
