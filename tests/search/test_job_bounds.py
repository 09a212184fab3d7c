"""The bound of a job follows from its work; a pause of the machine or of the main process is no worker's fault."""

from __future__ import annotations

import pytest

from restnet_search.search.workers.job_bounds import JobBounds, Patience, WatchedTime

PATIENCE = Patience(factor=10, least=60, unmeasured=600, slowest=1e6, again=4)


def test_before_any_job_has_ended_a_slow_machine_is_assumed() -> None:
    bounds = JobBounds(PATIENCE)
    assert bounds.of_job(1) == 600
    assert bounds.of_job(10**10) == 10_000  # at 1e6 MACs per second


def test_the_bound_grows_with_the_work_and_with_the_slowest_job_so_far() -> None:
    bounds = JobBounds(PATIENCE)
    bounds.ended(work=1000, seconds=5)
    bounds.ended(work=1000, seconds=8)
    bounds.ended(work=1000, seconds=1)
    assert bounds.of_job(1000) == pytest.approx(80)
    assert bounds.of_job(2000) == pytest.approx(160)
    assert bounds.of_job(10) == 60  # no job is taken away before
    assert bounds.of_job(1000, attempts=1) == pytest.approx(320)


def test_a_worker_must_get_ready_as_others_did() -> None:
    bounds = JobBounds(PATIENCE)
    assert (bounds.of_start(), bounds.of_start(attempts=1)) == (600, 2400)
    bounds.started(9)
    assert bounds.of_start() == 90


def test_a_pause_counts_as_two_looks() -> None:
    """Clocks as they are when a laptop sleeps, or Ctrl-Z and fg hold all processes for an hour."""
    watched = WatchedTime(now=100.0, most=2.0)
    assert [watched.look(now) for now in (101.0, 102.5, 3702.5, 3703.0)] == [1.0, 1.5, 2.0, 0.5]


def test_a_job_without_counted_work_is_timed_too() -> None:
    bounds = JobBounds(PATIENCE)
    bounds.ended(0, 3.0)  # an anchor whose operations nobody counts
    assert bounds.of_job(0) >= PATIENCE.least
