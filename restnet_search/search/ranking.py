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
from restnet_search.search.prepare.images import SearchImages
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.run.session import Session, StageClock
from restnet_search.similarity.cka import MIN_IMAGES
from restnet_search.similarity.rankers import FeatureBatch, KlRanker, PairScores, Ranker, RankerSetup, build_ranker
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
"""Multiply-accumulates up to which ``kl`` is computed without being asked for: some seconds on two cores.

It sees more images than the others and trains a probe at every cut point.
"""


@dataclass(frozen=True)
class Ranking:
    """The scores of several rankers on the same images.

    ``seconds`` holds what each ranker took beside the features, which all of them share (``features_seconds``).
    """

    scores: Mapping[str, PairScores]
    seconds: Mapping[str, float]
    features_seconds: float
    images: int


def rank_stitch_points(session: Session, prepared: Prepared, images: SearchImages) -> Ranking:
    """Score the stitch points of a search's anchors with its own ranker and all that are cheap beside it."""
    space = session.space
    with session.clock.stage("similarity"):
        return rank_pairs(
            space.ranker,
            rankers_of_search(space.ranker, prepared, images),
            prepared.anchors,
            images.train,
            val=images.val,
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
    val: Split | None = None,
    compute: Compute | None = None,
) -> Ranking:
    """Score the stitch points of every ordered pair of anchors with the named rankers.

    Every anchor runs once per batch, on the images as it sees them, and all rankers see its features; small last
    batches are left out. A ranker whose sums would not fit into memory sees the images again. One that learns sees all
    training images, then the val images.

    Args:
        spec: Images and batch size, and the options of the space's own ranker.
        names: Of rankers, as in ``RANKERS``; the space's own is built with its options.
        anchors: By name, at least two.
        images: Training images; rankers that do not learn see the first ``spec.images``.
        seed: For rankers that draw.
        progress: Shows the pass.
        val: For rankers that learn; None: such a ranker cannot be scored.
        compute: Where the anchors run, and most of the rankers; None: the CPU.

    Raises:
        ValueError: If features are not finite, or a ranker that learns has no val images.
    """
    count = min(spec.images, len(images))
    batches = [batch for batch in torch.arange(count).split(spec.batch_size) if len(batch) >= MIN_IMAGES]
    seen = sum(map(len, batches))
    points = {name: cut.graph.cut_points for name, cut in anchors.items()}
    setup = RankerSetup(points, seen, len(images.classes), seed)
    clock = StageClock()
    rankers: dict[str, Ranker] = {}
    for name in names:
        with clock.stage(name):
            rankers[name] = build_ranker(name, setup, spec.options if name == spec.kind else None)
    passes = {name: ranker.passes for name, ranker in rankers.items()}  # now: a ranker may count those that are left
    most = max(passes.values(), default=0)
    learners = {name: ranker for name, ranker in rankers.items() if ranker.learns}
    rest = torch.arange(seen, len(images))
    further = list(rest.split(spec.batch_size)) if learners and len(rest) else []  # the split of nothing is not empty
    asked = list(torch.arange(len(val)).split(spec.batch_size)) if learners and val is not None else []
    parts = most * len(batches) + len(further) + len(asked)
    with progress.task(f"Similarity ({', '.join(names)})", total=parts) as task, torch.no_grad():
        extractors = FeatureExtractors(compute or Compute())

        def show(split: Split, some: Sequence[Tensor], shown: Mapping[str, Ranker], *, as_val: bool = False) -> None:
            for batch in _batches(anchors, split, some, clock, extractors):
                for name, ranker in shown.items():
                    with clock.stage(name):
                        (ranker.update_val if as_val else ranker.update)(batch)
                task.advance()

        for number in range(most):
            under_way = {name: ranker for name, ranker in rankers.items() if number < passes[name]}
            show(images, batches, under_way)
            if number == 0:
                show(images, further, learners)
            for name, ranker in under_way.items():
                with clock.stage(name):
                    ranker.end_pass()
        if val is not None:
            show(val, asked, learners, as_val=True)
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


def rankers_of_search(spec: RankerSpec, prepared: Prepared, images: SearchImages) -> list[str]:
    """Return the rankers that a search computes, its own first: all, but ``kl`` only where it is asked for or cheap."""
    points = {name: cut.graph.cut_points for name, cut in prepared.anchors.items()}
    setup = RankerSetup(points, min(spec.images, len(images.train)), len(images.train.classes), seed=0)
    further = len(images.train) - setup.images + len(images.val)
    forward = further * sum(costs.total.macs for costs in prepared.costs.values())
    cheap = KlRanker.work(setup, len(images.train)) + forward <= CHEAP_PROBES
    names = [spec.kind, *(name for name in RANKERS.names() if name != spec.kind)]
    return [name for name in names if name in (spec.kind, "cka", "lstsq", "random") or cheap]


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
