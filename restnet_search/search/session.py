"""Run the trials that a study asks for, and keep what each reached."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from restnet_search.progress import Progress
from restnet_search.search.candidates import Candidate
from restnet_search.search.hybrids import trained_tensors
from restnet_search.search.run_folder import RunFolder
from restnet_search.search.study import Proposal, SearchStudy, TrialRecord, hybrid_id, values_of
from restnet_search.search.together import run_together
from restnet_search.search.trial import NonFiniteLoss, TrialContext, TrialOutcome, run_trial
from restnet_search.space.schema import SearchSpace

__all__ = ["run_trials"]

_log = logging.getLogger("restnet_search")


def run_trials(
    study: SearchStudy, context: TrialContext, folder: RunFolder, space: SearchSpace, progress: Progress
) -> None:
    """Run trials until the space's number has finished, its timeout has passed, or no candidate is left.

    A finished trial's stitch layer is on disk before the study says that it finished, so a kill at any moment loses at
    most the trials under way. A trial whose loss is not finite fails with its reason, and the next one is asked.

    Where the features of a front can be kept, trials run one by one. Where they are too large, ``cache.together``
    trials are asked at a time, and those that share a front anchor are trained on one pass over the images.
    """
    deadline = time.monotonic() + (space.search.timeout or float("inf"))
    done = len(study.records)
    with progress.task("Trials", total=space.search.trials) as task:
        task.advance(done)
        for proposals in study.asks_together(_count_together(study, context, space)):
            for group in _groups(proposals, context):
                for proposal, outcome in zip(group, _outcomes(group, context), strict=True):
                    _keep(proposal, outcome, study, context, folder, space, progress)
                finished = len(study.records)
                task.advance(finished - done)
                done = finished
            if time.monotonic() > deadline:
                progress.log(f"Stopped after {space.search.timeout:g} s with {done} finished trials (search.timeout).")
                return
    if done < space.search.trials:
        progress.log(f"Every candidate was tried: {done} finished trials of the {space.search.trials} asked for.")


def _count_together(study: SearchStudy, context: TrialContext, space: SearchSpace) -> int:
    return 1 if all(_is_kept(c, context) for c in study.candidates) else space.cache.together


def _is_kept(candidate: Candidate, context: TrialContext) -> bool:
    return context.store.keeps(candidate.direction.front, candidate.front_cut, context.train)


def _groups(proposals: Sequence[Proposal], context: TrialContext) -> list[list[Proposal]]:
    """Trials that run together: each alone where its features are kept, else all of one front anchor."""
    groups: dict[str | int, list[Proposal]] = {}
    for number, proposal in enumerate(proposals):
        candidate = proposal.candidate
        groups.setdefault(number if _is_kept(candidate, context) else candidate.direction.front, []).append(proposal)
    return list(groups.values())


def _outcomes(group: Sequence[Proposal], context: TrialContext) -> list[TrialOutcome | NonFiniteLoss]:
    if not _is_kept(group[0].candidate, context):
        return run_together([(proposal.candidate, proposal.choices) for proposal in group], context)
    try:
        return [run_trial(proposal.candidate, proposal.choices, context) for proposal in group]
    except NonFiniteLoss as error:
        return [error]  # such a group has one trial


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
    record = _record(proposal, outcome, context)
    folder.save_stitch(record.id, trained_tensors(outcome.stitch, outcome.tuned))
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
        tune=choices.tune,
    )
