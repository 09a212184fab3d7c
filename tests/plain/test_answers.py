from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restnet_search.plain.answers import Answers, PairedCounts, paired_counts

two_networks = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=70)


@given(two_networks)
def test_counts_of_two_networks_are_those_of_their_images_one_by_one(images: list[tuple[bool, bool]]) -> None:
    first, second = (Answers.of([pair[side] for pair in images], "digest") for side in (0, 1))
    counts = paired_counts(first, second)
    pairs = (True, True), (True, False), (False, True), (False, False)
    both, only_first, only_second, neither = map(images.count, pairs)
    assert counts == PairedCounts(both, only_first, only_second, neither)
    assert counts is not None and counts.n == len(images)
    assert first.contradiction() is None and first.correct == sum(mine for mine, _ in images)


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_bits_are_what_numpy_unpacks_in_the_order_of_the_images(correct: list[bool]) -> None:
    packed = np.frombuffer(base64.b64decode(Answers.of(correct, "digest").bits), dtype=np.uint8)
    assert np.unpackbits(packed)[: len(correct)].astype(bool).tolist() == correct


def test_answers_to_other_images_are_not_compared() -> None:
    ours = Answers.of([True, False, True], "these")
    assert paired_counts(ours, Answers.of([True, False, True], "others")) is None
    assert paired_counts(ours, Answers.of([True, False], "these")) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bits": "no base64!"}, "no base64"),
        ({"bits": "\u00e4\u00e4\u00e4\u00e4"}, "no base64"),
        ({"n": 9}, "not those of 9 images"),
        ({"bits": base64.b64encode(b"\xa1").decode()}, "not those of 3 images"),  # a bit behind the last image
        ({"correct": 3}, "2 of them are 1, not 3"),
    ],
)
def test_bits_that_do_not_fit_their_numbers_are_named(change: dict[str, object], words: str) -> None:
    wrong = replace(Answers.of([True, False, True], "digest"), **change)
    assert words in (wrong.contradiction() or "")
