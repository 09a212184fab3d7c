"""What the ranker keeps: KLAS's buckets against the rule written out anew, and the first partners of every front."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from restnet_search.search.points.keeping import Ranked, best_of_buckets, first_partners


@st.composite
def directions(draw: st.DrawFn) -> list[Ranked]:
    places = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), min_size=1, unique=True))
    return [Ranked(place, draw(st.integers(1, 10**9)), -draw(st.floats(0.01, 100))) for place in places]


@given(directions())
def test_buckets_keep_gamma_within_5_percent_of_the_least_and_every_block_of_the_back(points: list[Ranked]) -> None:
    """Oracle: numpy's bins, and the ratio of Gammas, which is -score of the ranker kl."""
    macs = np.array([point.macs for point in points])
    edges = np.linspace(macs.min(), macs.max(), 21)
    bins = np.clip(np.searchsorted(edges, macs, side="right") - 1, 0, 19)
    gammas = np.array([-point.score for point in points])
    assume(np.abs(macs[:, None] - edges[None, 1:-1]).min() >= 1e-6 * macs.max())  # rounding decides at an edge
    wanted = {p.place for p, b, g in zip(points, bins, gammas, strict=True) if g / gammas[bins == b].min() <= 1.05}
    kept = best_of_buckets(points)
    assert wanted <= kept
    for place in kept - wanted:  # only what covers a block of the back that nothing else does, by its least Gamma
        assert not any(back == place[1] for _, back in wanted)
        column = {p.place: -p.score for p in points if p.place[1] == place[1]}
        assert column[place] == min(column.values())
    assert {place[1] for place in kept} == {point.place[1] for point in points}


def test_any_ranker_can_be_kept_by_buckets() -> None:
    """Scores near 1, as CKA's, and some that say nothing."""
    rows = [(0, 0, 10, 0.90), (0, 1, 11, 0.86), (1, 0, 10, 0.85), (1, 1, 200, 0.2), (2, 1, 200, math.nan)]
    points = [Ranked((front, back), macs, score) for front, back, macs, score in rows]
    assert best_of_buckets(points) == {(0, 0), (0, 1), (1, 1)}
    assert best_of_buckets([Ranked((4, 2), 7, math.nan)]) == {(4, 2)}
    assert best_of_buckets([]) == frozenset()


@given(directions(), st.integers(1, 4))
def test_first_partners_are_the_best_scored_of_every_front(points: list[Ranked], top_k: int) -> None:
    kept = first_partners(points, top_k)
    for front in {point.place[0] for point in points}:
        scores = sorted((p.score for p in points if p.place[0] == front), reverse=True)
        assert (
            sorted((p.score for p in points if p.place in kept and p.place[0] == front), reverse=True) == scores[:top_k]
        )
