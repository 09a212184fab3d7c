"""Trials of the controls, after those of the search, so that it goes as it would without them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from restnet_search.search.points.controls import Control
from restnet_search.search.study.training_run import TrainingRun, record_of
from restnet_search.search.training.choices import control_choices
from restnet_search.search.training.jobs import Job, group_by_pass, run_jobs
from restnet_search.search.training.stitch_trainer import FailedTrial

__all__ = ["train_controls"]


def train_controls(run: TrainingRun) -> None:
    """Train and score what is left of the controls; as with trials, the stitch layer is on disk before the record."""
    study, context, progress = run.study, run.context, run.session.progress
    choices, waiting = control_choices(context.training), run.waiting_controls
    begun: deque[list[Control]] = deque()

    def jobs() -> Iterator[Job]:
        by_key = {control.candidate.key: control for control in waiting}
        candidates = [control.candidate for control in waiting]
        left = len(waiting)
        for group in group_by_pass(candidates, context, run.session.space.cache.trials_per_pass):
            if time.monotonic() > run.deadline:
                progress.log(f"{left} controls were left out (search.timeout).")
                return
            left -= len(group)
            begun.append([by_key[candidate.key] for candidate in group])
            yield Job(tuple((candidate, choices) for candidate in group))

    with progress.task("Controls", total=max(len(waiting), 1)) as task:
        for outcomes in run_jobs(jobs(), context, run.engine):
            for control, outcome in zip(begun.popleft(), outcomes, strict=True):
                if isinstance(outcome, FailedTrial):
                    study.fail_control(control.id, str(outcome))
                    run.session.warn(f"Control {control.id} failed: {outcome}")
                    continue
                record = record_of(control.id, control.candidate, choices, outcome, context, control.kind)
                record = run.save(record, outcome)
                study.add_record(record, control.candidate)
                task.advance()
