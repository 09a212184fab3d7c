"""Run the trials that a study asks for, then the controls, and keep what each reached."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from restnet_search.anchors.resume import forget, read_epoch, write_epoch
from restnet_search.progress import Progress
from restnet_search.search.candidates import Candidate
from restnet_search.search.controls import Control, control_choices
from restnet_search.search.hybrids import trained_tensors
from restnet_search.search.jobs import Job, Workers, run_jobs
from restnet_search.search.joint import JointOutcome, JointTraining, budget_like_independent
from restnet_search.search.records import HybridRecord, Part, Score, Stitch, hybrid_id, joint_id
from restnet_search.search.run_folder import RunFolder
from restnet_search.search.study import Proposal, SearchStudy, values_of
from restnet_search.search.together import is_kept
from restnet_search.search.trial import NonFiniteLoss, TrainingChoices, TrialContext, TrialOutcome
from restnet_search.space.schema import SearchSpace

__all__ = ["run_trials"]

_CHECKPOINT_STEPS = 100
_AHEAD = 2
"""Trials per worker that may have been asked and not been told: one under way, and one that waits for its turn."""

_log = logging.getLogger("restnet_search")


@dataclass(frozen=True)
class _Sitting:
    """What the steps of one sitting of a search share; ``deadline`` is on the monotonic clock."""

    study: SearchStudy
    context: TrialContext
    folder: RunFolder
    space: SearchSpace
    progress: Progress
    controls: Sequence[Control]
    deadline: float
    workers: Workers | None


def run_trials(
    study: SearchStudy,
    context: TrialContext,
    folder: RunFolder,
    space: SearchSpace,
    progress: Progress,
    controls: Sequence[Control] = (),
    *,
    spent: float = 0.0,
    workers: Workers | None = None,
) -> None:
    """Run trials until the space's number has finished, its timeout has passed, or no candidate is left.

    A finished trial's stitch layer is on disk before the study says that it finished, so a kill at any moment loses at
    most the trials under way. A trial whose loss is not finite fails with its reason, and the next one is asked.

    Where the features of a front can be kept, trials run one by one. Where they are too large,
    ``cache.trials_per_pass`` trials are asked at a time, and those that share a front anchor are trained on one
    pass over the images.

    Under ``strategy: joint``, all candidates are trained together first, and then come into the study one by one.

    The controls come last, so that the search goes as it would without them; of a timeout, the time that they will
    take is kept back for them, and ``spent`` seconds have passed already (early decisions).

    ``workers`` train trials and controls instead of this process; which stitch points are asked follows from the seed
    and their number, what each reaches from the seed and the stitch point.
    """
    deadline = time.monotonic() + (space.search.timeout or float("inf")) - spent
    run = _Sitting(study, context, folder, space, progress, controls, deadline, workers)
    if space.search.strategy == "joint":
        _run_jointly(run)
    else:
        _run_asked(run)
    _run_controls(run)


def _run_asked(run: _Sitting) -> None:
    study, context, space, workers = run.study, run.context, run.space, run.workers
    done = len(study.records)
    together = _count_together(study, context, space)
    if workers is not None and together == 1:
        _run_ahead(run, workers)
        return
    with run.progress.task("Trials", total=space.search.trials) as task:
        task.advance(done)
        for proposals in study.asks_together(together * (workers.count if workers else 1)):
            groups = _groups(proposals, context, together)
            jobs = (Job(_trials(group), together=not is_kept(group[0].candidate, context)) for group in groups)
            for group, outcomes in zip(groups, run_jobs(jobs, context, workers), strict=True):
                for proposal, outcome in zip(group, outcomes, strict=True):
                    _keep(proposal, outcome, run)
                finished = len(study.records)
                task.advance(finished - done)
                done = finished
            if time.monotonic() + _seconds_of_controls(run) > run.deadline:
                _say_stopped(done, run)
                break
        else:
            _say_if_exhausted(done, run)


def _run_ahead(run: _Sitting, workers: Workers) -> None:
    """Keep every worker busy with a trial, so that what is asked does not depend on which trial ends first.

    Trials are told in the order in which they were asked, and as late as that: one is asked where a worker is free and
    fewer than ``_AHEAD`` per worker were asked that have not been told; where not, the first of those is told. So what
    the sampler knew at an ask depends on the number of workers alone, and a long trial holds up the others only when
    that many have been asked behind it. What has ended is kept at once, told or not.
    """
    study = run.study
    asked: deque[tuple[int, Proposal]] = deque()
    ended: dict[int, HybridRecord | NonFiniteLoss] = {}
    stopped = False
    workers.use(run.context)

    def tell_first() -> None:
        ticket, proposal = asked.popleft()
        _tell(proposal, ended.pop(ticket), run)

    with run.progress.task("Trials", total=run.space.search.trials) as task:
        task.advance(len(study.records))
        while True:
            while workers.room and not stopped:
                room = len(asked) < _AHEAD * workers.count
                proposal = study.ask_beside([proposal for _, proposal in asked]) if room else None
                if proposal is not None:
                    asked.append((workers.submit(Job(_trials([proposal]))), proposal))
                elif asked and asked[0][0] in ended:
                    tell_first()
                else:
                    break
            if len(ended) == len(asked):  # nothing is under way, and nothing more to ask
                break
            proposals = dict(asked)
            for ticket, (outcome,) in workers.wait().items():
                ended[ticket] = _keep_untold(proposals[ticket], outcome, run)
                task.advance(isinstance(outcome, TrialOutcome))
            known = [record.seconds for record in ended.values() if isinstance(record, HybridRecord)]
            stopped = time.monotonic() + _seconds_of_controls(run, known) > run.deadline
        while asked:
            tell_first()
    done = len(study.records)
    if stopped:
        _say_stopped(done, run)
    else:
        _say_if_exhausted(done, run)


def _run_jointly(run: _Sitting) -> None:
    """Train all candidates together, with a checkpoint from which a killed search goes on; then score each."""
    study, context, folder, space, progress = run.study, run.context, run.folder, run.space, run.progress
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
        reserve = _joint_reserve(training, _waiting(run), context)
        training.train(save, every=_CHECKPOINT_STEPS, advance=task.advance, deadline=run.deadline, reserve=reserve)
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
            _keep_joint(joint_id(number), outcome, budget.lr, run)
            task.advance()
    forget(folder.joint)


def _joint_reserve(training: JointTraining, waiting: Sequence[Control], context: TrialContext) -> int:
    """Steps' worth of time that scoring and the controls will take, at most."""
    scoring = len(training.candidates) * math.ceil(len(context.val) / context.batch)
    epochs = control_choices(context.training).epochs + 1  # and one for start and scoring
    return scoring + len(waiting) * epochs * math.ceil(len(context.train) / context.batch)


def _keep_joint(id: str, outcome: JointOutcome, lr: float, run: _Sitting) -> None:
    record = _record(id, outcome.candidate, TrainingChoices(lr, epochs=1), outcome.trial, run.context)
    record = replace(record, strategy="joint", images=outcome.images)
    run.folder.save_stitch(id, trained_tensors(outcome.trial.stitch, {}))
    run.study.add_record(record, values_of(run.space.objectives, record.val.top1, outcome.candidate.cost))
    _log.info("joint hybrid %s finished: %s", id, record)


def _say_stopped(done: int, run: _Sitting) -> None:
    timeout = run.space.search.timeout
    run.progress.log(f"Stopped after {timeout:g} s with {done} finished trials (search.timeout).")


def _say_if_exhausted(done: int, run: _Sitting) -> None:
    asked = run.space.search.trials
    if done < asked:
        run.progress.log(f"Every candidate was tried: {done} finished trials of the {asked} asked for.")


def _waiting(run: _Sitting) -> list[Control]:
    """The controls that have neither finished nor failed."""
    ended = {record.id for record in run.study.controls} | run.study.failed_controls.keys()
    return [control for control in run.controls if control.id not in ended]


def _seconds_of_controls(run: _Sitting, untold: Sequence[float] = ()) -> float:
    """What the controls will take, judged by the trials so far; ``untold`` are seconds that the study lacks."""
    seconds = [*(record.seconds for record in run.study.records), *untold]
    count = run.workers.count if run.workers else 1
    return fmean(seconds) * math.ceil(len(_waiting(run)) / count) if seconds else 0.0


def _run_controls(run: _Sitting) -> None:
    """Train and score what is left of the controls; as with trials, the stitch layer is on disk before the record."""
    study, context, progress = run.study, run.context, run.progress
    choices, waiting = control_choices(context.training), _waiting(run)

    def jobs() -> Iterator[Job]:
        for number, control in enumerate(waiting):
            if time.monotonic() > run.deadline:
                progress.log(f"{len(waiting) - number} controls were left out (search.timeout).")
                return
            yield Job(((control.candidate, choices),))

    with progress.task("Controls", total=max(len(waiting), 1)) as task:
        for control, (outcome,) in zip(waiting, run_jobs(jobs(), context, run.workers), strict=False):
            if isinstance(outcome, NonFiniteLoss):
                study.fail_control(control.id, str(outcome))
                progress.log(f"Control {control.id} failed: {outcome}")
                _log.warning("control %s failed: %s", control.id, outcome)
                continue
            record = _record(control.id, control.candidate, choices, outcome, context, control.kind)
            run.folder.save_stitch(record.id, trained_tensors(outcome.stitch, outcome.tuned))
            accuracy = record.val.top1
            study.add_record(record, values_of(run.space.objectives, accuracy, control.candidate.cost))
            _log.info("control %s finished: %s", control.id, record)
            task.advance()


def _count_together(study: SearchStudy, context: TrialContext, space: SearchSpace) -> int:
    return 1 if all(is_kept(c, context) for c in study.candidates) else space.cache.trials_per_pass


def _groups(proposals: Sequence[Proposal], context: TrialContext, together: int) -> list[list[Proposal]]:
    """Trials that run together: each alone where its features are kept, else up to ``together`` of one front anchor."""
    groups: dict[str | int, list[Proposal]] = {}
    for number, proposal in enumerate(proposals):
        candidate = proposal.candidate
        groups.setdefault(number if is_kept(candidate, context) else candidate.direction.front, []).append(proposal)
    return [group[start : start + together] for group in groups.values() for start in range(0, len(group), together)]


def _trials(proposals: Sequence[Proposal]) -> tuple[tuple[Candidate, TrainingChoices], ...]:
    return tuple((proposal.candidate, proposal.choices) for proposal in proposals)


def _keep(proposal: Proposal, outcome: TrialOutcome | NonFiniteLoss, run: _Sitting) -> None:
    _tell(proposal, _ended(proposal, outcome, run), run)


def _keep_untold(
    proposal: Proposal, outcome: TrialOutcome | NonFiniteLoss, run: _Sitting
) -> HybridRecord | NonFiniteLoss:
    """Keep what a kill must not lose; a trial that failed would fail again."""
    ended = _ended(proposal, outcome, run)
    if isinstance(ended, HybridRecord):
        run.study.keep_untold(proposal, ended, _values(proposal, ended, run.space))
    return ended


def _tell(proposal: Proposal, ended: HybridRecord | NonFiniteLoss, run: _Sitting) -> None:
    if isinstance(ended, NonFiniteLoss):
        run.study.fail(proposal, str(ended))
    else:
        run.study.finish(proposal, ended, _values(proposal, ended, run.space))


def _values(proposal: Proposal, record: HybridRecord, space: SearchSpace) -> list[float]:
    return values_of(space.objectives, record.val.top1, proposal.candidate.cost)


def _ended(proposal: Proposal, outcome: TrialOutcome | NonFiniteLoss, run: _Sitting) -> HybridRecord | NonFiniteLoss:
    """Write the stitch layer of a finished trial, and say what became of it."""
    number = proposal.trial.number
    if isinstance(outcome, NonFiniteLoss):
        run.progress.log(f"Trial {number} failed: {outcome}")
        _log.warning("trial %d failed: %s", number, outcome)
        return outcome
    record = _record(hybrid_id(number), proposal.candidate, proposal.choices, outcome, run.context)
    run.folder.save_stitch(record.id, trained_tensors(outcome.stitch, outcome.tuned))
    _log.info("trial %d finished: %s", number, record)
    return record


def _record(
    id: str,
    candidate: Candidate,
    choices: TrainingChoices,
    outcome: TrialOutcome,
    context: TrialContext,
    control: str | None = None,
) -> HybridRecord:
    return HybridRecord(
        id=id,
        front=Part(candidate.direction.front, candidate.front_cut),
        back=Part(candidate.direction.back, candidate.back_cut),
        order="self" if control == "self" else candidate.direction.order,
        stitch=Stitch(candidate.plan.kind, candidate.plan.cost.params),
        score=candidate.score if math.isfinite(candidate.score) else None,
        rank=None if control == "self" else candidate.rank + 1,
        lr=choices.lr,
        epochs=choices.epochs,
        images=len(context.train),
        macs=candidate.cost.macs,
        params=candidate.cost.params,
        r2=outcome.r2,
        val=Score.of(outcome.correct, outcome.seen),
        seconds=round(outcome.seconds, 3),
        tune=choices.tune,
        match_epochs=choices.match_epochs,
        distill=choices.distill,
        scores=dict(candidate.scores),
        control=control,
        memory=candidate.cost.memory,
        latency=candidate.cost.latency,
        finished=round(context.clock.elapsed(), 3),
    )
