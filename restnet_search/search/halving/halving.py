"""Successive halving: candidates climb rungs, each dearer and surer than the one before, and few are trained in full.

The rungs are the cost table and the ranker (both before this module), the closed-form stitch, short training, and full
training. The val images of these rungs are some of those that score the trials: val decides everywhere in a search, and
test is untouched. Training images would be no honest measure, for the anchors have learned most of them by heart.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from restnet_search.data.sampling import stratified_sample
from restnet_search.search.halving.promotion import (
    Configuration,
    Promotion,
    Scores,
    best_of_directions,
    chance_margin,
    cost_ranges,
    on_a_front,
    promote,
)
from restnet_search.search.halving.rungs import RungName, RungStudy, dropped_candidate
from restnet_search.search.points.candidates import Candidate, CandidateKey, Enumeration
from restnet_search.search.points.keeping import BUCKETS, TOLERANCE
from restnet_search.search.prepare.images import SearchImages
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.run.records import CacheStatistics, Dropped, RungSummary
from restnet_search.search.run.session import Session
from restnet_search.search.training.choices import control_choices
from restnet_search.search.training.closed_form import MEMORY, RungScore, closed_form_jobs
from restnet_search.search.training.context import TrialContext, TrialImages
from restnet_search.search.training.jobs import Advance, Engine, LocalEngine, TrialJob, group_by_pass, run_jobs
from restnet_search.search.training.stitch_trainer import FailedTrial
from restnet_search.search.training.trial_setup import fill_store, open_context, with_teachers
from restnet_search.space.schema import SearchSpace

__all__ = ["Halving", "halve", "takes_part"]

_RUNGS: Mapping[RungName, str] = {"closed_form": "Closed-form stitches", "short": "Short training"}
_PER_DIRECTION = 2  # candidates of every front anchor and back anchor that always go on
_SHARE_OF_TIMEOUT = 0.5

_log = logging.getLogger("restnet_search")


@dataclass(frozen=True)
class Halving:
    """The fate of the candidates before any full training.

    Attributes:
        survivors: Those that may be trained in full.
        scores: Of the survivors, by candidate, the latest first; empty where no rung was decided.
        trained: True where the latest scores are those of a training: then they may be compared between directions.
        reached: Accuracies on val, by rung and candidate, of all that were scored.
        rungs: That were run.
        dropped: By the ranker and the rungs.
        images_seen: Training images in short training, each as often as it was seen.
        statistics: Of the feature store in this session.
    """

    survivors: tuple[Candidate, ...]
    scores: Mapping[CandidateKey, Scores] = field(default_factory=dict)
    trained: bool = False
    reached: Mapping[str, Mapping[CandidateKey, float]] = field(default_factory=dict)
    rungs: tuple[RungSummary, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    images_seen: int = 0
    statistics: CacheStatistics | None = None


def takes_part(space: SearchSpace, rung: RungName, candidates: int) -> bool:
    """Say whether so many candidates go through a rung: where it could drop some, and ``halving`` wants it."""
    spec = space.halving
    share = spec.closed_form if rung == "closed_form" else spec.short
    if spec.when == "never" or share == 1 or (rung == "short" and space.training.epochs[1] == 0):
        return False
    return candidates > space.search.trials * (2 if spec.when == "auto" else 1)


def halve(
    session: Session, prepared: Prepared, images: SearchImages, enumeration: Enumeration, engine: Engine
) -> Halving:
    """Run the rungs, or what is left of them, and say which candidates go on.

    Every score is kept as it comes, and what a rung decides follows from the scores alone; so a search that was killed
    goes on as an uninterrupted one would. Of ``search.timeout``, half is what the rungs may take: a rung that has no
    time left drops nothing.

    Args:
        session: Of the search; the study in its folder has no trials yet, unless rungs were opened before.
        prepared: The anchors.
        images: Of the search; the rungs see some of them.
        enumeration: The candidates, and what the ranker passed over.
        engine: Solves closed forms and does the short training.
    """
    with session.clock.stage("halving"):
        left = list(enumeration.candidates)
        # stitch layers that are trained as one network are not dropped one by one
        rungs = None if session.trains_as_one else RungStudy.open(session.folder.study, session.space.objectives)
        if rungs is None:
            return Halving(tuple(left))
        run = _Rungs(session, prepared, images, engine, rungs)
        rungs.rank_out([_ranked_out(candidate, session.space) for candidate in enumeration.passed_over])
        limits = cost_ranges([candidate.cost.macs for candidate in left], session.space.halving.buckets)
        scores: dict[CandidateKey, Scores] = {}
        summaries: list[RungSummary] = []
        trained = False
        for rung in _RUNGS:
            if takes_part(session.space, rung, len(left)):
                entered, before = len(left), scores
                left, scores = run.climb(rung, left, scores, limits)
                trained |= rung == "short" and scores != before
                summaries.append(run.summary(rung, entered, len(left)))
        return Halving(
            survivors=tuple(left),
            scores={candidate.key: scores[candidate.key] for candidate in left if scores},
            trained=trained,
            reached={
                rung: {key: one.top1 for key, one in rungs.scores(rung).items() if one.top1 is not None}
                for rung in _RUNGS
            },
            rungs=tuple(summaries),
            dropped=(*rungs.ranked_out, *rungs.pruned),
            images_seen=sum(score.images for rung in _RUNGS for score in rungs.scores(rung).values()),
            statistics=run.statistics,
        )


class _Rungs:
    """The rungs of one search, with a store of their own: the trials keep features for survivors alone."""

    def __init__(
        self, session: Session, prepared: Prepared, images: SearchImages, engine: Engine, kept: RungStudy
    ) -> None:
        self._session, self._prepared, self._images = session, prepared, images
        self._engine, self._kept = engine, kept
        self._deadline = time.monotonic() + _SHARE_OF_TIMEOUT * (session.space.search.timeout or float("inf"))
        self._context: TrialContext | None = None

    @property
    def statistics(self) -> CacheStatistics | None:
        return self._context.store.statistics if self._context else None

    def climb(
        self,
        rung: RungName,
        candidates: list[Candidate],
        before: Mapping[CandidateKey, Scores],
        limits: Sequence[float],
    ) -> tuple[list[Candidate], dict[CandidateKey, Scores]]:
        """Score the candidates at a rung, and drop those that go no further.

        Args:
            rung: To climb.
            candidates: That have come so far.
            before: Their scores at the rung before; empty at the first.
            limits: Of the ranges of MACs.

        Returns:
            The candidates that go on, and the scores of all, those of this rung in front. Where the rung ran out of
            time it drops none, and the scores are those of the rung before.
        """
        reached = self._reached(rung, candidates)
        if any(candidate.key not in reached for candidate in candidates):  # it ran out of time
            return candidates, dict(before)
        scores = {c.key: _scores(reached[c.key], before.get(c.key, (_finite(c.score),))) for c in candidates}
        if self._kept.finished(rung) is None:
            promotions = zip(candidates, self._promote(rung, candidates, scores, limits), strict=True)
            gone = [(candidate, promotion) for candidate, promotion in promotions if not promotion.kept]
            self._kept.drop(_dropped(one, promotion, rung, reached[one.key]) for one, promotion in gone)
        # what was dropped stays dropped, whatever rule a later version may have
        dropped = {one.key for one in self._kept.pruned if one.rung == rung}
        return [c for c in candidates if dropped.isdisjoint({c.key, (*c.key[:4], None)})], scores

    def summary(self, rung: RungName, entered: int, went_on: int) -> RungSummary:
        """Keep that a rung was decided; return what a report says of it."""
        summary = RungSummary(rung, entered, went_on, round(self._kept.seconds(rung), 3))
        if self._kept.finished(rung) is None:
            self._kept.finish(summary)
        _log.info("rung %s: %d candidates, %d went on", rung, entered, went_on)
        return summary

    def _reached(self, rung: RungName, candidates: Sequence[Candidate]) -> Mapping[CandidateKey, RungScore]:
        """Return the scores at a rung, after scoring what has none yet, until the deadline."""
        if self._kept.finished(rung) is None:
            self._context = self._context or self._open(candidates)
            if rung == "short":  # closed forms follow nobody
                self._context = with_teachers(self._context, self._session, self._prepared, self._engine)
            self._score(rung, candidates, self._context)
        return self._kept.scores(rung)

    def _promote(
        self,
        rung: RungName,
        candidates: Sequence[Candidate],
        scores: Mapping[CandidateKey, Scores],
        limits: Sequence[float],
    ) -> list[Promotion]:
        space = self._session.space
        share = space.halving.closed_form if rung == "closed_form" else space.halving.short
        configurations = [Configuration(c.key, c.cost.macs, scores[c.key]) for c in candidates]
        untrained = rung == "closed_form"
        margin = None if untrained else chance_margin(min(space.halving.images, len(self._images.val)))
        always = on_a_front(configurations, apart=untrained) | best_of_directions(configurations, _PER_DIRECTION)
        return promote(configurations, limits, share, space.search.trials, margin, always)

    def _open(self, candidates: Sequence[Candidate]) -> TrialContext:
        """Open a trial's context on few images."""
        spec, space = self._session.space.halving, self._session.space
        train, val = self._images.train, self._images.val
        fitted = min(spec.images, space.stitch.images, len(train))
        short = max(fitted, math.ceil(spec.short_images * len(train))) if spec.short < 1 else fitted
        train = train.subset(torch.arange(short))
        fit = train.subset(torch.arange(fitted)) if fitted < short else train  # one split: one pass for both
        labels, generator = val.labels.numpy(), np.random.default_rng([space.search.seed, 2])
        val = val.subset(stratified_sample(labels, min(spec.images, len(labels)), generator))
        images = TrialImages(train, fit, val)
        return open_context(self._session, self._prepared, candidates, images, solved=True)

    def _score(self, rung: RungName, candidates: Sequence[Candidate], context: TrialContext) -> None:
        known = self._kept.scores(rung)
        missing = [candidate for candidate in candidates if candidate.key not in known]
        if self._engine.count > 1 and missing:
            # here: the workers are still getting ready
            fill_store(missing, context, LocalEngine(), self._prepared.macs, self._session.progress)
        with self._session.progress.task(_RUNGS[rung], total=len(candidates)) as task:
            score = self._closed_forms if rung == "closed_form" else self._short
            task.advance(len(candidates) - len(missing))
            waiting = len(missing)
            for scores, seconds in _timed(score(missing, context, task.advance)):
                self._kept.keep(rung, scores, seconds)
                waiting -= len(scores)
                if waiting and time.monotonic() > self._deadline:
                    self._session.warn(
                        f"{_RUNGS[rung]}: no time left for {waiting} candidates, so none is dropped (search.timeout)."
                    )
                    return

    def _closed_forms(
        self, candidates: Sequence[Candidate], context: TrialContext, advance: Advance
    ) -> Iterator[list[RungScore]]:
        jobs = closed_form_jobs(candidates, context, MEMORY // self._engine.count)
        return run_jobs(jobs, context, self._engine, advance)

    def _short(
        self, candidates: Sequence[Candidate], context: TrialContext, advance: Advance
    ) -> Iterator[list[RungScore]]:
        """Train one epoch over the context's images."""
        choices = replace(control_choices(context.training), epochs=1)
        begun: deque[list[Candidate]] = deque()

        def jobs() -> Iterator[TrialJob]:
            ordered = sorted(candidates, key=lambda candidate: candidate.key)
            for group in group_by_pass(ordered, context, self._session.space.cache.trials_per_pass):
                begun.append(group)
                yield TrialJob(tuple((candidate, choices) for candidate in group))

        count, n = len(context.train), len(context.val)
        for outcomes in run_jobs(jobs(), context, self._engine):
            scores = [
                RungScore(candidate.key, None, n, images=count, reason=str(outcome))
                if isinstance(outcome, FailedTrial)
                else RungScore(candidate.key, outcome.correct / outcome.seen, n, images=count)
                for candidate, outcome in zip(begun.popleft(), outcomes, strict=True)
            ]
            advance(len(scores))
            yield scores


def _timed(steps: Iterable[list[RungScore]]) -> Iterator[tuple[list[RungScore], float]]:
    """Yield the scores that come at a time, each with the seconds since those before."""
    started = time.perf_counter()
    for scores in steps:
        yield scores, time.perf_counter() - started
        started = time.perf_counter()


def _scores(score: RungScore, before: Scores) -> Scores:
    return (-1.0 if score.top1 is None else score.top1, score.tie, *before)


def _finite(score: float) -> float:
    return score if math.isfinite(score) else -math.inf


def _dropped(candidate: Candidate, promotion: Promotion, rung: RungName, score: RungScore) -> Dropped:
    text = f"place {promotion.place} of {promotion.of} in its range of FLOPs; {promotion.went_on} went on"
    reason = text if score.reason is None else f"{score.reason}; {text}"
    return dropped_candidate(candidate, rung, score.top1, score.n, reason)


def _ranked_out(candidate: Candidate, space: SearchSpace) -> Dropped:
    score = candidate.score if math.isfinite(candidate.score) else None
    reason = f"place {candidate.rank + 1} among the partners of its front; top_k is {space.top_k}"
    if space.keep == "buckets":
        reason = f"more than {TOLERANCE:.0%} below the best of its range of FLOPs, of which there are {BUCKETS}"
    return dropped_candidate(candidate, "ranker", score, None, reason)
