"""Stratified draws: exact size, no repeats, every class within one image of its share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restnet_search.data.sampling import stratified_sample


@given(
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=12), share=st.floats(0, 1), seed=st.integers(0, 2**32 - 1)
)
def test_every_class_keeps_its_share(sizes: list[int], share: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    count = int(share * len(labels))
    drawn = stratified_sample(labels, count, np.random.default_rng(seed))
    assert len(drawn) == len(set(drawn.tolist())) == count
    assert np.array_equal(drawn, np.sort(drawn))
    for label, size in enumerate(sizes):
        assert abs((labels[drawn] == label).sum() - size * count / max(len(labels), 1)) < 1


def test_the_seed_decides() -> None:
    labels = np.arange(100) % 5
    first, again, other = (stratified_sample(labels, 20, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("count", [-1, 11])
def test_more_than_there_are_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="of 10 images"):
        stratified_sample(np.zeros(10, dtype=int), count, np.random.default_rng(0))
