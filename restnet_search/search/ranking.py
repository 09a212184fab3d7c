"""Score all stitch points before any training: every anchor's features from one pass over the same images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from restnet_search.compute import Compute
from restnet_search.data import Split
from restnet_search.progress import Progress
from restnet_search.registry import RANKERS
from restnet_search.search.features.passes import FeatureExtractors
from restnet_search.search.prepare.cut_anchor import CutAnchor
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.run.session import Session, StageClock
from restnet_search.similarity.cka import MIN_IMAGES
from restnet_search.similarity.rankers import FeatureBatch, KlRanker, PairScores, RankerSetup, build_ranker
from restnet_search.space.schema import RankerSpec

__all__ = [
    "CHEAP_PROBES",
    "PairScores",
    "Ranking",
    "rank_pairs",
    "rank_stitch_points",
    "rankers_of_search",
    "score_pairs",
]

CHEAP_PROBES = 2e11
"""Multiply-accumulates up to which ``kl`` is computed without being asked for: some seconds on two cores."""


@dataclass(frozen=True)
class Ranking:
    """The scores of several rankers on the same images.

    ``seconds`` holds what each ranker took beside the features, which all of them share (``features_seconds``).
    """

    scores: Mapping[str, PairScores]
    seconds: Mapping[str, float]
    features_seconds: float
    images: int


def rank_stitch_points(session: Session, prepared: Prepared, images: Split) -> Ranking:
    """Score the stitch points of a search's anchors with its own ranker and all that are cheap beside it."""
    space = session.space
    with session.clock.stage("similarity"):
        names = rankers_of_search(space.ranker, prepared.anchors, images)
        return rank_pairs(
            space.ranker,
            names,
            prepared.anchors,
            images,
            seed=space.search.seed,
            progress=session.progress,
            compute=session.compute,
        )


def rank_pairs(
    spec: RankerSpec,
    names: Sequence[str],
    anchors: Mapping[str, CutAnchor],
    images: Split,
    *,
    seed: int,
    progress: Progress,
    compute: Compute | None = None,
) -> Ranking:
    """Score the stitch points of every ordered pair of anchors with the named rankers.

    Every anchor runs once per batch, on the images as it sees them, and all rankers see its features; small last
    batches are left out. A ranker whose sums would not fit into memory sees the images again.

    Args:
        spec: Images and batch size, and the options of the space's own ranker.
        names: Of rankers, as in ``RANKERS``; the space's own is built with its options.
        anchors: By name, at least two.
        images: Training images; the first ``spec.images`` are looked at.
        seed: For rankers that draw.
        progress: Shows the pass.
        compute: Where the anchors run, and most of the rankers; None: the CPU.

    Raises:
        ValueError: If features are not finite.
    """
    count = min(spec.images, len(images))
    batches = [batch for batch in torch.arange(count).split(spec.batch_size) if len(batch) >= MIN_IMAGES]
    points = {name: cut.graph.cut_points for name, cut in anchors.items()}
    setup = RankerSetup(points, sum(map(len, batches)), len(images.classes), seed)
    clock = StageClock()
    rankers = {}
    for name in names:
        with clock.stage(name):
            rankers[name] = build_ranker(name, setup, spec.options if name == spec.kind else None)
    passes = {name: ranker.passes for name, ranker in rankers.items()}  # now: a ranker may count those that are left
    most = max(passes.values(), default=0)
    with progress.task(f"Similarity ({', '.join(names)})", total=most * len(batches)) as task, torch.no_grad():
        for number in range(most):
            for batch in _batches(anchors, images, batches, clock, FeatureExtractors(compute or Compute())):
                for name, ranker in rankers.items():
                    if number < passes[name]:
                        with clock.stage(name):
                            ranker.update(batch)
                task.advance()
            for name, ranker in rankers.items():
                if number < passes[name]:
                    with clock.stage(name):
                        ranker.end_pass()
    scores: dict[str, PairScores] = {}
    for name, ranker in rankers.items():
        with clock.stage(name):
            scores[name] = ranker.scores()
    seconds = {name: round(clock.seconds[name], 3) for name in names}
    return Ranking(scores, seconds, round(clock.seconds.get(_FEATURES, 0.0), 3), setup.images)


def score_pairs(
    spec: RankerSpec,
    anchors: Mapping[str, CutAnchor],
    images: Split,
    *,
    seed: int,
    progress: Progress,
    compute: Compute | None = None,
) -> PairScores:
    """Score the stitch points of every ordered pair of anchors with the space's ranker alone."""
    ranking = rank_pairs(spec, [spec.kind], anchors, images, seed=seed, progress=progress, compute=compute)
    return ranking.scores[spec.kind]


def rankers_of_search(spec: RankerSpec, anchors: Mapping[str, CutAnchor], images: Split) -> list[str]:
    """Return the rankers that a search computes, its own first: all, but ``kl`` only where it is asked for or cheap."""
    points = {name: cut.graph.cut_points for name, cut in anchors.items()}
    work = KlRanker.work(RankerSetup(points, min(spec.images, len(images)), len(images.classes), seed=0))
    names = [spec.kind, *(name for name in RANKERS.names() if name != spec.kind)]
    return [name for name in names if name in (spec.kind, "cka", "lstsq", "random") or work <= CHEAP_PROBES]


_FEATURES = "features"


def _batches(
    anchors: Mapping[str, CutAnchor],
    images: Split,
    batches: Sequence[Tensor],
    clock: StageClock,
    extractors: FeatureExtractors,
) -> Iterator[FeatureBatch]:
    compute = extractors.compute
    whole = {
        name: extractors.between(name, cut.graph, None, range(len(cut.graph.cut_points)))
        for name, cut in anchors.items()
    }
    rests = {name: compute.place(cut.graph.back(len(cut.graph.cut_points) - 1)) for name, cut in anchors.items()}
    for batch in batches:
        with clock.stage(_FEATURES):
            features: dict[str, list[Tensor]] = {}
            for name, cut in anchors.items():
                pixels = images.images(cut.anchor.preprocessing, batch)
                values = compute.run(whole[name], pixels, f"features of {name}", exact=False)
                features[name] = [values] if isinstance(values, Tensor) else list(values)
            logits = {
                name: compute.run(rests[name], layers[-1], f"features of {name}", exact=False)
                for name, layers in features.items()
            }
        yield FeatureBatch(features, logits, images.labels[batch])
