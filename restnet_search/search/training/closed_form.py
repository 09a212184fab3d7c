"""Score many candidates by their closed-form stitches alone: one Gram matrix for all backs behind a front cut.

A candidate is scored as a trial without any epoch would be. So where trials estimate the back's batch-norm statistics
anew (the first of ``training.tune``), they are estimated here, too: without them the scores foretell little of what is
reached after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import fx, nn

from restnet_search.plain.bounds import Fraction, Natural
from restnet_search.search.points.candidates import Candidate, CandidateKey
from restnet_search.search.training.accuracy import predict
from restnet_search.search.training.context import TrialContext
from restnet_search.search.training.trial import is_cached
from restnet_search.stitching.initialize import SharedFit, input_signature
from restnet_search.stitching.layer import StitchLayer
from restnet_search.stitching.tuning import StatisticsFit, TunedBack

__all__ = ["MEMORY", "ClosedFormJob", "RungScore", "closed_form_jobs", "closed_form_scores"]

MEMORY = 2**30
"""Bytes that the sums of front cuts which share a pass may take; a single front cut may take more."""


@dataclass(frozen=True)
class RungScore:
    """The score of a candidate at a rung.

    Attributes:
        key: Of the candidate.
        top1: Val accuracy on ``n`` images, a fraction; None where it has none, for the ``reason``.
        tie: What decides between equal accuracies, higher first.
        images: Training images seen, each as often as it was.
    """

    key: CandidateKey
    top1: Fraction | None
    n: Natural
    tie: float = 0.0
    images: Natural = 0
    reason: str | None = None


@dataclass(frozen=True)
class ClosedFormJob:
    """Closed-form stitches of candidates that share a pass over the images: all of one front anchor.

    The stitch layer of each is solved on ``context.fit``, and its hybrid scored on ``context.val``. Batch-norm
    statistics are those of ``context.fit``, too. Progress is told in candidates.
    """

    candidates: tuple[Candidate, ...]

    @property
    def name(self) -> str:
        return f"solving {len(self.candidates)} stitch layers behind {self.candidates[0].direction.front}"

    def work(self, context: TrialContext) -> int:
        """Estimate its MACs: passes of whole hybrids stand for those of the anchors, too."""
        passes = 2 * len(context.fit) + len(context.val)
        return sum(2 * candidate.cost.macs * passes for candidate in self.candidates)

    def run(self, context: TrialContext, advance: Callable[[float], None]) -> list[RungScore]:
        """Return the scores of all candidates."""
        return _score(self.candidates, context, advance)

    def given_up(self, reason: str) -> list[RungScore]:
        return [RungScore(candidate.key, None, 0, reason=reason) for candidate in self.candidates]


def closed_form_jobs(
    candidates: Sequence[Candidate], context: TrialContext, memory: int = MEMORY
) -> Iterator[ClosedFormJob]:
    """Yield the jobs that score the closed-form stitch of each candidate.

    Each front cut is read once for all backs behind it. Where its features are kept, it is a job of its own; else as
    many front cuts of an anchor as the memory allows share one pass over the images. What a candidate reaches does not
    depend on which jobs there are.

    Args:
        candidates: To score.
        context: In which the jobs will run, on few images.
        memory: Bytes that the sums of one job may take; a single front cut may take more.
    """
    ordered = sorted(candidates, key=lambda candidate: candidate.key)
    for _, same_front in groupby(ordered, key=lambda candidate: candidate.direction.front):
        side_by_side: list[Candidate] = []
        taken = 0
        for _, row in groupby(same_front, key=lambda candidate: candidate.front_cut):
            group = list(row)
            if is_cached(group[0], context):
                yield ClosedFormJob(tuple(group))
                continue
            needed = sum(_bytes(members) for members in _shared(group))
            if side_by_side and taken + needed > memory:
                yield ClosedFormJob(tuple(side_by_side))
                side_by_side, taken = [], 0
            side_by_side += group
            taken += needed
        if side_by_side:
            yield ClosedFormJob(tuple(side_by_side))


def closed_form_scores(candidates: Sequence[Candidate], context: TrialContext) -> list[RungScore]:
    """Run all jobs of :func:`closed_form_jobs` in this process, one after another."""
    jobs = closed_form_jobs(candidates, context)
    return [score for job in jobs for score in job.run(context, lambda _: None)]


def _shared(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    """Candidates of one Gram matrix: of one front cut, and equal in how they read it."""
    groups: dict[tuple[object, ...], list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault((candidate.front_cut, *input_signature(candidate.plan)), []).append(candidate)
    return list(groups.values())


def _bytes(group: Sequence[Candidate]) -> int:
    inputs = group[0].plan.source.channels * group[0].plan.kernel ** 2
    return 8 * inputs * (inputs + sum(candidate.plan.target.channels for candidate in group))


@torch.no_grad()
def _score(candidates: Sequence[Candidate], context: TrialContext, advance: Callable[[float], None]) -> list[RungScore]:
    """All of one front anchor."""
    generator = torch.Generator().manual_seed(context.seed)  # the weights drawn are overwritten by the solution
    place = context.compute.place
    stitches = {candidate.key: place(StitchLayer(candidate.plan, generator)) for candidate in candidates}
    sliced = {
        (name, cut): place(context.graphs[name].back(cut))
        for name, cut in {(candidate.direction.back, candidate.back_cut) for candidate in candidates}
    }
    backs: dict[CandidateKey, fx.GraphModule] = {c.key: sliced[c.direction.back, c.back_cut] for c in candidates}
    fits = {c.key: StatisticsFit(backs[c.key]) for c in candidates if context.training.tune[0] != "stitch"}
    fits = {key: fit for key, fit in fits.items() if fit.is_needed}
    # a share of the step per batch, and one for solving the equations
    splits = (context.fit, context.val, *([context.fit] if fits else []))
    share = len(candidates) / (sum(math.ceil(len(split) / context.training.batch_size) for split in splits) + 1)
    r2 = _solve(candidates, stitches, context, lambda: advance(share))
    own = _tuned(candidates, stitches, fits, context, lambda: advance(share)) if fits else {}
    correct = _correct(candidates, stitches, {**backs, **own}, context, lambda: advance(share))
    n = len(context.val)
    return [RungScore(c.key, correct[c.key] / n, n, tie=r2[c.key]) for c in candidates]


def _solve(
    candidates: Sequence[Candidate],
    stitches: dict[CandidateKey, StitchLayer],
    context: TrialContext,
    advance: Callable[[], None],
) -> dict[CandidateKey, float]:
    """Set the stitch layers to their least-squares maps, in one pass of every anchor; returns R²."""
    groups = _shared(candidates)
    fits = [SharedFit([stitches[candidate.key] for candidate in group], context.stitch.ridge) for group in groups]
    front, front_cuts = candidates[0].direction.front, sorted({candidate.front_cut for candidate in candidates})
    back_cuts: dict[str, list[int]] = {}
    for name, cut in sorted({(candidate.direction.back, candidate.back_cut) for candidate in candidates}):
        back_cuts.setdefault(name, []).append(cut)
    store, batch, first = context.store, context.training.batch_size, torch.arange(len(context.fit))
    passes = [store.batches_at(name, cuts, context.fit, batch) for name, cuts in back_cuts.items()]
    for fronts, *wanted in zip(store.batches_at(front, front_cuts, context.train, batch, first), *passes, strict=True):
        source = dict(zip(front_cuts, fronts, strict=True))
        target = {
            (name, cut): values
            for (name, cuts), features in zip(back_cuts.items(), wanted, strict=True)
            for cut, values in zip(cuts, features, strict=True)
        }
        for group, fit in zip(groups, fits, strict=True):
            targets = [target[candidate.direction.back, candidate.back_cut] for candidate in group]
            fit.update(source[group[0].front_cut], targets)
        advance()
    solved = {
        candidate.key: value
        for group, fit in zip(groups, fits, strict=True)
        for candidate, value in zip(group, fit.solve(), strict=True)
    }
    advance()
    return solved


def _tuned(
    candidates: Sequence[Candidate],
    stitches: Mapping[CandidateKey, StitchLayer],
    fits: Mapping[CandidateKey, StatisticsFit],
    context: TrialContext,
    advance: Callable[[], None],
) -> dict[CandidateKey, nn.Module]:
    """Return backs with batch-norm statistics of their own, in one pass of the front anchor."""
    front, cuts = candidates[0].direction.front, sorted({candidate.front_cut for candidate in candidates})
    place, batch, first = context.compute.place, context.training.batch_size, torch.arange(len(context.fit))
    for fronts in context.store.batches_at(front, cuts, context.train, batch, first):
        at = dict(zip(cuts, fronts, strict=True))
        for candidate in candidates:
            if (fit := fits.get(candidate.key)) is not None:
                fit.see(stitches[candidate.key], at[candidate.front_cut], context.compute)
        advance()
    return {key: place(TunedBack(fit.back, "stitch+norm-stats", statistics=fit.result())) for key, fit in fits.items()}


def _correct(
    candidates: Sequence[Candidate],
    stitches: Mapping[CandidateKey, StitchLayer],
    backs: Mapping[CandidateKey, nn.Module],
    context: TrialContext,
    advance: Callable[[], None],
) -> dict[CandidateKey, int]:
    """Count the val images that each hybrid classifies correctly."""
    correct = {candidate.key: 0 for candidate in candidates}
    front, cuts = candidates[0].direction.front, sorted({candidate.front_cut for candidate in candidates})
    batch = context.training.batch_size
    features = context.store.batches_at(front, cuts, context.val, batch)
    for fronts, labels in zip(features, context.val.labels.split(batch), strict=True):
        at = dict(zip(cuts, fronts, strict=True))
        for candidate in candidates:
            back = backs[candidate.key]
            predicted = predict(stitches[candidate.key], back, at[candidate.front_cut], context.compute, exact=False)
            correct[candidate.key] += int((predicted == labels).sum())
        advance()
    return correct
