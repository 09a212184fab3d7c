"""Decide early: candidates climb rungs, each dearer and surer than the one before, and few are trained in full.

The rungs are the cost table and the ranker (both before this module), the closed-form stitch, short training, and full
training. The val images of these rungs are some of those that score the trials: val decides everywhere in a search, and
test is untouched. Training images would be no honest measure, for the anchors have learned most of them by heart.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from restnet_search.data import Split
from restnet_search.data.sampling import stratified_sample
from restnet_search.progress import Progress
from restnet_search.search.candidates import Candidate, CandidateKey, Enumeration
from restnet_search.search.closed_form import closed_form_scores
from restnet_search.search.controls import control_choices
from restnet_search.search.jobs import Job, Workers, run_jobs
from restnet_search.search.opening import open_context
from restnet_search.search.passes import Reuse
from restnet_search.search.prepare import Prepared
from restnet_search.search.promotion import Entrant, Merit, Place, cost_ranges, promote
from restnet_search.search.records import Dropped, RungSummary
from restnet_search.search.rungs import RungName, RungScore, RungStudy, dropped_candidate
from restnet_search.search.together import is_kept
from restnet_search.search.trial import NonFiniteLoss, TrialContext
from restnet_search.space.schema import SearchSpace

__all__ = ["Early", "EarlyJob", "decide_early", "enters"]

_RUNGS: Mapping[RungName, str] = {"closed_form": "Closed-form stitches", "short": "Short training"}
_PER_WAY = 2  # candidates of every front anchor and back anchor that always go on
_SHARE_OF_TIMEOUT = 0.5

_log = logging.getLogger("restnet_search")


@dataclass(frozen=True)
class Early:
    """What became of the candidates before any full training.

    Attributes:
        survivors: Those that may be trained in full.
        merits: Of the survivors, by candidate; empty where no rung was decided.
        rungs: That were run.
        dropped: By the ranker and the rungs.
        images_seen: Training images in short training, each as often as it was seen.
        reuse: Of features, in this sitting.
    """

    survivors: tuple[Candidate, ...]
    merits: Mapping[CandidateKey, Merit]
    rungs: tuple[RungSummary, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    images_seen: int = 0
    reuse: Reuse | None = None


@dataclass(frozen=True)
class EarlyJob:
    """What early decisions need of a search; ``train`` are the images that its trials see.

    ``workers`` do the short training; closed forms share their sums, so they are solved in this process.
    """

    space: SearchSpace
    prepared: Prepared
    train: Split
    val: Split
    cache: Path
    progress: Progress
    warn: Callable[[str], None] = _log.warning
    workers: Workers | None = None

    def context(self, candidates: Sequence[Candidate]) -> TrialContext:
        """A trial's context on few images, with a store of its own: the trials keep features for survivors alone."""
        spec, seed = self.space.halving, self.space.search.seed
        fitted = min(spec.images, self.space.stitch.images, len(self.train))
        short = max(fitted, math.ceil(spec.short_images * len(self.train))) if spec.short < 1 else fitted
        train = self.train.subset(torch.arange(short))
        fit = train.subset(torch.arange(fitted)) if fitted < short else train  # one split: one pass for both
        labels, generator = self.val.labels.numpy(), np.random.default_rng([seed, 2])
        val = self.val.subset(stratified_sample(labels, min(spec.images, len(labels)), generator))
        return open_context(
            self.space,
            self.prepared,
            candidates,
            (train, fit, val),
            cache=self.cache,
            progress=self.progress,
            warn=self.warn,
            solved=True,
        )


def enters(space: SearchSpace, rung: RungName, candidates: int) -> bool:
    """Whether so many candidates go through a rung: where it could drop some, and ``early`` wants it."""
    spec = space.halving
    share = spec.closed_form if rung == "closed_form" else spec.short
    if spec.when == "never" or share == 1 or (rung == "short" and space.training.epochs[1] == 0):
        return False
    return candidates > space.search.trials * (2 if spec.when == "auto" else 1)


def decide_early(job: EarlyJob, study: Path, enumeration: Enumeration) -> Early:
    """Run the rungs, or what is left of them, and say which candidates go on.

    Every score is kept as it comes, and what a rung decides follows from the scores alone; so a search that was killed
    goes on as an uninterrupted one would. Of ``search.timeout``, half is what the rungs may take: a rung that has no
    time left drops nothing.

    Args:
        study: The file of the search's study; its trials must not have been opened yet, unless rungs were before.
        enumeration: The candidates, and what the ranker passed over.
    """
    left = list(enumeration.candidates)
    # stitch layers that are trained together are not dropped one by one
    joint = job.space.search.strategy == "joint"
    rungs = None if joint else RungStudy.open(study, job.space.objectives)
    if rungs is None:
        return Early(tuple(left), {})
    rungs.rank_out([_ranked_out(candidate, job.space.top_k) for candidate in enumeration.passed_over])
    merits: dict[CandidateKey, Merit] = {}
    limits = cost_ranges([candidate.cost.macs for candidate in left], job.space.halving.buckets)
    deadline = time.monotonic() + _SHARE_OF_TIMEOUT * (job.space.search.timeout or float("inf"))
    context: TrialContext | None = None
    summaries: list[RungSummary] = []
    for rung in _RUNGS:
        if not enters(job.space, rung, len(left)):
            continue
        if rungs.finished(rung) is None:
            context = context or job.context(left)
            _score(rung, left, rungs, context, job, deadline)
        scores = rungs.scores(rung)
        if all(candidate.key in scores for candidate in left):  # else it ran out of time
            merits = {c.key: _merit(scores[c.key], merits.get(c.key, (_finite(c.score),))) for c in left}
            entrants = [Entrant(c.key, c.cost.macs, merits[c.key]) for c in left]
            share = job.space.halving.closed_form if rung == "closed_form" else job.space.halving.short
            places = promote(entrants, limits, share, at_least=job.space.search.trials, per_way=_PER_WAY)
            gone = [(c, place) for c, place in zip(left, places, strict=True) if not place.kept]
            rungs.drop(_dropped(candidate, place, rung, scores[candidate.key]) for candidate, place in gone)
            entered, left = len(left), [c for c, place in zip(left, places, strict=True) if place.kept]
        else:
            entered = len(left)
        summary = RungSummary(rung, entered, len(left), round(rungs.seconds(rung), 3))
        if rungs.finished(rung) is None:
            rungs.finish(summary)
        summaries.append(summary)
        _log.info("rung %s: %d candidates, %d went on", rung, entered, len(left))
    return Early(
        survivors=tuple(left),
        merits={candidate.key: merits[candidate.key] for candidate in left if merits},
        rungs=tuple(summaries),
        dropped=(*rungs.ranked_out, *rungs.pruned),
        images_seen=sum(score.images for rung in _RUNGS for score in rungs.scores(rung).values()),
        reuse=context.store.reuse if context else None,
    )


def _score(
    rung: RungName,
    candidates: Sequence[Candidate],
    rungs: RungStudy,
    context: TrialContext,
    job: EarlyJob,
    deadline: float,
) -> None:
    """Score what has no score yet, until the deadline."""
    known = rungs.scores(rung)
    missing = [candidate for candidate in candidates if candidate.key not in known]
    run = closed_form_scores if rung == "closed_form" else _short_scores(job)
    with job.progress.task(_RUNGS[rung], total=len(candidates)) as task:
        task.advance(len(candidates) - len(missing))
        waiting = len(missing)
        for scores, seconds in run(missing, context):
            rungs.keep(rung, scores, seconds)
            task.advance(len(scores))
            waiting -= len(scores)
            if waiting and time.monotonic() > deadline:
                job.warn(f"{_RUNGS[rung]}: no time left for {waiting} candidates, so none is dropped (search.timeout).")
                return


def _short_scores(
    job: EarlyJob,
) -> Callable[[Sequence[Candidate], TrialContext], Iterator[tuple[list[RungScore], float]]]:
    """One epoch over the context's images; as :func:`closed_form_scores`."""

    def run(candidates: Sequence[Candidate], context: TrialContext) -> Iterator[tuple[list[RungScore], float]]:
        choices = replace(control_choices(context.training), epochs=1)
        begun: deque[list[Candidate]] = deque()

        def jobs() -> Iterator[Job]:
            for group in _groups(candidates, context, job.space.cache.trials_per_pass):
                begun.append(group)
                trials = tuple((candidate, choices) for candidate in group)
                yield Job(trials, together=not is_kept(group[0], context))

        started = time.perf_counter()
        for outcomes in run_jobs(jobs(), context, job.workers):
            images, n = len(context.train), len(context.val)
            scores = [
                RungScore(candidate.key, None, n, images=images, reason=str(outcome))
                if isinstance(outcome, NonFiniteLoss)
                else RungScore(candidate.key, outcome.correct / outcome.seen, n, images=images)
                for candidate, outcome in zip(begun.popleft(), outcomes, strict=True)
            ]
            yield scores, time.perf_counter() - started
            started = time.perf_counter()

    return run


def _groups(candidates: Sequence[Candidate], context: TrialContext, together: int) -> Iterator[list[Candidate]]:
    """Each alone where the features of its front are kept, else some of one front anchor."""
    ordered = sorted(candidates, key=lambda candidate: candidate.key)
    yield from ([candidate] for candidate in ordered if is_kept(candidate, context))
    passing = [candidate for candidate in ordered if not is_kept(candidate, context)]
    for _, same in groupby(passing, key=lambda candidate: candidate.direction.front):
        group = list(same)
        yield from (group[start : start + together] for start in range(0, len(group), together))


def _merit(score: RungScore, before: Merit) -> Merit:
    return (-1.0 if score.top1 is None else score.top1, score.tie, *before)


def _finite(score: float) -> float:
    return score if math.isfinite(score) else -math.inf


def _dropped(candidate: Candidate, place: Place, rung: RungName, score: RungScore) -> Dropped:
    told = f"place {place.place} of {place.of} in its range of FLOPs; {place.went_on} went on"
    reason = told if score.reason is None else f"{score.reason}; {told}"
    return dropped_candidate(candidate, rung, score.top1, score.n, reason)


def _ranked_out(candidate: Candidate, top_k: int) -> Dropped:
    score = candidate.score if math.isfinite(candidate.score) else None
    reason = f"place {candidate.rank + 1} among the partners of its front; top_k is {top_k}"
    return dropped_candidate(candidate, "ranker", score, None, reason)
