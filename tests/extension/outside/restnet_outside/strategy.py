"""Strategy ``ranked``: train the candidates that the ranker likes best, without asking a sampler."""

from __future__ import annotations

from dataclasses import replace

from restnet_search.search.points.candidates import Candidate
from restnet_search.search.study.training_run import TrainingRun, record_of
from restnet_search.search.training.choices import control_choices
from restnet_search.search.training.jobs import TrialJob, run_jobs
from restnet_search.search.training.stitch_trainer import FailedTrial


def train_ranked(run: TrainingRun) -> None:
    """Train ``search.trials`` candidates in the order of their scores, all with the same choices."""
    choices, done = control_choices(run.context.training), {record.id for record in run.study.records}
    ranked = sorted(run.study.candidates, key=lambda candidate: (-candidate.score, candidate.key))
    left = {
        f"w{number:03d}": candidate
        for number, candidate in enumerate(ranked[: run.session.trials])
        if f"w{number:03d}" not in done | run.study.failed_hybrids
    }

    def jobs(candidates: list[Candidate]) -> list[TrialJob]:
        return [TrialJob(((candidate, choices),)) for candidate in candidates]

    outcomes = run_jobs(jobs(list(left.values())), run.context, run.engine)
    for (id, candidate), (outcome,) in zip(left.items(), outcomes, strict=True):
        if isinstance(outcome, FailedTrial):
            run.study.fail_hybrid(id, str(outcome))
            continue
        record = replace(record_of(id, candidate, choices, outcome, run.context), strategy="ranked")
        run.save(record, outcome)
        run.study.add_record(record, candidate)
        if run.is_out_of_time(record.seconds for record in run.study.records):
            return
