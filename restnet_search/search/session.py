"""Run the trials that a study asks for, and keep what each reached."""

from __future__ import annotations

import logging
import time

from restnet_search.progress import Progress
from restnet_search.search.run_folder import RunFolder
from restnet_search.search.study import Proposal, SearchStudy, TrialRecord, hybrid_id, values_of
from restnet_search.search.trial import NonFiniteLoss, TrialContext, TrialOutcome, run_trial
from restnet_search.space.schema import SearchSpace

__all__ = ["run_trials"]

_log = logging.getLogger("restnet_search")


def run_trials(
    study: SearchStudy, context: TrialContext, folder: RunFolder, space: SearchSpace, progress: Progress
) -> None:
    """Run trials until the space's number has finished, its timeout has passed, or no candidate is left.

    A finished trial's stitch layer is on disk before the study says that it finished, so a kill at any moment loses at
    most the trial under way. A trial whose loss is not finite fails with its reason, and the next one is asked.
    """
    deadline = time.monotonic() + (space.search.timeout or float("inf"))
    done = len(study.records)
    with progress.task("Trials", total=space.search.trials) as task:
        task.advance(done)
        for proposal in study.asks():
            _run_one(proposal, study, context, folder, space, progress)
            finished = len(study.records)
            task.advance(finished - done)
            done = finished
            if time.monotonic() > deadline:
                progress.log(f"Stopped after {space.search.timeout:g} s with {done} finished trials (search.timeout).")
                return
    if done < space.search.trials:
        progress.log(f"Every candidate was tried: {done} finished trials of the {space.search.trials} asked for.")


def _run_one(
    proposal: Proposal,
    study: SearchStudy,
    context: TrialContext,
    folder: RunFolder,
    space: SearchSpace,
    progress: Progress,
) -> None:
    number = proposal.trial.number
    try:
        outcome = run_trial(proposal.candidate, proposal.choices, context)
    except NonFiniteLoss as error:
        study.fail(proposal, str(error))
        progress.log(f"Trial {number} failed: {error}")
        _log.warning("trial %d failed: %s", number, error)
        return
    record = _record(proposal, outcome, context)
    folder.save_stitch(record.id, outcome.stitch.state_dict())
    accuracy = record.correct / record.n
    study.finish(proposal, record, values_of(space.objectives, accuracy, proposal.candidate.cost))
    _log.info("trial %d finished: %s", number, record)


def _record(proposal: Proposal, outcome: TrialOutcome, context: TrialContext) -> TrialRecord:
    candidate, choices = proposal.candidate, proposal.choices
    return TrialRecord(
        id=hybrid_id(proposal.trial.number),
        front=candidate.direction.front,
        front_cut=candidate.front_cut,
        back=candidate.direction.back,
        back_cut=candidate.back_cut,
        order=candidate.direction.order,
        score=candidate.score,
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
        memory=candidate.cost.memory,
        latency=candidate.cost.latency,
    )
