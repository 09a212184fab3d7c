"""Wall-clock of a search over all its sittings, so that records can say when they were finished."""

from __future__ import annotations

import time

__all__ = ["Clock"]


class Clock:
    """Seconds since a search began.

    Args:
        started: ``time.perf_counter()`` at the beginning of this sitting; now if left out.
        before: Seconds that earlier sittings of a resumed search took, as far as their records tell.
    """

    def __init__(self, started: float | None = None, before: float = 0.0) -> None:
        self._started = time.perf_counter() if started is None else started
        self._before = before

    def elapsed(self) -> float:
        return self._before + time.perf_counter() - self._started
