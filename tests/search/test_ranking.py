"""All rankers in one pass: those whose sums do not fit memory see the images again, and score the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from restnet_search.data import load_data
from restnet_search.progress import SilentProgress
from restnet_search.search.ranking import rank_pairs
from restnet_search.similarity.rankers import FeatureBatch, KlRanker, RankerSetup
from restnet_search.space.schema import DataSpec, RankerSpec
from tests.search.stores import cut_anchor


def test_a_ranker_that_learns_sees_all_training_images_and_then_val_whatever_the_others_look_at() -> None:
    """``kl`` fed by hand with everything at once, beside ``cka``, whose scores it does not change."""
    anchors = {name: cut_anchor(name) for name in ("cifar_resnet8", "vit")}
    data = load_data(DataSpec(dataset="digits"))
    train, val = data.train.subset(torch.arange(70)), data.val.subset(torch.arange(30))
    spec, silent = RankerSpec(images=34, batch_size=32), SilentProgress()  # the last two are too few for cka
    ranking = rank_pairs(spec, ["cka", "kl"], anchors, train, val=val, seed=0, progress=silent)
    alone = rank_pairs(spec, ["cka"], anchors, train, seed=0, progress=silent)
    points = {name: cut.graph.cut_points for name, cut in anchors.items()}
    ranker = KlRanker(RankerSetup(points, 32, len(train.classes), seed=0))
    with torch.no_grad():
        for split, show in ((train, ranker.update), (val, ranker.update_val)):
            pixels = {name: split.images(cut.anchor.preprocessing, range(len(split))) for name, cut in anchors.items()}
            features = {
                name: list(cut.graph.between(None, range(len(points[name])))(pixels[name]))
                for name, cut in anchors.items()
            }
            logits = {name: cut.graph.traced.module(pixels[name]) for name, cut in anchors.items()}
            show(FeatureBatch(features, logits, split.labels))
    for pair, matrix in ranker.scores().items():
        np.testing.assert_allclose(ranking.scores["kl"][pair], matrix, rtol=1e-2)  # float32 features in other batches
        np.testing.assert_array_equal(ranking.scores["cka"][pair], alone.scores["cka"][pair])
    assert ranking.images == alone.images == 32
    with pytest.raises(ValueError, match="val images"):
        rank_pairs(spec, ["kl"], anchors, train, seed=0, progress=silent)


def test_a_ranker_that_learns_may_see_no_more_images_than_the_others() -> None:
    """As where ``training.images`` is at most ``ranker.images``, and a whole number of batches."""
    anchors = {name: cut_anchor(name) for name in ("cifar_resnet8", "vit")}
    data = load_data(DataSpec(dataset="digits"))
    train, val = data.train.subset(torch.arange(64)), data.val.subset(torch.arange(30))
    scores = [
        rank_pairs(
            RankerSpec(images=count, batch_size=32), ["kl"], anchors, train, val=val, seed=0, progress=SilentProgress()
        )
        for count in (64, 32)
    ]
    for pair, matrix in scores[0].scores["kl"].items():
        np.testing.assert_array_equal(matrix, scores[1].scores["kl"][pair])  # 32 of them come later


def test_a_ranker_of_several_passes_scores_as_in_one() -> None:
    anchors = {name: cut_anchor(name) for name in ("cifar_resnet8", "vit")}
    digits = load_data(DataSpec(dataset="digits")).train.subset(torch.arange(96))
    scores = []
    for options in ({"places": 10_000}, {"places": 10_000, "memory": 1}):  # all places; a pass for each front cut
        spec = RankerSpec(kind="lstsq", images=96, batch_size=32, options=options)
        ranking = rank_pairs(spec, ["lstsq", "cka"], anchors, digits, seed=0, progress=SilentProgress())
        scores.append(ranking.scores)
    for name in ("lstsq", "cka"):
        assert scores[0][name].keys() == scores[1][name].keys()
        for pair, values in scores[0][name].items():
            assert np.isfinite(values).all()
            np.testing.assert_array_equal(values, scores[1][name][pair])
