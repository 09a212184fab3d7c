"""The suite that every ranker passes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from restnet_search.graph.cut_points import CutPoint
from restnet_search.graph.layout import Layout
from restnet_search.similarity.rankers import FeatureBatch, PairScores, Ranker, RankerSetup
from restnet_search.stitching.plan import why_not_stitchable
from restnet_search.testing.layouts import shape_of

__all__ = ["LAYOUTS", "RankerSuite", "run_ranker", "simulate_features", "simulate_planted"]

LAYOUTS: Mapping[str, Sequence[Layout]] = {
    "a": (Layout("NCHW", 5, (8, 8)), Layout("NHWC", 7, (4, 4)), Layout("vector", 6)),
    "b": (Layout("tokens", 4, (4, 4), prefix=1), Layout("NCHW", 3, (2, 2)), Layout("vector", 9), Layout("unknown")),
    "c": (Layout("NCHW", 8, (3, 3)), Layout("unknown")),
}
"""Of the cut points of three anchors."""

CLASSES = 5


class RankerSuite:
    """Tests of one ranker; a subclass says how it is built, and what it does not promise."""

    sees_features: ClassVar[bool] = True
    """Scores depend on features; not so for the ranker that draws them."""

    any_batches: ClassVar[bool] = False
    """Scores are the same however the images are spread over batches."""

    @pytest.fixture
    def make_ranker(self) -> Callable[[RankerSetup], Ranker]:
        """Return what builds the ranker: the class, or a function."""
        raise NotImplementedError

    def test_it_scores_every_ordered_pair(self, make_ranker: Callable[[RankerSetup], Ranker]) -> None:
        setup, batches = simulate_features()
        scores = run_ranker(make_ranker(setup), batches)
        assert set(scores) == set(itertools.permutations(LAYOUTS, 2))
        for (front, back), matrix in scores.items():
            assert matrix.shape == (len(LAYOUTS[front]), len(LAYOUTS[back]))
            assert matrix.dtype == np.float64
            assert not np.isinf(matrix).any()

    def test_stitch_points_with_a_known_layout_have_a_score(self, make_ranker: Callable[[RankerSetup], Ranker]) -> None:
        setup, batches = simulate_features()
        for (front, back), matrix in run_ranker(make_ranker(setup), batches).items():
            for (i, one), (j, two) in itertools.product(enumerate(LAYOUTS[front]), enumerate(LAYOUTS[back])):
                if why_not_stitchable(one, two) is None:
                    assert np.isfinite(matrix[i, j]), f"{front} {one} > {back} {two}"

    def test_the_seed_decides(self, make_ranker: Callable[[RankerSetup], Ranker]) -> None:
        first, again = (run_ranker(make_ranker(setup), batches) for setup, batches in (simulate_features(),) * 2)
        for pair, matrix in first.items():
            np.testing.assert_array_equal(matrix, again[pair])

    def test_features_are_left_as_they_are(self, make_ranker: Callable[[RankerSetup], Ranker]) -> None:
        setup, batches = simulate_features()
        run_ranker(make_ranker(setup), batches)
        _, untouched = simulate_features()
        for batch, before in zip(batches, untouched, strict=True):
            for name, layers in batch.features.items():
                assert all(torch.equal(now, then) for now, then in zip(layers, before.features[name], strict=True))
                assert torch.equal(batch.logits[name], before.logits[name])
            assert torch.equal(batch.labels, before.labels)

    def test_a_linear_map_of_the_front_scores_above_noise(self, make_ranker: Callable[[RankerSetup], Ranker]) -> None:
        if not self.sees_features:
            pytest.skip("the scores of this ranker do not depend on features")
        setup, batches = simulate_planted()
        matrix = run_ranker(make_ranker(setup), batches)["front", "back"]
        assert matrix[0, 0] > matrix[0, 1]

    def test_batches_make_no_difference(self, make_ranker: Callable[[RankerSetup], Ranker]) -> None:
        if not self.any_batches:
            pytest.skip("this ranker does not promise it")
        (setup, large), (_, small) = simulate_features(batch=40), simulate_features(batch=8)
        one, other = run_ranker(make_ranker(setup), large), run_ranker(make_ranker(setup), small)
        for pair, matrix in one.items():
            np.testing.assert_allclose(matrix, other[pair], rtol=1e-6, atol=1e-9)


def run_ranker(ranker: Ranker, batches: Sequence[FeatureBatch]) -> PairScores:
    """Show a ranker the batches as often as it asks for, and as val images where it learns; return its scores."""
    for _ in range(ranker.passes):
        for batch in batches:
            ranker.update(batch)
        ranker.end_pass()
    for batch in batches if ranker.learns else ():
        ranker.update_val(batch)
    return ranker.scores()


def simulate_features(
    images: int = 64, classes: int = CLASSES, seed: int = 3, batch: int = 20
) -> tuple[RankerSetup, list[FeatureBatch]]:
    """Make features of three anchors that are random maps of one hidden cause, so that they have something in common.

    Args:
        images: Number of images; what is left of the last batch is dropped where it is below four.
        classes: Of the labels.
        seed: Of the setup; the features are always the same.
        batch: Images per batch.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (images,), generator=generator)
    cause = torch.randn(images, 12, generator=generator) + 2 * F.one_hot(labels, 12)
    points = {name: _cut_points(layouts) for name, layouts in LAYOUTS.items()}

    def features(cut: CutPoint) -> Tensor:
        size = prod(cut.shape)
        mixed = cause @ torch.randn(12, size, generator=generator)
        return (mixed.tanh() + 0.3 * torch.randn(images, size, generator=generator)).reshape(images, *cut.shape)

    layers = {name: [features(cut) for cut in cuts] for name, cuts in points.items()}
    logits = {name: torch.randn(images, classes, generator=generator) for name in points}
    return RankerSetup(points, images, classes, seed), _batches(layers, logits, labels, batch)


def simulate_planted() -> tuple[RankerSetup, list[FeatureBatch]]:
    """Make two anchors of one and two cut points: the back's first is a map of the front's, its second is noise."""
    generator = torch.Generator().manual_seed(0)
    images, size = 120, 8
    labels = torch.arange(images) % CLASSES
    logits = 4 * F.one_hot(labels, CLASSES) + torch.randn(images, CLASSES, generator=generator)
    front = 2 * F.one_hot(labels, size) + torch.randn(images, size, generator=generator)
    layers = {
        "front": [front],
        "back": [
            front @ torch.linalg.qr(torch.randn(size, size, generator=generator)).Q,
            torch.randn(images, size, generator=generator),
        ],
    }
    points = {name: _cut_points([Layout("vector", size)] * len(cuts)) for name, cuts in layers.items()}
    setup = RankerSetup(points, images, CLASSES, seed=3)
    return setup, _batches(layers, dict.fromkeys(layers, logits), labels, batch=40)


def _cut_points(layouts: Sequence[Layout]) -> list[CutPoint]:
    return [CutPoint(i, f"n{i}", f"p{i}", layout, shape_of(layout)) for i, layout in enumerate(layouts)]


def _batches(
    layers: Mapping[str, Sequence[Tensor]], logits: Mapping[str, Tensor], labels: Tensor, batch: int
) -> list[FeatureBatch]:
    return [
        FeatureBatch(
            {name: [layer[rows] for layer in some] for name, some in layers.items()},
            {name: values[rows] for name, values in logits.items()},
            labels[rows],
        )
        for rows in torch.arange(len(labels)).split(batch)
        if len(rows) >= 4
    ]
