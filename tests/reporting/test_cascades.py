"""Cascades of two anchors: the threshold is the best on val within the MACs, and test is scored by its rule alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restnet_search.plain.answers import Answers
from restnet_search.plain.predictions import Predictions
from restnet_search.reporting.assemble.cascades import cascade_entries, choose_threshold
from restnet_search.reporting.results_file.codec import from_json, to_json

from . import samples

seen = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.2, 0.5, 0.6, 0.9, 1.0]), st.booleans()), min_size=1, max_size=12
)


def predictions(correct: list[bool], confidence: list[float], images: str = "val") -> Predictions:
    return Predictions(images, np.array(correct), np.array(confidence, np.float64))


def both(rows: list[tuple[bool, float, bool]]) -> tuple[Predictions, Predictions]:
    small, sure, large = (list(column) for column in zip(*rows, strict=True))
    return predictions(small, sure), predictions(large, [0.5] * len(rows))


def every_rule(rows: list[tuple[bool, float, bool]], most: int) -> dict[int, int]:
    """Images left to the large network -> correct answers, of every rule that leaves some to each: one by one."""
    rules: dict[int, int] = {}
    for least in {sure for _, sure, _ in rows}:
        left = [sure < least for _, sure, _ in rows]
        if 0 < sum(left) <= most:
            rules[sum(left)] = sum(large if one else small for one, (small, _, large) in zip(left, rows, strict=True))
    return rules


@given(seen, st.integers(-1, 12))
def test_the_threshold_is_the_best_of_all_within_the_share_and_of_equals_the_cheapest(
    rows: list[tuple[bool, float, bool]], most: int
) -> None:
    chosen, rules = choose_threshold(*both(rows), most), every_rule(rows, most)
    if not rules:
        assert chosen is None
        return
    assert chosen is not None
    best = max(rules.values())
    assert chosen.correct == best
    assert chosen.deferred == min(count for count, correct in rules.items() if correct == best)
    assert sum(sure < chosen.value for _, sure, _ in rows) == chosen.deferred
    assert min(abs(sure - chosen.value) for _, sure, _ in rows) > 0.04  # halfway: no rounding moves an image


def test_predictions_for_other_images_are_refused() -> None:
    small = predictions([True, False], [0.4, 0.9])
    for other in (predictions([True, False], [0.4, 0.9], "test"), predictions([True], [0.4])):
        with pytest.raises(ValueError, match="the same images"):
            choose_threshold(small, other, 1)


def drawn(seed: int, n: int, share: float, images: str) -> Predictions:
    """Answers that are right more often where the network is sure."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.1, 1.0, n)
    return Predictions(images, rng.uniform(size=n) < share * confidence**0.3, confidence)


SEEN = {
    name: {"val": drawn(seed, 500, share, "v"), "test": drawn(seed + 9, 400, share, "t")}
    for seed, (name, share) in enumerate([(samples.SMALL, 0.9), (samples.LARGE, 1.0)])
}


def test_a_pick_and_its_budget_get_the_best_cascade_at_their_macs() -> None:
    report = samples.report(budgets=["85MFLOPs", "500kparams", "13MFLOPs"], predictions=SEEN)
    small, large = (report.entry(name) for name in (samples.SMALL, samples.LARGE))
    cascades = {(one.budget, one.at): one for one in report.rivals.cascades}
    assert ("500kparams", "budget") not in cascades  # it does not limit MACs
    first = cascades["85MFLOPs", "budget"]
    assert (first.small, first.large, first.limit) == (small.id, large.id, 85_000_000)
    assert (first.cost.macs, first.cost.params) == (small.macs + large.macs, small.params + large.params)
    for one in cascades.values():
        for split in ("val", "test"):
            mine, other = (SEEN[name][split] for name in (one.small, one.large))
            left = np.array([sure < one.threshold for sure in mine.confidence])
            right = np.where(left, other.correct, mine.correct)
            assert one.deferred[split] == pytest.approx(left.mean())
            assert one.mean_macs[split] == pytest.approx(small.macs + left.mean() * large.macs)
            assert (one.val if split == "val" else one.test).top1 == pytest.approx(right.mean())
            if split == "test":
                assert one.test.answers == Answers.of(right.tolist(), "t")
        assert one.mean_macs["val"] <= one.limit
    assert cascades["85MFLOPs", "pick"].limit == report.entry(str(report.budget("85MFLOPs").pick)).macs
    assert from_json(to_json(report)) == report


def test_no_cascade_stands_where_not_one_image_could_go_further() -> None:
    entries = samples.report(budgets=["12.6MFLOPs"])
    macs = {samples.SMALL: samples.MACS[samples.SMALL]}
    assert cascade_entries(entries.anchors, entries.budgets, {entries.budgets[0].name: macs[samples.SMALL]}, SEEN) == ()


def test_a_report_of_an_earlier_version_has_no_rivals() -> None:
    plain = to_json(samples.report())
    del plain["rivals"]
    assert from_json(plain).rivals.cascades == ()
