"""The strategy ``joint``: all candidates are trained as one network, then come into the study one by one."""

from __future__ import annotations

import math
from dataclasses import replace

from restnet_search.anchors.fitting.resume import forget, read_epoch, write_epoch
from restnet_search.search.run.records import joint_id
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.study.training_run import AsOneNetwork, TrainingRun, record_of
from restnet_search.search.training.choices import control_choices
from restnet_search.search.training.joint import JointOutcome, JointTraining, budget_like_independent

__all__ = ["train_jointly"]

_CHECKPOINT_STEPS = 100


@AsOneNetwork
def train_jointly(run: TrainingRun) -> None:
    """Train all candidates together, with a checkpoint from which a killed search goes on; then score each."""
    study, context, folder, progress = run.study, run.context, run.session.folder, run.session.progress
    if run.session.trials != run.session.space.search.trials:
        run.session.warn("The number of trials is part of joint training: it stays as the run was started with.")
    ended = {record.id for record in study.records} | study.failed_hybrids
    numbers = {number for number in range(len(study.candidates)) if joint_id(number) in ended}
    if len(numbers) == len(study.candidates):
        forget(folder.joint)  # a kill may have left it
        return
    budget = budget_like_independent(run.session.space, len(study.candidates))
    training = JointTraining(study.candidates, context, run.session.space.search.joint, budget)

    def save() -> None:
        write_epoch(folder.joint, training.state())
        study.note_elapsed(context.clock.elapsed())

    if not training.restore(read_epoch(folder.joint)):
        training.initialize()
        save()
    with progress.task("Joint training", total=max(training.steps, 1)) as task:
        task.advance(training.done)
        reserve = _reserved_steps(training, run)
        training.train(save, every=_CHECKPOINT_STEPS, advance=task.advance, deadline=run.deadline, reserve=reserve)
    training.fail_diverged()
    if training.stopped:
        progress.log(f"Stopped joint training after {training.done} of {training.steps} steps (search.timeout).")
    study.note("joint", {"stitch_layers": len(training.shared), "steps": training.done, "images": training.images})
    for number, reason in training.failed.items():
        if number not in numbers:
            study.fail_hybrid(joint_id(number), reason)
            progress.log(f"Hybrid {joint_id(number)} failed: {reason}")
    with progress.task("Scoring joint hybrids", total=len(training.candidates)) as task:
        task.advance(len(numbers | training.failed.keys()))
        for number, outcome in training.outcomes(numbers):
            _keep(joint_id(number), outcome, budget.lr, run)
            task.advance()
    forget(folder.joint)


def _reserved_steps(training: JointTraining, run: TrainingRun) -> int:
    """Return how many steps' worth of time scoring and the controls will take, at most."""
    context = run.context
    scoring = len(training.candidates) * math.ceil(len(context.val) / context.batch)
    epochs = control_choices(context.training).epochs + 1  # and one for start and scoring
    return scoring + len(run.waiting_controls) * epochs * math.ceil(len(context.train) / context.batch)


def _keep(id: str, outcome: JointOutcome, lr: float, run: TrainingRun) -> None:
    record = record_of(id, outcome.candidate, TrainingChoices(lr, epochs=1), outcome.trial, run.context)
    record = replace(record, strategy="joint", images=outcome.images)
    record = run.save(record, outcome.trial)
    run.study.add_record(record, outcome.candidate)
