"""Trials together on one pass reach what each reaches alone; augmented views are the same in every pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from restnet_search.data import Split, load_data
from restnet_search.data.augmented_views import AugmentedView, images_of
from restnet_search.search.features.store import FeatureStore
from restnet_search.search.points.candidates import Candidate
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.training.stitch_trainer import FailedTrial, NonFiniteLoss, TrialOutcome
from restnet_search.search.training.trial import image_order, run_trials
from restnet_search.space.schema import DataSpec, MatchAt, StitchSpec, TrainingSpec, Tune
from tests.search.stores import Anchors, candidate, context, cut_anchor, disk_store, run_trial

RESNET, VIT = "cifar_resnet8", "vit"
Job = tuple[Candidate, TrainingChoices]


@pytest.fixture(scope="module")
def anchors() -> Anchors:
    return {name: cut_anchor(name) for name in (RESNET, VIT)}


@pytest.fixture(scope="module")
def digits() -> Split:
    return load_data(DataSpec(dataset="digits")).train.subset(torch.arange(192))


@pytest.fixture(scope="module")
def jobs(anchors: Anchors) -> list[Job]:
    """Two cut points of one front, two backs of the same cut point, one and two epochs."""
    return [
        (candidate(anchors, RESNET, 1, VIT, 1), TrainingChoices(3e-3, 1)),
        (candidate(anchors, RESNET, 2, VIT, 1), TrainingChoices(1e-2, 2)),
        (candidate(anchors, RESNET, 2, VIT, 2), TrainingChoices(5e-3, 0)),
        (candidate(anchors, RESNET, 0, RESNET, 1), TrainingChoices(5e-3, 1)),
    ]


def finished(outcomes: list[TrialOutcome | FailedTrial]) -> list[TrialOutcome]:
    assert all(isinstance(outcome, TrialOutcome) for outcome in outcomes)
    return [outcome for outcome in outcomes if isinstance(outcome, TrialOutcome)]


def assert_equal(one: TrialOutcome, other: TrialOutcome) -> None:
    assert (one.correct, one.seen, one.r2) == (other.correct, other.seen, other.r2)
    for a, b in zip(one.stitch.state_dict().values(), other.stitch.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert one.tuned.keys() == other.tuned.keys()
    assert all(torch.equal(one.tuned[name], other.tuned[name]) for name in one.tuned)


@pytest.mark.parametrize("init", ["lstsq", "random"])
def test_together_is_alone_to_the_last_bit(anchors: Anchors, digits: Split, jobs: list[Job], init: str) -> None:
    def fresh() -> FeatureStore:
        return FeatureStore(anchors, 0)

    stitch = StitchSpec(init=init)  # pyright: ignore[reportArgumentType]
    together_store = fresh()
    together = finished(run_trials(jobs, context(anchors, digits, store=together_store, stitch=stitch)))
    forwarded = 0
    for job, outcome in zip(jobs, together, strict=True):
        shared = context(anchors, digits, store=fresh(), stitch=stitch)
        (alone,) = finished(run_trials([job], shared))
        assert_equal(outcome, alone)
        forwarded += shared.store.statistics.forwarded
    assert together_store.statistics.forwarded < forwarded
    # two epochs and val; and the closed form's images, once for the front and once for each anchor behind
    closed_form = {"lstsq": 96 * 3, "random": 0}[init]
    assert together_store.statistics.forwarded == 2 * 192 + 60 + closed_form


@pytest.mark.parametrize(
    ("tune", "match_at", "keys"),
    [
        ("stitch", "stitch", {}),
        ("stitch+norm", "final", {"norms": "batch"}),
        ("all", "final", {"norms": "batch", "whiten": True}),
    ],
)
def test_wherever_features_are_kept_the_trials_are_the_same_to_the_last_bit(
    anchors: Anchors,
    digits: Split,
    jobs: list[Job],
    tmp_path: Path,
    tune: Tune,
    match_at: MatchAt,
    keys: dict[str, Any],
) -> None:
    """In memory, on disk and passed through, in one group and alone; with matching, a teacher and views."""
    made = {"tune": tune, "match_epochs": 1, "match_at": match_at, "distill": 0.5}
    chosen = [(point, replace(choices, **made)) for point, choices in jobs]
    training = TrainingSpec(batch_size=50, views=2, **keys)  # no divisor of a pass's batch, nor of the images
    teachers = {name: torch.randn(192, 10, generator=torch.Generator().manual_seed(1)) for name in anchors}
    stores = [FeatureStore(anchors, 2**30), FeatureStore(anchors, 0), disk_store(anchors, tmp_path)]
    reached = [
        finished(run_trials(chosen, context(anchors, digits, store=store, training=training, teachers=teachers)))
        for store in stores
    ]
    alone = [
        finished(run_trials([job], context(anchors, digits, training=training, teachers=teachers)))[0] for job in chosen
    ]
    for outcomes in zip(*reached, alone, strict=True):
        for outcome in outcomes[1:]:
            assert_equal(outcomes[0], outcome)


def test_a_loss_that_is_not_finite_ends_its_own_trial_alone(anchors: Anchors, digits: Split, jobs: list[Job]) -> None:
    wild = (jobs[1][0], TrainingChoices(1e38, 2))
    outcomes = run_trials([jobs[0], wild, jobs[2]], context(anchors, digits))
    assert isinstance(outcomes[1], NonFiniteLoss)
    for job, outcome in ((jobs[0], outcomes[0]), (jobs[2], outcomes[2])):
        (alone,) = finished(run_trials([job], context(anchors, digits)))
        assert isinstance(outcome, TrialOutcome)
        assert_equal(outcome, alone)


def test_different_front_anchors_are_refused(anchors: Anchors, digits: Split, jobs: list[Job]) -> None:
    other = (candidate(anchors, VIT, 1, RESNET, 1), TrainingChoices(1e-3, 1))
    with pytest.raises(ValueError, match="one front anchor"):
        run_trials([jobs[0], other], context(anchors, digits))


def test_orders_are_permutations_that_differ_between_epochs_and_anchors() -> None:
    orders = [image_order(0, front, epoch, 50) for front in ("a", "b") for epoch in (0, 1)]
    assert all(sorted(order.tolist()) == list(range(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 4
    assert torch.equal(orders[0], image_order(0, "a", 0, 50))


@pytest.mark.parametrize("front", [RESNET, VIT])
def test_a_trial_from_disk_is_the_trial_from_memory(
    anchors: Anchors, digits: Split, tmp_path: Path, front: str
) -> None:
    back = VIT if front == RESNET else RESNET
    chosen, choices = candidate(anchors, front, 1, back, 1), TrainingChoices(5e-3, 2)
    memory = run_trial(chosen, choices, context(anchors, digits))
    exact = run_trial(chosen, choices, context(anchors, digits, store=disk_store(anchors, tmp_path)))
    assert_equal(memory, exact)
    half = disk_store(anchors, tmp_path, dtype="float16")
    rounded = run_trial(chosen, choices, context(anchors, digits, store=half))
    for a, b in zip(memory.stitch.parameters(), rounded.stitch.parameters(), strict=True):
        assert (a - b).norm() <= 0.02 * a.norm()


class TestAugmentedViews:
    def test_a_view_is_the_same_in_any_order_and_leaves_the_generators_alone(
        self, anchors: Anchors, digits: Split
    ) -> None:
        preprocessing, seen = anchors[RESNET].anchor.preprocessing, AugmentedView(1, seed=3)
        order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
        state = torch.get_rng_state()
        straight = torch.cat(list(images_of(digits, preprocessing, 7, torch.arange(20), seen)))
        shuffled = torch.cat(list(images_of(digits, preprocessing, 5, order, seen)))
        assert torch.equal(state, torch.get_rng_state())
        assert torch.equal(straight[order], shuffled)
        plain = torch.cat(list(images_of(digits, preprocessing, 7, torch.arange(20), None)))
        other = torch.cat(list(images_of(digits, preprocessing, 7, torch.arange(20), AugmentedView(2, seed=3))))
        for one, two in ((plain, straight), (plain, other), (straight, other)):
            assert (one != two).flatten(1).any(dim=1).all()

    def test_epochs_take_turns_and_stored_views_are_those_passed_through(
        self, anchors: Anchors, digits: Split, tmp_path: Path, jobs: list[Job]
    ) -> None:
        job = (jobs[0][0], TrainingChoices(3e-3, 3))
        views = TrainingSpec(batch_size=32, views=2)
        kept = disk_store(anchors, tmp_path)
        stored = finished(run_trials([job], context(anchors, digits, store=kept, training=views)))[0]
        streamed = context(anchors, digits, store=FeatureStore(anchors, 0), training=views)
        passed = finished(run_trials([job], streamed))[0]
        plain = finished(run_trials([job], context(anchors, digits)))[0]
        assert_equal(stored, passed)
        assert not torch.equal(next(stored.stitch.parameters()), next(plain.stitch.parameters()))
        # train plain and augmented once each for three epochs, val, and the closed form's images of the back
        assert kept.statistics.forwarded == 2 * 192 + 60 + 96
