"""All rankers in one pass: those whose sums do not fit memory see the images again, and score the same."""

from __future__ import annotations

import numpy as np
import torch

from restnet_search.data import load_data
from restnet_search.progress import SilentProgress
from restnet_search.search.ranking import rank_pairs
from restnet_search.space.schema import DataSpec, RankerSpec
from tests.search.stores import cut_anchor


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
