"""Run the trials that a study asks for, then the controls, and keep what each reached."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from restnet_search.anchors.resume import forget, read_epoch, write_epoch
from restnet_search.progress import Progress
from restnet_search.search.candidates import Candidate
from restnet_search.search.controls import Control, control_choices
from restnet_search.search.hybrids import trained_tensors
from restnet_search.search.joint import JointOutcome, JointTraining, budget_like_independent
from restnet_search.search.run_folder import RunFolder
from restnet_search.search.study import Proposal, SearchStudy, TrialRecord, hybrid_id, joint_id, values_of
from restnet_search.search.together import is_kept, run_group
from restnet_search.search.trial import NonFiniteLoss, TrainingChoices, TrialContext, TrialOutcome, run_trial
from restnet_search.space.schema import SearchSpace

__all__ = ["run_trials"]

_CHECKPOINT_STEPS = 100

_log = logging.getLogger("restnet_search")


def run_trials(
    study: SearchStudy,
    context: TrialContext,
    folder: RunFolder,
    space: SearchSpace,
    progress: Progress,
    controls: Sequence[Control] = (),
    *,
    spent: float = 0.0,
) -> None:
    """Run trials until the space's number has finished, its timeout has passed, or no candidate is left.

    A finished trial's stitch layer is on disk before the study says that it finished, so a kill at any moment loses at
    most the trials under way. A trial whose loss is not finite fails with its reason, and the next one is asked.

    Where the features of a front can be kept, trials run one by one. Where they are too large, ``cache.together``
    trials are asked at a time, and those that share a front anchor are trained on one pass over the images.

    Under ``strategy: joint``, all candidates are trained together first, and then come into the study one by one.

    The controls come last, so that the search goes as it would without them; of a timeout, the time that they will
    take is kept back for them, and ``spent`` seconds have passed already (early decisions).
    """
    deadline = time.monotonic() + (space.search.timeout or float("inf")) - spent
    run = _run_jointly if space.search.strategy == "joint" else _run_asked
    run(study, context, folder, space, progress, controls, deadline)
    _run_controls(controls, study, context, folder, space, progress, deadline)


def _run_asked(
    study: SearchStudy,
    context: TrialContext,
    folder: RunFolder,
    space: SearchSpace,
    progress: Progress,
    controls: Sequence[Control],
    deadline: float,
) -> None:
    done = len(study.records)
    with progress.task("Trials", total=space.search.trials) as task:
        task.advance(done)
        for proposals in study.asks_together(_count_together(study, context, space)):
            for group in _groups(proposals, context):
                for proposal, outcome in zip(
                    group, run_group([(p.candidate, p.choices) for p in group], context), strict=True
                ):
                    _keep(proposal, outcome, study, context, folder, space, progress)
                finished = len(study.records)
                task.advance(finished - done)
                done = finished
            if time.monotonic() + _seconds_of_controls(study, controls) > deadline:
                progress.log(f"Stopped after {space.search.timeout:g} s with {done} finished trials (search.timeout).")
                break
        else:
            _say_if_exhausted(done, space, progress)


def _run_jointly(
    study: SearchStudy,
    context: TrialContext,
    folder: RunFolder,
    space: SearchSpace,
    progress: Progress,
    controls: Sequence[Control],
    deadline: float,
) -> None:
    """Train all candidates together, with a checkpoint from which a killed search goes on; then score each."""
    ended = {record.id for record in study.records} | study.failed_hybrids
    numbers = {number for number in range(len(study.candidates)) if joint_id(number) in ended}
    if len(numbers) == len(study.candidates):
        forget(folder.joint)  # a kill may have left it
        return
    budget = budget_like_independent(space, len(study.candidates))
    training = JointTraining(study.candidates, context, space.search.joint, budget)

    def save() -> None:
        write_epoch(folder.joint, training.state())
        study.note_elapsed(context.clock.elapsed())

    if not training.restore(read_epoch(folder.joint)):
        training.initialise()
        save()
    with progress.task("Joint training", total=max(training.steps, 1)) as task:
        task.advance(training.done)
        reserve = _joint_reserve(training, _waiting(study, controls), context)
        training.train(save, every=_CHECKPOINT_STEPS, advance=task.advance, deadline=deadline, reserve=reserve)
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
            _keep_joint(joint_id(number), outcome, budget.lr, study, context, folder, space)
            task.advance()
    forget(folder.joint)


def _joint_reserve(training: JointTraining, waiting: Sequence[Control], context: TrialContext) -> int:
    """Steps' worth of time that scoring and the controls will take, at most."""
    scoring = len(training.candidates) * math.ceil(len(context.val) / context.batch)
    epochs = control_choices(context.training).epochs + 1  # and one for start and scoring
    return scoring + len(waiting) * epochs * math.ceil(len(context.train) / context.batch)


def _keep_joint(
    id: str,
    outcome: JointOutcome,
    lr: float,
    study: SearchStudy,
    context: TrialContext,
    folder: RunFolder,
    space: SearchSpace,
) -> None:
    record = _record(id, outcome.candidate, TrainingChoices(lr, epochs=1), outcome.trial, context)
    record = replace(record, strategy="joint", images=outcome.images)
    folder.save_stitch(id, trained_tensors(outcome.trial.stitch, {}))
    study.add_record(record, values_of(space.objectives, record.correct / record.n, outcome.candidate.cost))
    _log.info("joint hybrid %s finished: %s", id, record)


def _say_if_exhausted(done: int, space: SearchSpace, progress: Progress) -> None:
    if done < space.search.trials:
        progress.log(f"Every candidate was tried: {done} finished trials of the {space.search.trials} asked for.")


def _waiting(study: SearchStudy, controls: Sequence[Control]) -> list[Control]:
    """The controls that have neither finished nor failed."""
    ended = {record.id for record in study.controls} | study.failed_controls.keys()
    return [control for control in controls if control.id not in ended]


def _seconds_of_controls(study: SearchStudy, controls: Sequence[Control]) -> float:
    """What the controls will take, judged by the trials so far."""
    seconds = [record.seconds for record in study.records]
    return fmean(seconds) * len(_waiting(study, controls)) if seconds else 0.0


def _run_controls(
    controls: Sequence[Control],
    study: SearchStudy,
    context: TrialContext,
    folder: RunFolder,
    space: SearchSpace,
    progress: Progress,
    deadline: float,
) -> None:
    """Train and score what is left of the controls; as with trials, the stitch layer is on disk before the record."""
    choices, waiting = control_choices(context.training), _waiting(study, controls)
    with progress.task("Controls", total=max(len(waiting), 1)) as task:
        for number, control in enumerate(waiting):
            if time.monotonic() > deadline:
                progress.log(f"{len(waiting) - number} controls were left out (search.timeout).")
                return
            try:
                outcome = run_trial(control.candidate, choices, context)
            except NonFiniteLoss as error:
                study.fail_control(control.id, str(error))
                progress.log(f"Control {control.id} failed: {error}")
                _log.warning("control %s failed: %s", control.id, error)
                continue
            record = _record(control.id, control.candidate, choices, outcome, context, control.kind)
            folder.save_stitch(record.id, trained_tensors(outcome.stitch, outcome.tuned))
            accuracy = record.correct / record.n
            study.add_record(record, values_of(space.objectives, accuracy, control.candidate.cost))
            _log.info("control %s finished: %s", control.id, record)
            task.advance()


def _count_together(study: SearchStudy, context: TrialContext, space: SearchSpace) -> int:
    return 1 if all(is_kept(c, context) for c in study.candidates) else space.cache.together


def _groups(proposals: Sequence[Proposal], context: TrialContext) -> list[list[Proposal]]:
    """Trials that run together: each alone where its features are kept, else all of one front anchor."""
    groups: dict[str | int, list[Proposal]] = {}
    for number, proposal in enumerate(proposals):
        candidate = proposal.candidate
        groups.setdefault(number if is_kept(candidate, context) else candidate.direction.front, []).append(proposal)
    return list(groups.values())


def _keep(
    proposal: Proposal,
    outcome: TrialOutcome | NonFiniteLoss,
    study: SearchStudy,
    context: TrialContext,
    folder: RunFolder,
    space: SearchSpace,
    progress: Progress,
) -> None:
    number = proposal.trial.number
    if isinstance(outcome, NonFiniteLoss):
        study.fail(proposal, str(outcome))
        progress.log(f"Trial {number} failed: {outcome}")
        _log.warning("trial %d failed: %s", number, outcome)
        return
    record = _record(hybrid_id(number), proposal.candidate, proposal.choices, outcome, context)
    folder.save_stitch(record.id, trained_tensors(outcome.stitch, outcome.tuned))
    accuracy = record.correct / record.n
    study.finish(proposal, record, values_of(space.objectives, accuracy, proposal.candidate.cost))
    _log.info("trial %d finished: %s", number, record)


def _record(
    id: str,
    candidate: Candidate,
    choices: TrainingChoices,
    outcome: TrialOutcome,
    context: TrialContext,
    control: str | None = None,
) -> TrialRecord:
    return TrialRecord(
        id=id,
        front=candidate.direction.front,
        front_cut=candidate.front_cut,
        back=candidate.direction.back,
        back_cut=candidate.back_cut,
        order="self" if control == "self" else candidate.direction.order,
        score=candidate.score if math.isfinite(candidate.score) else None,
        rank=candidate.rank,
        lr=choices.lr,
        epochs=choices.epochs,
        images=len(context.train),
        macs=candidate.cost.macs,
        params=candidate.cost.params,
        stitch_kind=candidate.plan.kind,
        stitch_params=candidate.plan.cost.params,
        r2=outcome.r2,
        correct=outcome.correct,
        n=outcome.seen,
        seconds=round(outcome.seconds, 3),
        tune=choices.tune,
        scores=dict(candidate.scores),
        control=control,
        memory=candidate.cost.memory,
        latency=candidate.cost.latency,
        finished=round(context.clock.elapsed(), 3),
    )
