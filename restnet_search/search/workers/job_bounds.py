"""The bound of a job: how long a worker may keep it before it is taken to hang follows from the job's work."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["JobBounds", "Patience", "WatchedTime"]


@dataclass(frozen=True)
class Patience:
    """The bounds of all jobs, generous: what is taken from a worker that is only slow was computed for nothing.

    Attributes:
        factor: Times the longest that a job took so far for the same work.
        least: Seconds that every job may take.
        unmeasured: Seconds that every job may take as long as none has ended.
        slowest: MACs per second that a worker is taken to reach as long as no job has ended.
        again: Times the bound that the same job may take on another worker.
    """

    factor: float = 20.0
    least: float = 60.0
    unmeasured: float = 600.0
    slowest: float = 1e8
    again: float = 4.0


class JobBounds:
    """Bounds in seconds; they follow from the jobs, and the starts of workers, that have ended so far."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._pace = 0.0  # most seconds per MAC so far
        self._start = 0.0  # most seconds that a worker needed to get ready

    def started(self, seconds: float) -> None:
        """Take note of how long a worker needed to get ready."""
        self._start = max(self._start, seconds)

    def ended(self, work: int, seconds: float) -> None:
        """Take note of how long a job took for its work."""
        self._pace = max(self._pace, seconds / max(work, 1))

    def of_job(self, work: int, attempts: int = 0) -> float:
        """Return the seconds that a job may take which ``attempts`` workers have kept for too long."""
        patience = self._patience
        if self._pace:
            seconds = max(patience.least, patience.factor * self._pace * work)
        else:
            seconds = max(patience.unmeasured, work / patience.slowest)
        return seconds * patience.again**attempts

    def of_start(self, attempts: int = 0) -> float:
        """Return the seconds in which a worker must be ready, after so many that were not."""
        patience = self._patience
        seconds = max(patience.least, patience.factor * self._start) if self._start else patience.unmeasured
        return seconds * patience.again**attempts


class WatchedTime:
    """Time that counts only while somebody looks: a machine or a process that was stopped meanwhile adds next to none.

    Args:
        now: Seconds on any clock.
        most: That may lie between two looks; of a longer pause only so many count.
    """

    def __init__(self, now: float, most: float) -> None:
        self._last, self._most = now, most

    def look(self, now: float) -> float:
        """Return the seconds since the last look."""
        passed, self._last = min(now - self._last, self._most), now
        return passed
