"""Progress of long steps: bars with the time left in a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

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


@contextmanager
def show_progress() -> Iterator[interface.Progress]:
    """Show progress on standard error while the block runs."""
    console = error_console()
    # not is_terminal alone: where colors are forced, it is True for a pipe, which cannot move a cursor
    if not console.is_terminal or console.is_dumb_terminal or not sys.stderr.isatty():
        yield interface.LineProgress(partial(console.print, soft_wrap=True))
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
