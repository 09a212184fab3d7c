"""Trials: the stitch layer alone changes, failures are kept, features are what the front computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from restnet_search.data import Split, load_data
from restnet_search.errors import RunError
from restnet_search.progress import SilentProgress
from restnet_search.search.features.memory_features import MemoryFeatures
from restnet_search.search.features.store import FeatureStore
from restnet_search.search.prepare.cut_anchor import CutAnchor
from restnet_search.search.prepare.hybrids import assemble, restore_hybrid, trained_tensors
from restnet_search.search.run.records import Direction
from restnet_search.search.run.run_folder import RunFolder
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.training.accuracy import score_network
from restnet_search.search.training.stitch_trainer import NonFiniteLoss
from restnet_search.search.training.teachers import teacher_logits
from restnet_search.space.schema import DataSpec, Order, StitchSpec, TrainingSpec
from restnet_search.stitching.tuning import TUNES, Tune
from tests.search.stores import candidate, context, cut_anchor, run_trial


@pytest.fixture(scope="module")
def anchors() -> dict[str, CutAnchor]:
    return {name: cut_anchor(name) for name in ("cifar_resnet8", "vit")}


@pytest.fixture(scope="module")
def digits() -> Split:
    return load_data(DataSpec(dataset="digits")).train.subset(torch.arange(192))


@pytest.mark.parametrize(("front", "back"), [("cifar_resnet8", "vit"), ("vit", "cifar_resnet8")])
def test_only_the_stitch_layer_changes(anchors: dict[str, CutAnchor], digits: Split, front: str, back: str) -> None:
    before = {
        (name, key): value.clone()
        for name, cut in anchors.items()
        for key, value in cut.anchor.model.state_dict().items()
    }
    chosen = candidate(anchors, front, 1, back, 1)
    start = run_trial(chosen, TrainingChoices(lr=1e-2, epochs=0), context(anchors, digits)).stitch
    trained = run_trial(chosen, TrainingChoices(lr=1e-2, epochs=1), context(anchors, digits)).stitch
    for name, cut in anchors.items():  # batch-norm statistics are in the state, too
        for key, value in cut.anchor.model.state_dict().items():
            assert torch.equal(value, before[name, key]), (name, key)
        assert not any(parameter.grad is not None for parameter in cut.anchor.model.parameters())
    changed = [not torch.equal(a, b) for a, b in zip(start.parameters(), trained.parameters(), strict=True)]
    assert all(changed)


def test_training_lowers_the_loss_it_is_given(anchors: dict[str, CutAnchor], digits: Split) -> None:
    chosen, shared = candidate(anchors, "vit", 1, "cifar_resnet8", 1), context(anchors, digits)
    images = digits.images(anchors["vit"].anchor.preprocessing, torch.arange(len(digits)))

    def loss(epochs: int) -> float:
        stitch = run_trial(chosen, TrainingChoices(lr=1e-2, epochs=epochs), shared).stitch
        with torch.no_grad():
            logits = assemble(shared.graphs, ("vit", 1), stitch, ("cifar_resnet8", 1))(images)
        return F.cross_entropy(logits, digits.labels).item()

    assert loss(epochs=4) < loss(epochs=0)


def test_a_trial_gives_the_same_result_again(anchors: dict[str, CutAnchor], digits: Split) -> None:
    chosen, choices = candidate(anchors, "vit", 1, "cifar_resnet8", 1), TrainingChoices(lr=3e-3, epochs=1)
    first = run_trial(chosen, choices, context(anchors, digits))
    second = run_trial(chosen, choices, context(anchors, digits))
    assert first.correct == second.correct
    for a, b in zip(first.stitch.parameters(), second.stitch.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_score_is_that_of_the_assembled_hybrid(anchors: dict[str, CutAnchor], digits: Split) -> None:
    chosen, shared = candidate(anchors, "cifar_resnet8", 2, "vit", 2), context(anchors, digits)
    outcome = run_trial(chosen, TrainingChoices(lr=3e-3, epochs=1), shared)
    hybrid = assemble(shared.graphs, ("cifar_resnet8", 2), outcome.stitch, ("vit", 2)).eval()
    assert score_network(hybrid, anchors["cifar_resnet8"].anchor.preprocessing, shared.val) == outcome.correct


def test_a_loss_that_is_not_finite_fails_the_trial(anchors: dict[str, CutAnchor], digits: Split) -> None:
    broken = anchors | {"vit": cut_anchor("vit")}
    with torch.no_grad():
        broken["vit"].anchor.model.get_parameter("head.bias").fill_(float("nan"))
    with pytest.raises(NonFiniteLoss, match="nan"):
        run_trial(candidate(broken, "cifar_resnet8", 1, "vit", 1), TrainingChoices(1e-3, 1), context(broken, digits))


@pytest.mark.parametrize("capacity", [0, 2**20, 2**30])
def test_stored_features_are_those_of_the_front(anchors: dict[str, CutAnchor], digits: Split, capacity: int) -> None:
    store = FeatureStore(anchors, capacity)
    images = digits.subset(torch.arange(40))
    preprocessing = anchors["cifar_resnet8"].anchor.preprocessing
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    for cut in (1, 3, 2):
        wanted = torch.cat(
            [anchors["cifar_resnet8"].graph.front(cut)(x) for x in images.batches(preprocessing, 16, order)]
        )
        stored = torch.cat(list(store.batches("cifar_resnet8", cut, images, 16, order)))
        torch.testing.assert_close(stored, wanted, rtol=1e-5, atol=1e-5)
    assert isinstance(store._level, MemoryFeatures)
    assert sum(tensor.nbytes for tensor in store._level._kept.values()) <= capacity


def test_reading_features_leaves_gradients_on_for_the_caller(anchors: dict[str, CutAnchor], digits: Split) -> None:
    for capacity in (0, 2**30):
        for _ in FeatureStore(anchors, capacity).batches("vit", 1, digits.subset(torch.arange(8)), 4):
            assert torch.is_grad_enabled()


@pytest.mark.parametrize("tune", [tune for tune in TUNES if tune != "stitch"])
def test_what_is_tuned_beside_the_stitch_is_scored_saved_and_read_back(
    anchors: dict[str, CutAnchor], digits: Split, tune: Tune, tmp_path: Path
) -> None:
    before = {name: {k: v.clone() for k, v in cut.anchor.model.state_dict().items()} for name, cut in anchors.items()}
    chosen, shared = candidate(anchors, "vit", 1, "cifar_resnet8", 1), context(anchors, digits)
    outcome = run_trial(chosen, TrainingChoices(lr=3e-3, epochs=1, tune=tune), shared)
    for name, cut in anchors.items():
        assert all(torch.equal(value, before[name][key]) for key, value in cut.anchor.model.state_dict().items())
    own = {**dict(anchors["cifar_resnet8"].graph.back(1).named_parameters()), **before["cifar_resnet8"]}
    changed = {key for key, value in outcome.tuned.items() if not torch.equal(value, own[key])}
    kinds = {key.rpartition(".")[2] for key in changed}
    assert {"running_mean", "running_var"} <= kinds
    assert kinds <= {"running_mean", "running_var", "weight", "bias"}
    assert (tune == "stitch+norm-stats") == (not kinds & {"weight", "bias"})

    front = dict(anchors["vit"].graph.front(1).named_parameters())
    assert outcome.tuned_front.keys() == (front.keys() if tune == "hybrid" else set())
    assert all(not torch.equal(value, front[key]) for key, value in outcome.tuned_front.items())

    folder = RunFolder(tmp_path)
    folder.save_stitch("h000", trained_tensors(outcome.stitch, outcome.tuned, outcome.tuned_front))
    hybrid = restore_hybrid(shared.graphs, "linear", ("vit", 1), ("cifar_resnet8", 1), folder.stitch("h000"))
    assert score_network(hybrid, anchors["vit"].anchor.preprocessing, shared.val) == outcome.correct


def test_a_tuned_hybrid_of_another_back_is_refused(
    anchors: dict[str, CutAnchor], digits: Split, tmp_path: Path
) -> None:
    shared = context(anchors, digits)
    stitch = run_trial(candidate(anchors, "vit", 1, "cifar_resnet8", 1), TrainingChoices(1e-3, 0), shared).stitch
    folder = RunFolder(tmp_path)
    folder.save_stitch("h000", trained_tensors(stitch, {"nowhere.weight": torch.zeros(3)}))
    with pytest.raises(RunError, match=r"nowhere\.weight"):
        restore_hybrid(shared.graphs, "linear", ("vit", 1), ("cifar_resnet8", 1), folder.stitch("h000"))


def test_a_stitch_layer_that_was_changed_is_refused(
    anchors: dict[str, CutAnchor], digits: Split, tmp_path: Path
) -> None:
    """A flipped bit in a weight is a number like another: only the digest in the record tells."""
    shared = context(anchors, digits)
    stitch = run_trial(candidate(anchors, "vit", 1, "cifar_resnet8", 1), TrainingChoices(1e-3, 0), shared).stitch
    folder = RunFolder(tmp_path)
    digest = folder.save_stitch("h000", trained_tensors(stitch, {}))
    where = (shared.graphs, "linear", ("vit", 1), ("cifar_resnet8", 1), folder.stitch("h000"))
    restore_hybrid(*where, digest)
    raw = bytearray(folder.stitch("h000").read_bytes())
    raw[-9] ^= 1
    folder.stitch("h000").write_bytes(raw)
    restore_hybrid(*where)  # as in runs of earlier versions, which have none
    with pytest.raises(RunError, match="changed after it was written"):
        restore_hybrid(*where, digest)


def test_new_statistics_help_a_back_whose_features_moved(anchors: dict[str, CutAnchor], digits: Split) -> None:
    """A front whose features are scaled and shifted: what the batch-norms of the back expect is not what comes."""
    shared = context(anchors, digits, stitch=StitchSpec(init="random"))
    chosen = candidate(anchors, "vit", 1, "cifar_resnet8", 1)
    plain, restat = (
        run_trial(chosen, TrainingChoices(lr=1e-3, epochs=0, tune=tune), shared)
        for tune in ("stitch", "stitch+norm-stats")
    )
    features = torch.cat(list(shared.store.batches("vit", 1, digits, 64)))
    inside: dict[str, torch.Tensor] = {}
    for name, outcome in (("plain", plain), ("restat", restat)):
        hybrid = assemble(shared.graphs, ("vit", 1), outcome.stitch, ("cifar_resnet8", 1), outcome.tuned)
        (norm,) = [m for key, m in hybrid.back.named_modules() if key == "layer2.0.bn1"]
        hook = norm.register_forward_hook(lambda _, __, output, name=name: inside.update({name: output}))
        with torch.no_grad():
            hybrid.back(hybrid.stitch(features))
        hook.remove()
    norm = anchors["cifar_resnet8"].graph.traced.module.get_submodule("layer2.0.bn1")
    scale, shift = norm.get_parameter("weight"), norm.get_parameter("bias")

    def off(values: torch.Tensor) -> float:
        spread = (values.std(dim=(0, 2, 3)) / scale.abs()).log().abs()
        return (spread + (values.mean(dim=(0, 2, 3)) - shift).abs()).mean().item()

    assert off(inside["restat"]) < 0.2 < off(inside["plain"])


def test_matching_brings_the_stitch_nearer_to_the_back_anchors_features(
    anchors: dict[str, CutAnchor], digits: Split
) -> None:
    chosen = candidate(anchors, "vit", 1, "cifar_resnet8", 1)

    def distance(epochs: int) -> float:
        shared = context(anchors, digits, stitch=StitchSpec(init="random"), training=TrainingSpec(batch_size=32))
        stitch = run_trial(chosen, TrainingChoices(lr=1e-2, epochs=0, match_epochs=epochs), shared).stitch
        with torch.no_grad():
            source, wanted = (
                torch.cat(list(shared.store.batches(name, 1, digits, 64))) for name in ("vit", "cifar_resnet8")
            )
            return F.mse_loss(stitch(source), wanted).item()

    assert distance(0) > distance(2) > distance(8)


@pytest.mark.parametrize(("front", "back"), [("cifar_resnet8", "vit"), ("vit", "cifar_resnet8")])
def test_matching_at_the_end_brings_the_hybrids_final_features_nearer_to_the_back_anchors(
    anchors: dict[str, CutAnchor], digits: Split, front: str, back: str
) -> None:
    """The oracle reads what enters the classifier, of the anchor and of the hybrid."""
    chosen = candidate(anchors, front, 1, back, 1)
    last = {"cifar_resnet8": "linear", "vit": "head"}[back]
    model, seen = anchors[back].graph.traced.module, {}
    images = digits.images(anchors[back].anchor.preprocessing, torch.arange(len(digits)))

    def distance(epochs: int) -> float:
        shared = context(anchors, digits, stitch=StitchSpec(init="random"), training=TrainingSpec(batch_size=32))
        choices = TrainingChoices(lr=1e-2, epochs=0, match_epochs=epochs, match_at="final")
        stitch = run_trial(chosen, choices, shared).stitch
        source = torch.cat(list(shared.store.batches(front, 1, digits, 64)))
        outputs = []
        with torch.no_grad():
            for part, given in ((model, images), (anchors[back].graph.back(1), stitch(source))):
                hook = part.get_submodule(last).register_forward_pre_hook(
                    lambda _, inputs: seen.update(final=inputs[0])
                )
                part(given)
                hook.remove()
                outputs.append(seen["final"])
        return F.mse_loss(*outputs).item()

    assert distance(0) > distance(2) > distance(8)


def test_distillation_follows_the_larger_anchor(anchors: dict[str, CutAnchor], digits: Split) -> None:
    teachers = teacher_logits(anchors, digits, SilentProgress())
    preprocessing = anchors["vit"].anchor.preprocessing
    with torch.no_grad():
        wanted = anchors["vit"].anchor.model(digits.images(preprocessing, torch.arange(len(digits))))
    torch.testing.assert_close(teachers["vit"], wanted, rtol=1e-4, atol=1e-5)
    chosen = candidate(anchors, "vit", 1, "cifar_resnet8", 1)  # large to small: the ViT is the larger

    def divergence(share: float) -> float:
        shared = context(anchors, digits, training=TrainingSpec(batch_size=32), teachers=teachers)
        stitch = run_trial(chosen, TrainingChoices(lr=1e-2, epochs=4, distill=share), shared).stitch
        with torch.no_grad():
            logits = assemble(shared.graphs, ("vit", 1), stitch, ("cifar_resnet8", 1))(
                digits.images(preprocessing, torch.arange(len(digits)))
            )
        return F.kl_div(logits.log_softmax(1), wanted.log_softmax(1), log_target=True, reduction="batchmean").item()

    assert divergence(1.0) < divergence(0.0)


@pytest.mark.parametrize("order", ["large_to_small", "small_to_large"])
def test_only_backs_of_the_larger_anchor_may_be_made_to_follow_it(
    anchors: dict[str, CutAnchor], digits: Split, order: Order
) -> None:
    front, back = ("vit", "cifar_resnet8") if order == "large_to_small" else ("cifar_resnet8", "vit")
    chosen = replace(candidate(anchors, front, 1, back, 1), direction=Direction(front, back, order))
    teachers, follows = teacher_logits(anchors, digits, SilentProgress()), order == "small_to_large"

    def weights(share: float, backs: str) -> torch.Tensor:
        shared = context(
            anchors,
            digits,
            training=TrainingSpec.model_validate({"batch_size": 32, "distill_backs": backs}),
            teachers=teachers,
        )
        stitch = run_trial(chosen, TrainingChoices(lr=1e-2, epochs=1, distill=share), shared).stitch
        return torch.cat([tensor.flatten() for tensor in stitch.state_dict().values()])

    wanted = weights(0.5, "all") if follows else weights(0.0, "all")
    assert torch.equal(weights(0.5, "larger"), wanted)
    assert not torch.equal(weights(0.5, "all"), weights(0.0, "all"))
