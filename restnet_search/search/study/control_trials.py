"""Trials of the controls, after those of the search, so that it goes as it would without them."""

from __future__ import annotations

from restnet_search.search.study.listed_trials import Listed, train_listed
from restnet_search.search.study.training_run import TrainingRun
from restnet_search.search.training.choices import control_choices
from restnet_search.search.training.jobs import group_by_pass

__all__ = ["train_controls"]


def train_controls(run: TrainingRun) -> None:
    """Train and score what is left of the controls."""
    choices, waiting = control_choices(run.context.training), run.waiting_controls
    by_key = {
        control.candidate.key: Listed(control.id, (control.candidate, choices), control=control.kind)
        for control in waiting
    }
    candidates = [control.candidate for control in waiting]
    groups = group_by_pass(candidates, run.context, run.session.space.cache.trials_per_pass)
    listed = [[by_key[candidate.key] for candidate in group] for group in groups]
    train_listed(run, listed, task="Controls", noun="control")
