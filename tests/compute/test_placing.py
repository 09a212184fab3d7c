"""A search on a GPU, real or pretended: every tensor lies where it must, and what is found is what the CPU finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from restnet_search.compute import Compute, open_compute
from restnet_search.data import Split, load_data
from restnet_search.pipeline import run_search
from restnet_search.progress import SilentProgress
from restnet_search.registry import RANKERS
from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.results_file.codec import read_results
from restnet_search.search.features.disk_features import DiskFeatures
from restnet_search.search.features.disk_store import DiskStore
from restnet_search.search.features.store import FeatureStore
from restnet_search.search.prepare.placement import move_to_device
from restnet_search.search.ranking import rank_pairs
from restnet_search.search.run.run_folder import RunFolder, RunInputs
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.training.closed_form import closed_form_scores
from restnet_search.search.training.joint import JointBudget, JointTraining
from restnet_search.search.training.stitch_trainer import TrialOutcome
from restnet_search.search.training.teachers import teacher_logits
from restnet_search.search.training.trial import run_trials
from restnet_search.space import parse_space
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import ComputeSpec, DataSpec, JointSpec, RankerSpec, TrainingSpec
from restnet_search.stitching.tuning import TUNES, Tune
from tests.compute.pretend import lies_on_gpu, pretend_gpu
from tests.search.stores import Anchors, candidate, context, cut_anchor, disk_store, run_trial

RESNET, VIT = "cifar_resnet8", "vit"
FLOAT32 = ComputeSpec(device="cuda", precision="float32")


@pytest.fixture(scope="module")
def digits() -> Split:
    return load_data(DataSpec(dataset="digits")).train.subset(torch.arange(192))


def two() -> Anchors:
    return {name: cut_anchor(name) for name in (RESNET, VIT)}


def on_gpu(spec: ComputeSpec = FLOAT32) -> tuple[Anchors, Compute]:
    anchors, compute = two(), open_compute(spec)
    move_to_device(anchors, compute)
    return anchors, compute


def test_features_and_networks_lie_on_the_device(digits: Split) -> None:
    with pretend_gpu():
        anchors, compute = on_gpu()
        assert all(lies_on_gpu(tensor) for cut in anchors.values() for tensor in cut.anchor.model.state_dict().values())
        for capacity in (0, 2**30):
            store = FeatureStore(anchors, capacity, compute=compute)
            (features,) = store.batches(VIT, 1, digits.subset(torch.arange(8)), 8)
            assert lies_on_gpu(features)
            assert not any(lies_on_gpu(kept) for kept in store._level._kept.values())  # pyright: ignore[reportAttributeAccessIssue]


def close(one: TrialOutcome, other: TrialOutcome) -> bool:
    tensors = zip(one.stitch.state_dict().values(), other.stitch.state_dict().values(), strict=True)
    tuned = [(one.tuned[name], other.tuned[name]) for name in one.tuned]
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in (*tensors, *tuned))


@pytest.mark.parametrize("tune", TUNES)
@pytest.mark.parametrize("way", [(RESNET, VIT), (VIT, RESNET)])
def test_a_trial(digits: Split, tune: Tune, way: tuple[str, str]) -> None:
    choices = TrainingChoices(3e-3, 1, tune)
    training = TrainingSpec(batch_size=64, match_epochs=[1], distill=[0.3])

    def trial(anchors: Anchors, compute: Compute) -> TrialOutcome:
        teachers = teacher_logits(anchors, digits, SilentProgress(), compute)
        store = FeatureStore(anchors, 2**30, compute=compute)
        shared = context(anchors, digits, training=training, store=store, teachers=teachers)
        return run_trial(candidate(anchors, way[0], 1, way[1], 1), choices, shared)

    wanted = trial(two(), Compute())
    with pretend_gpu():
        found = trial(*on_gpu())
    assert found.correct == wanted.correct and found.r2 == pytest.approx(wanted.r2)
    assert close(found, wanted)


@pytest.mark.parametrize("kept", ["memory", "disk", "nowhere"])
def test_trials_together_and_closed_forms(digits: Split, kept: str, tmp_path: Path) -> None:
    def work(anchors: Anchors, compute: Compute, folder: Path) -> tuple[list[Any], list[Any]]:
        store = FeatureStore(anchors, 2**30 if kept == "memory" else 0, compute=compute)
        if kept == "disk":
            store._level = disk_store(anchors, folder, dtype="auto")._level
        shared = context(anchors, digits, store=store, training=TrainingSpec(batch_size=64, views=2))
        ways = [(1, RESNET, 2), (1, VIT, 2), (2, VIT, 1)]
        chosen = [candidate(anchors, RESNET, cut, back, to) for cut, back, to in ways]
        jobs = [(one, TrainingChoices(3e-3, 2, "stitch+norm-stats")) for one in chosen]
        return run_trials(jobs, shared), closed_form_scores(chosen, shared)

    outcomes, scores = work(two(), Compute(), tmp_path / "cpu")
    with pretend_gpu():
        found, found_scores = work(*on_gpu(), tmp_path / "gpu")
    assert [one.top1 for one in found_scores] == [one.top1 for one in scores]
    for one, other in zip(found, outcomes, strict=True):
        assert one.correct == other.correct and close(one, other)


def test_joint_training_and_its_checkpoint(digits: Split) -> None:
    def joint(anchors: Anchors, compute: Compute) -> tuple[JointTraining, dict[str, Any]]:
        shared = context(
            anchors,
            digits,
            store=FeatureStore(anchors, 2**30, compute=compute),
            training=TrainingSpec(batch_size=64, match_epochs=[1]),
        )
        chosen = [candidate(anchors, *way) for way in ((RESNET, 1, VIT, 0), (RESNET, 1, VIT, 1), (VIT, 1, RESNET, 2))]
        training = JointTraining(chosen, shared, JointSpec(), JointBudget(2, 1, 5e-3))
        training.initialize()
        training.train(lambda: None, every=100)
        return training, training.state()

    wanted, state = joint(two(), Compute())
    scores = [outcome.trial.correct for _, outcome in wanted.outcomes()]
    with pretend_gpu():
        training, found = joint(*on_gpu())
        assert [outcome.trial.correct for _, outcome in training.outcomes()] == scores
        assert training.restore(found)
        assert training.done == wanted.done
        for name, tensor in found["stitches"].items():  # on the CPU: they go to disk
            assert torch.from_numpy(tensor.numpy()).allclose(state["stitches"][name], rtol=1e-4, atol=1e-5)


def test_rankers(digits: Split) -> None:
    def rank(anchors: Anchors, compute: Compute) -> Any:
        spec = RankerSpec(images=96, batch_size=32)
        names, silent, val = RANKERS.names(), SilentProgress(), digits.subset(torch.arange(60))
        return rank_pairs(spec, names, anchors, digits, val=val, seed=0, progress=silent, compute=compute)

    wanted = rank(two(), Compute())
    with pretend_gpu():
        found = rank(*on_gpu())
    for name, scores in wanted.scores.items():
        for pair, matrix in scores.items():
            torch.testing.assert_close(
                torch.from_numpy(found.scores[name][pair]),
                torch.from_numpy(matrix),
                rtol=1e-6,
                atol=1e-8,
                equal_nan=True,
            )


def test_mixed_precision_changes_training_but_not_the_start_or_the_scores(digits: Split) -> None:
    """bfloat16 on the CPU, where the same autocast can be looked at."""
    anchors = two()

    def trial(epochs: int, dtype: torch.dtype | None) -> TrialOutcome:
        shared = context(anchors, digits, store=FeatureStore(anchors, 2**30, compute=Compute(dtype=dtype)))
        return run_trial(candidate(anchors, VIT, 1, RESNET, 1), TrainingChoices(3e-3, epochs), shared)

    start, mixed_start = trial(0, None), trial(0, torch.bfloat16)
    assert start.r2 == mixed_start.r2 and start.correct == mixed_start.correct
    exact, mixed = trial(1, None), trial(1, torch.bfloat16)

    def distance(one: TrialOutcome, other: TrialOutcome) -> float:
        pairs = zip(one.stitch.parameters(), other.stitch.parameters(), strict=True)
        return max((a - b).abs().max().item() for a, b in pairs)

    moved, apart = distance(start, exact), distance(mixed, exact)
    assert 0 < apart < 0.5 * moved
    assert all(parameter.dtype == torch.float32 for parameter in mixed.stitch.parameters())


@pytest.mark.parametrize("kept", ["memory", "disk", "nothing"])
def test_bfloat16_reaches_features_of_training_images_and_none_that_score(kept: str, tmp_path: Path) -> None:
    anchors, data = two(), load_data(DataSpec(dataset="digits"), progress=SilentProgress())
    train, val = (split.subset(torch.arange(48)) for split in (data.train, data.val))
    compute = open_compute(ComputeSpec(device="cpu", precision="bfloat16"))

    def store(compute: Compute) -> FeatureStore:
        disk = DiskFeatures(DiskStore(tmp_path, 2**30), "float32") if kept == "disk" else None
        return FeatureStore(anchors, 0 if kept == "nothing" else 2**30, disk=disk, compute=compute)

    exact, mixed = store(Compute()), store(compute)
    for name in (VIT, RESNET):
        for split in (train, val):
            (wanted,), (found,) = ([*of.batches(name, 1, split, len(split))] for of in (exact, mixed))
            assert found.dtype == torch.float32
            if split is val:
                assert torch.equal(found, wanted)
            else:
                off = (found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
                assert 1e-4 < off < 2e-2  # bfloat16 rounds by up to 2^-9, operation by operation


def test_what_is_filled_ahead_for_workers_is_what_they_ask_for(tmp_path: Path) -> None:
    anchors = two()
    train = load_data(DataSpec(dataset="digits"), progress=SilentProgress()).train.subset(torch.arange(48))
    compute = open_compute(ComputeSpec(device="cpu", precision="bfloat16"))
    filling, asking = (
        FeatureStore(anchors, 2**30, disk=DiskFeatures(DiskStore(tmp_path, 2**30), "float32"), compute=compute)
        for _ in range(2)
    )
    filling.fill(RESNET, [0, 1], train)
    for cut in (0, 1):
        list(asking.batches(RESNET, cut, train, 16))
    assert (filling.statistics.forwarded, asking.statistics.forwarded) == (len(train), 0)


SPACE: dict[str, Any] = {
    "name": "tiny",
    "anchors": [
        {"name": "large", "model": "cifar_resnet8", "pretrained": False},
        {
            "name": "small",
            "model": "vit_tiny_patch16_224",
            "pretrained": False,
            "kwargs": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2},
        },
    ],
    "top_k": 2,
    "stitch": {"kind": "linear", "images": 100},
    "training": {"epochs": [1, 1], "lr": [1e-3, 1e-2], "images": 160, "batch_size": 40},
    "fit": {"tune": "full", "epochs": 1, "lr": 3e-3, "batch_size": 64},
    "search": {"trials": 3},
    "halving": {"when": "always", "images": 60, "short_images": 0.5},
    "ranker": {"kind": "cka", "images": 64, "batch_size": 32},
    "data": {"dataset": "digits", "subset": {"train": 400, "val": 100, "test": 100}},
    "objectives": ["accuracy", "macs", "latency"],
    "latency": {"runs": 2, "warmup": 1, "checked": 2},
    "compute": {"precision": "float32"},
}


def search(folder: Path, **changes: Any) -> Report:
    space = parse_space({**SPACE, **changes}, source="the test")
    run = RunFolder(folder / "run")
    run.create(space, RunInputs("test", "2026-01-01T00:00:00+00:00"))
    return run_search(space, run, run.read()[1], AnchorSources(None, None, False, folder / "cache"), SilentProgress())


def accuracies(report: Report) -> dict[str, tuple[float, float | None]]:
    entries = (*report.anchors, *report.hybrids, *report.controls)
    return {one.id: (one.val.top1, one.test.top1 if one.test else None) for one in entries}


@pytest.mark.parametrize("strategy", ["independent", "joint"])
def test_a_whole_search(strategy: str, tmp_path: Path) -> None:
    """From fits to final scores; features on disk, latency measured on the CPU, channels last forced."""
    retrained = int(strategy == "independent")
    changes = {
        "search": {"trials": 3, "strategy": strategy},
        "retrain": {"hybrids": retrained, "epochs": 1},
        "cache": {"disk": "always"},
    }
    with pretend_gpu():
        report = search(
            tmp_path, **changes, compute={"device": "cuda", "precision": "float32", "channels_last": "always"}
        )
    assert report.search.device == "cuda:0 (pretended)"
    assert report.search.compute is not None and report.search.compute.channels_last == ("large",)
    assert report.trials.failed == 0 and report.trials.finished >= 3 and report.trials.retrained == retrained
    assert read_results(tmp_path / "run").search.compute == report.search.compute


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
class TestOnAGpu:
    def test_the_search_finds_what_the_cpu_finds(self, tmp_path: Path) -> None:
        without = {"objectives": ["accuracy", "macs"], "halving": {"when": "never"}}
        exact = accuracies(search(tmp_path / "cpu", **without, compute={"device": "cpu"}))
        for precision in ("float32", "bfloat16"):
            found = accuracies(
                search(tmp_path / precision, **without, compute={"device": "cuda", "precision": precision})
            )
            # fits start alike and round otherwise, and the sampler follows accuracies: what is compared is the level
            best, other = (max(top1 for top1, _ in each.values()) for each in (exact, found))
            assert abs(best - other) < 0.2

    @pytest.mark.parametrize("tune", TUNES)
    def test_a_trial_from_the_same_anchors(self, digits: Split, tune: Tune) -> None:
        choices, training = TrainingChoices(3e-3, 1, tune), TrainingSpec(batch_size=64)

        def trial(anchors: Anchors, compute: Compute) -> TrialOutcome:
            shared = context(anchors, digits, training=training, store=FeatureStore(anchors, 2**30, compute=compute))
            return run_trial(candidate(anchors, VIT, 1, RESNET, 1), choices, shared)

        wanted, found = trial(two(), Compute()), trial(*on_gpu())
        assert abs(found.correct - wanted.correct) <= 3
        for a, b in zip(found.stitch.parameters(), wanted.stitch.parameters(), strict=True):
            assert (a - b).norm() < 0.05 * b.norm()
