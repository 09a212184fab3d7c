"""Two anchors on CIFAR-10, ready to be stitched point by point without a search: to measure how stitches train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from restnet_search.pareto.anchor_line import AnchorLine
from tests.benchmarks.cifar import WEIGHTS, inner_cuts, space_of

if TYPE_CHECKING:
    from restnet_search.data import DataSplits, Preprocessing
    from restnet_search.graph.cut_points import CutPoint
    from restnet_search.search.points.candidates import Candidate
    from restnet_search.search.prepare.cut_anchor import CutAnchor
    from restnet_search.search.run.training_choices import TrainingChoices
    from restnet_search.search.training.context import TrialContext

__all__ = ["Pair", "open_pair"]


@dataclass(frozen=True)
class Pair:
    """Its data and stitch points; each anchor with its cuts, its view and its MACs by name."""

    data: DataSplits
    cut_anchors: Mapping[str, CutAnchor]
    views: Mapping[str, Preprocessing]
    macs: Mapping[str, int]
    context: TrialContext
    points: Mapping[str, Sequence[CutPoint]]
    candidates: list[Candidate]

    def anchors(self) -> dict[str, tuple[float, int]]:
        """Accuracy on val and MACs of each anchor."""
        from restnet_search.search.training.accuracy import score_network

        val, graphs = self.context.val, self.context.graphs
        return {
            name: (score_network(graphs[name].traced.model, self.views[name], val) / len(val), macs)
            for name, macs in self.macs.items()
        }

    def line(self) -> AnchorLine:
        """The line between the anchors over the logarithm of MACs."""
        return AnchorLine.through((macs, accuracy) for accuracy, macs in self.anchors().values())

    def spread(self, count: int) -> list[Candidate]:
        """So many stitch points of each order, spread over its costs; the cheapest and the dearest are left out."""
        chosen: list[Candidate] = []
        for _, same in groupby(sorted(self.candidates, key=_by_cost), key=lambda candidate: candidate.direction.order):
            own = list(same)
            places = np.linspace(0, len(own) - 1, count + 2)[1:-1].round().astype(int)
            chosen += [own[place] for place in places]
        return chosen

    def context_of(self, images: int | None) -> TrialContext:
        """The context of trials on only so many of the training images; all of them where that is None."""
        from restnet_search.search.training.context import TrialImages

        context = self.context
        if images is None:
            return context
        train = context.train.subset(torch.arange(images))
        fit = context.fit if len(context.fit) <= len(train) else train
        teachers = {name: logits[: len(train)] for name, logits in context.teachers.items()}
        return replace(context, images=TrialImages(train, fit, context.val), teachers=teachers)

    def reach(
        self,
        candidate: Candidate,
        kind: Any,
        choices: TrainingChoices,
        init: Any = "lstsq",
        images: int | None = None,
        **training: Any,
    ) -> dict[str, Any]:
        """Train one hybrid with a stitch layer of that kind and start.

        ``images``: only so many of the training images; ``training`` are other keys of that section. What a search
        would drop as failed counts as a network that guesses; ``failed`` says why.
        """
        from restnet_search.search.training.stitch_trainer import FailedTrial
        from restnet_search.search.training.trial import run_trials

        plan, context = replace(candidate.plan, kind=kind), self.context_of(images)
        here = replace(
            context,
            stitch=context.stitch.model_copy(update={"kind": [kind], "init": init}),
            training=context.training.model_copy(update=training),
        )
        (outcome,) = run_trials([(replace(candidate, plan=plan), choices)], here)
        guess = 1 / len(context.val.classes)
        direction = candidate.direction
        return {
            "direction": str(direction),
            "order": direction.order,
            "front_cut": self.points[direction.front][candidate.front_cut].path,
            "back_cut": self.points[direction.back][candidate.back_cut].path,
            "macs": candidate.cost.macs + plan.cost.macs - candidate.plan.cost.macs,
            **(
                {"accuracy": guess, "seconds": 0.0, "failed": str(outcome)}
                if isinstance(outcome, FailedTrial)
                else {"accuracy": outcome.correct / outcome.seen, "seconds": outcome.seconds}
            ),
        }


def open_pair(
    large: str,
    small: str,
    train: int,
    val: int,
    *,
    test: int = 10,
    kind: str = "linear",
    precision: str = "float32",
    followed: bool = False,
    inner: bool = True,
    others: Sequence[str] = (),
) -> Pair:
    """Load and cut both anchors (names of ``ANCHORS``), with the given numbers of images.

    If ``inner``, none is cut after its last block, where nothing but pooling and head follow, nor before its first.
    ``others`` are anchors beside them, each of which makes a pair with every other.
    ``kind`` is that of the stitch layers, ``precision`` as in a space's ``compute``; ``followed`` says whether losses
    may follow the anchors.
    """
    from restnet_search.compute import open_compute
    from restnet_search.data import load_data
    from restnet_search.progress import SilentProgress
    from restnet_search.search.features.store import FeatureStore
    from restnet_search.search.points.candidates import enumerate_candidates
    from restnet_search.search.prepare.images import draw_training_images
    from restnet_search.search.prepare.prepared import prepare
    from restnet_search.search.training.context import TrialContext, TrialImages
    from restnet_search.search.training.teachers import teacher_logits
    from restnet_search.space import parse_space
    from restnet_search.space.anchor_sources import AnchorSources
    from restnet_search.units import UNLIMITED

    plain_space = space_of(
        *(large, small, *others),
        subset=(train, val),
        cuts=inner_cuts(large, small, *others) if inner else {},
        stitch={"kind": kind, "images": min(500, train)},
        training={"images": train, "batch_size": min(100, train)},
        top_k=1000,
        compute={"device": "cpu", "precision": precision},
    )
    plain_space["data"]["subset"]["test"] = test
    space = parse_space(plain_space, source="the benchmark")
    progress, compute = SilentProgress(), open_compute(space.compute)
    data = load_data(space.data, progress=progress)
    with TemporaryDirectory() as cache:
        prepared = prepare(space, data, AnchorSources(WEIGHTS, None, False, Path(cache)), progress)
    images = draw_training_images(space, data)
    points = {name: graph.cut_points for name, graph in prepared.graphs.items()}
    scores = {(a, b): np.zeros((len(points[a]), len(points[b]))) for a, b in product(points, points) if a != b}
    context = TrialContext(
        graphs=prepared.graphs,
        store=FeatureStore(prepared.anchors, 2 * 2**30, compute=compute),
        images=TrialImages(images, images.subset(torch.arange(min(space.stitch.images, len(images)))), data.val),
        stitch=space.stitch,
        training=space.training,
        seed=0,
        teachers=teacher_logits(prepared.anchors, images, progress, compute) if followed else {},
    )
    candidates = enumerate_candidates(
        space, (UNLIMITED,), points, prepared.costs, {space.ranker.kind: scores}
    ).candidates
    views = {name: cut.anchor.preprocessing for name, cut in prepared.anchors.items()}
    macs = {name: costs.total.macs for name, costs in prepared.costs.items()}
    return Pair(data, prepared.anchors, views, macs, context, points, list(candidates))


def _by_cost(candidate: Candidate) -> tuple[object, ...]:
    return candidate.direction.order, candidate.cost.macs, candidate.key
