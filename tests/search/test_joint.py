"""Joint training: shared stitch layers learn together, nothing else changes, and a kill changes no bit of the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from restnet_search.anchors.fitting.resume import read_epoch, write_epoch
from restnet_search.data import Split, load_data
from restnet_search.progress import SilentProgress
from restnet_search.search.features.store import FeatureStore
from restnet_search.search.points.candidates import Candidate
from restnet_search.search.prepare.hybrids import assemble
from restnet_search.search.training.accuracy import score_network
from restnet_search.search.training.context import TrialContext
from restnet_search.search.training.joint import JointBudget, JointTraining
from restnet_search.search.training.teachers import teacher_logits
from restnet_search.space.schema import DataSpec, JointSpec, StitchSpec, TrainingSpec
from restnet_search.stitching.initialize import fit_stitch
from restnet_search.stitching.layer import StitchLayer
from tests.search.stores import Anchors, candidate, context, cut_anchor, disk_store

RESNET, VIT = "cifar_resnet8", "vit"
BUDGET = JointBudget(epochs=3, match_epochs=0, lr=5e-3)


@pytest.fixture(scope="module")
def anchors() -> Anchors:
    return {name: cut_anchor(name) for name in (RESNET, VIT)}


@pytest.fixture(scope="module")
def digits() -> Split:
    return load_data(DataSpec(dataset="digits")).train.subset(torch.arange(160))


@pytest.fixture(scope="module")
def candidates(anchors: Anchors) -> list[Candidate]:
    """Both ways between a CNN with stages and a transformer with one, some of them neighbours."""
    ways = [(RESNET, i, VIT, j) for i in (1, 2) for j in (0, 1)] + [(VIT, j, RESNET, 2) for j in (1, 2)]
    return [candidate(anchors, *way) for way in ways]


def whole(training: JointTraining) -> JointTraining:
    training.initialize()
    training.train(lambda: None, every=1000)
    return training


def weights(training: JointTraining) -> list[torch.Tensor]:
    return [tensor for c in training.candidates for tensor in training.stitch_of(c).state_dict().values()]


def same(one: JointTraining, other: JointTraining) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


@pytest.fixture(scope="module")
def trained(anchors: Anchors, digits: Split, candidates: list[Candidate]) -> JointTraining:
    return whole(JointTraining(candidates, context(anchors, digits), JointSpec(), BUDGET))


def test_only_stitch_layers_change(anchors: Anchors, digits: Split, candidates: list[Candidate]) -> None:
    before = {(n, k): v.clone() for n, cut in anchors.items() for k, v in cut.anchor.model.state_dict().items()}
    training = JointTraining(candidates, context(anchors, digits), JointSpec(), BUDGET)
    training.initialize()
    start = [tensor.clone() for tensor in weights(training)]
    training.train(lambda: None, every=1000)
    for name, cut in anchors.items():  # batch-norm statistics are in the state, too
        for key, value in cut.anchor.model.state_dict().items():
            assert torch.equal(value, before[name, key]), (name, key)
        assert not any(parameter.grad is not None for parameter in cut.anchor.model.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(start, weights(training), strict=True))
    assert training.images == BUDGET.epochs * len(digits)


def test_neighbours_hold_one_layer_and_every_candidate_is_scored_as_its_hybrid(
    anchors: Anchors, digits: Split, trained: JointTraining
) -> None:
    shared = context(anchors, digits)
    outcomes = dict(trained.outcomes())
    assert [outcomes[number].candidate for number in range(len(trained.candidates))] == list(trained.candidates)
    assert len({id(trained.stitch_of(c)) for c in trained.candidates}) == len(trained.shared) < len(trained.candidates)
    for layer in trained.shared:
        assert len({id(trained.stitch_of(member)) for member in layer.members}) == 1
    for outcome in outcomes.values():
        c = outcome.candidate
        front, back = (c.direction.front, c.front_cut), (c.direction.back, c.back_cut)
        hybrid = assemble(shared.graphs, front, outcome.trial.stitch, back)
        assert score_network(hybrid, anchors[front[0]].anchor.preprocessing, shared.val) == outcome.trial.correct
    assert sum(outcome.images for outcome in outcomes.values()) == trained.images
    assert {number for number, _ in trained.outcomes(ended={0, 3})} == set(outcomes) - {0, 3}


def test_the_start_is_least_squares_over_all_members(
    anchors: Anchors, digits: Split, candidates: list[Candidate]
) -> None:
    shared = context(anchors, digits)
    training = JointTraining(candidates, shared, JointSpec(), JointBudget(0, 0, 1e-3))
    training.initialize()
    layer = max(training.shared, key=lambda layer: len(layer.members))
    assert len(layer.members) > 1
    alone = StitchLayer(layer.plan)
    images = shared.fit
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    for c in layer.members:  # from the pixels, all rows at once
        ends = [(c.direction.front, c.front_cut), (c.direction.back, c.back_cut)]
        with torch.no_grad():
            source, target = (
                shared.graphs[name].front(cut)(
                    images.images(anchors[name].anchor.preprocessing, torch.arange(len(images)))
                )
                for name, cut in ends
            )
        pairs.append((source, target))
    r2 = fit_stitch(alone, [(torch.cat([s for s, _ in pairs]), torch.cat([t for _, t in pairs]))], ridge=1e-4)
    found = training.stitch_of(layer.members[0])
    for a, b in zip(alone.state_dict().values(), found.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    fitted = {outcome.candidate.key: outcome.trial.r2 for _, outcome in training.outcomes()}
    assert [fitted[member.key] for member in layer.members] == [pytest.approx(r2, abs=1e-4)] * len(layer.members)


def test_training_lowers_the_loss_of_the_stitch_points_together(
    anchors: Anchors, digits: Split, candidates: list[Candidate]
) -> None:
    shared = context(anchors, digits)

    def loss(epochs: int) -> float:
        training = whole(JointTraining(candidates, shared, JointSpec(), JointBudget(epochs, 0, 1e-2)))
        total = 0.0
        for c in candidates:
            name = c.direction.front
            hybrid = assemble(shared.graphs, (name, c.front_cut), training.stitch_of(c), (c.direction.back, c.back_cut))
            with torch.no_grad():
                logits = hybrid(digits.images(anchors[name].anchor.preprocessing, torch.arange(len(digits))))
            total += F.cross_entropy(logits, digits.labels).item()
        return total / len(candidates)

    assert loss(epochs=6) < loss(epochs=0) - 0.02


def test_the_same_seed_gives_the_same_and_another_another(
    anchors: Anchors, digits: Split, candidates: list[Candidate], trained: JointTraining
) -> None:
    again = whole(JointTraining(candidates, context(anchors, digits), JointSpec(), BUDGET))
    assert same(trained, again)
    other = whole(JointTraining(candidates, context(anchors, digits, seed=1), JointSpec(), BUDGET))
    assert not same(trained, other)


@pytest.mark.parametrize("matching", [0, 1])
def test_a_training_that_was_cut_off_goes_on_to_the_same_bits(
    anchors: Anchors, digits: Split, candidates: list[Candidate], tmp_path: Path, matching: int
) -> None:
    settings: dict[str, Any] = {
        "training": TrainingSpec(batch_size=32, views=2, match_epochs=[matching], distill=[0.3]),
        "teachers": teacher_logits(anchors, digits, SilentProgress()),
    }
    budget = JointBudget(2, 2 * matching, 5e-3)

    def fresh() -> JointTraining:
        return JointTraining(candidates, context(anchors, digits, **settings), JointSpec(), budget)

    uninterrupted, first = whole(fresh()), fresh()
    path, saved = tmp_path / "joint.pt", list[int]()

    def save() -> None:
        write_epoch(path, first.state())
        saved.append(first.done)

    class Killed(Exception):
        pass

    def advance() -> None:
        if first.done == 8:
            raise Killed

    first.initialize()
    with pytest.raises(Killed):
        first.train(save, every=3, advance=advance)
    assert saved == [3, 6]
    second = fresh()
    assert second.restore(read_epoch(path)) and second.done == 6
    second.train(lambda: None, every=100)
    assert same(uninterrupted, second)
    assert second.images == uninterrupted.images
    assert [o.trial.r2 for _, o in second.outcomes()] == [o.trial.r2 for _, o in uninterrupted.outcomes()]
    assert [o.trial.correct for _, o in second.outcomes()] == [o.trial.correct for _, o in uninterrupted.outcomes()]
    other = JointTraining(candidates[:-1], context(anchors, digits, **settings), JointSpec(), budget)
    assert not other.restore(read_epoch(path)) and other.done == 0
    assert not fresh().restore(None)


def test_features_kept_on_disk_and_passed_through_train_the_same(
    anchors: Anchors, digits: Split, candidates: list[Candidate], trained: JointTraining, tmp_path: Path
) -> None:
    kept = context(anchors, digits, store=disk_store(anchors, tmp_path))
    assert same(trained, whole(JointTraining(candidates, kept, JointSpec(), BUDGET)))
    store = FeatureStore(anchors, 100_000)  # holds one cut point, not all
    passed = whole(JointTraining(candidates, context(anchors, digits, store=store), JointSpec(), BUDGET))
    for a, b in zip(weights(trained), weights(passed), strict=True):
        assert (a - b).norm() <= 1e-3 * a.norm()  # other batches of the pass round otherwise, nothing more


def test_a_loss_that_is_not_finite_ends_those_that_share_the_layer_alone(
    anchors: Anchors, digits: Split, candidates: list[Candidate]
) -> None:
    training = JointTraining(candidates, context(anchors, digits), JointSpec(), BUDGET)
    training.initialize()
    spoilt = candidates[-1]
    with torch.no_grad():
        next(iter(training.stitch_of(spoilt).parameters())).fill_(float("nan"))
    training.train(lambda: None, every=1000)
    sharing = {number for number, c in enumerate(candidates) if training.stitch_of(c) is training.stitch_of(spoilt)}
    assert set(training.failed) == sharing != set(range(len(candidates)))
    assert "nan" in training.failed[len(candidates) - 1]
    assert {found for found, _ in training.outcomes()} == set(range(len(candidates))) - sharing
    others = [c for c in candidates if training.stitch_of(c) is not training.stitch_of(spoilt)]
    assert all(torch.isfinite(v).all() for c in others for v in training.stitch_of(c).state_dict().values())


def test_a_deadline_stops_it_and_what_it_reached_counts(
    anchors: Anchors, digits: Split, candidates: list[Candidate]
) -> None:
    training = JointTraining(candidates, context(anchors, digits), JointSpec(), BUDGET)
    training.initialize()
    saved: list[int] = []
    training.train(lambda: saved.append(training.done), every=1000, deadline=0.0)
    assert training.stopped and training.ended and training.done == 1 and saved == [1]
    assert len(list(training.outcomes())) == len(candidates)
    again = JointTraining(candidates, context(anchors, digits), JointSpec(), BUDGET)
    assert again.restore(training.state()) and again.ended


def test_random_starts_are_drawn_per_layer(anchors: Anchors, digits: Split, candidates: list[Candidate]) -> None:
    shared: TrialContext = context(anchors, digits, stitch=StitchSpec(init="random"))
    one, other = (JointTraining(candidates, shared, JointSpec(), BUDGET) for _ in range(2))
    one.initialize()
    assert same(one, other)
    assert all(outcome.trial.r2 is None for _, outcome in one.outcomes())
