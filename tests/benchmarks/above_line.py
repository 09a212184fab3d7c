"""Hybrids above the line between their anchors, per choice of what is tuned, against the plain recipe of FACTS.md.

The line is accuracy against the logarithm of MACs between the two anchors. Every recipe trains the same stitch points
on the same images for the same epochs; nothing is chosen by the images that they are scored on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from math import log
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from tests.benchmarks.cifar import WEIGHTS, block_paths, space_of, why_missing
from tests.benchmarks.result import Condition, Finding

PAIRS = ((56, 8), (56, 20))
TUNES = ("stitch", "stitch+norm-stats", "stitch+norm", "stitch+lora", "all")
PLAIN = "plain recipe"
OWN_RATE, PLAIN_RATE = 1e-3, 1e-2  # 1e-2 destroys a closed-form start


@dataclass(frozen=True)
class Size:
    points: int  # per pair and order
    train: int
    val: int
    epochs: int


SIZES = {"full": Size(3, 5000, 2500, 2), "small": Size(1, 1000, 1000, 1), "tiny": Size(1, 40, 40, 1)}


def run(size: str) -> Finding:
    given = SIZES[size]
    question = (
        f"Hybrids above the line between their anchors, CIFAR-10, ResNet-56/8 and 56/20, both orders, {given.train:,} "
        f"images, {given.epochs} epochs: conv3x3 stitches and a `tune` choice against the plain recipe (1x1, to 1e-2)."
    )
    if why := why_missing(56, 20, 8):
        return Finding(question, None, 1.0, None, None, "hybrids", note=why)
    rows: list[dict[str, Any]] = []
    for large, small in PAIRS:
        rows += _rows(large, small, given)
    names = (PLAIN, *TUNES)
    heights = {name: [row["height"] for row in rows if row["recipe"] == name] for name in names}
    above = {name: sum(height > 0 for height in of) for name, of in heights.items()}
    means = {name: fmean(of) for name, of in heights.items()}
    best = max(TUNES, key=lambda name: (above[name], means[name]))
    conditions = [
        Condition(
            f"{name}: hybrids above the line of {len(heights[name])}, mean height in points (plain: {above[PLAIN]}, "
            f"{100 * means[PLAIN]:+.1f})",
            f"{above[name]}, {100 * means[name]:+.1f}",
            # the best choice has to be better; that each of them is, is said, not asked
            (above[name] > above[PLAIN] and means[name] > means[PLAIN]) if name == best else None,
        )
        for name in TUNES
    ]
    return Finding(
        question,
        above[best] / max(1, above[PLAIN]),
        1.0,
        float(above[best]),
        float(above[PLAIN]),
        "hybrids",
        tuple(conditions),
        note=f"ours is the best choice, {best}; a plain recipe with none above the line counts as one in the ratio.",
        details={"rows": rows, "setting": asdict(given)},
    )


def line(macs: float, anchors: Mapping[str, tuple[float, float]]) -> float:
    """Accuracy at these MACs on the line through the two anchors, (accuracy, MACs) each, over the logarithm of MACs."""
    (low, cheap), (high, dear) = sorted(anchors.values(), key=lambda anchor: anchor[1])
    return low + (high - low) * log(macs / cheap) / log(dear / cheap)


def _rows(large: int, small: int, given: Size) -> list[dict[str, Any]]:
    """One row per stitch point and recipe of a pair of anchors."""
    from restnet_search.data import load_data
    from restnet_search.progress import SilentProgress
    from restnet_search.search.candidates import directions_of, enumerate_candidates
    from restnet_search.search.features import FeatureStore
    from restnet_search.search.prepare import CodeAndWeights, prepare
    from restnet_search.search.ranking import draw_training_images
    from restnet_search.search.trial import TrainingChoices, TrialContext, run_trial, score_network
    from restnet_search.space import parse_space
    from restnet_search.space.schema import StitchSpec
    from restnet_search.stitching.plan import StitchPlan
    from restnet_search.units import UNLIMITED

    plain_space = space_of(
        large,
        small,
        subset=(given.train, given.val),
        cuts={depth: block_paths(depth, 1) for depth in (large, small)},
        stitch={"kind": "linear", "images": min(500, given.train)},
        training={"images": given.train, "batch_size": min(100, given.train)},
        top_k=1000,
    )
    space = parse_space(plain_space, source="the benchmark")
    progress = SilentProgress()
    data = load_data(space.data, progress=progress)
    with TemporaryDirectory() as cache:
        prepared = prepare(space, data, CodeAndWeights(WEIGHTS, None, False, Path(cache)), progress)
    train = draw_training_images(space, data)
    points = {name: graph.cut_points for name, graph in prepared.graphs.items()}
    scores = {(a, b): np.zeros((len(points[a]), len(points[b]))) for a, b in product(points, points) if a != b}
    candidates = enumerate_candidates(space, (UNLIMITED,), points, prepared.costs, scores).candidates
    context = TrialContext(
        graphs=prepared.graphs,
        store=FeatureStore(prepared.anchors, 2 * 2**30),
        train=train,
        fit=train.subset(torch.arange(min(space.stitch.images, len(train)))),
        val=data.val,
        stitch=space.stitch,
        training=space.training,
        seed=0,
    )
    anchors = {
        name: (
            score_network(cut.anchor.model, cut.anchor.view, data.val) / len(data.val),
            prepared.costs[name].total.macs,
        )
        for name, cut in prepared.anchors.items()
    }
    rows: list[dict[str, Any]] = []
    for direction in directions_of(space, prepared.costs):
        own = sorted((c for c in candidates if c.direction == direction), key=lambda c: (c.cost.macs, c.key))
        places = np.linspace(0, len(own) - 1, given.points + 2)[1:-1].round().astype(int)
        for candidate in (own[place] for place in places):
            for recipe in (PLAIN, *TUNES):
                here, kind = context, "linear"
                choices = TrainingChoices(PLAIN_RATE, given.epochs)
                if recipe != PLAIN:
                    kind, choices = "conv3x3", TrainingChoices(OWN_RATE, given.epochs, recipe)
                    here = replace(context, stitch=StitchSpec(kind="conv3x3", images=space.stitch.images))
                plan = StitchPlan(kind, candidate.plan.source, candidate.plan.target)
                extra = plan.cost.macs - candidate.plan.cost.macs
                macs = candidate.cost.macs + extra
                outcome = run_trial(replace(candidate, plan=plan), choices, here)
                accuracy = outcome.correct / outcome.seen
                rows.append(
                    {
                        "direction": str(direction),
                        "front_cut": points[direction.front][candidate.front_cut].path,
                        "back_cut": points[direction.back][candidate.back_cut].path,
                        "recipe": recipe,
                        "macs": macs,
                        "accuracy": accuracy,
                        "height": accuracy - line(macs, anchors),
                        "images_seen": given.train * given.epochs,
                        "seconds": outcome.seconds,
                    }
                )
    return rows
