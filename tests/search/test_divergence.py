"""A training that has only done harm fails with its losses as the reason; one that merely hesitates does not."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from restnet_search.data import load_data
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.search.training.divergence import describe_divergence, describe_rise
from restnet_search.search.training.stitch_trainer import DivergedTraining, TrialOutcome
from restnet_search.search.training.trial import run_trials
from restnet_search.space.schema import DataSpec
from tests.search.stores import candidate, context, cut_anchor


def line(start: float, end: float, steps: int) -> list[float]:
    return torch.linspace(start, end, steps).tolist()


@pytest.mark.parametrize(
    ("losses", "reason"),
    [
        (line(1.2, 8e5, 100), "diverged: loss 1.2 -> "),
        ([0.4, *[1e4] * 50, *[3e3] * 50], "diverged: loss 0.4 -> 3e\\+03"),  # exploded at once, then came down a little
        ([0.5, math.inf], "diverged: loss 0.5 -> inf"),
        ([0.5, math.nan], "diverged: loss 0.5 -> nan"),
        (line(0.3, 0.6, 100), "diverged: loss 0.3"),
        ([2.0, 3.1], "diverged: loss 2 -> 3.1"),
    ],
)
def test_harm_is_told_with_both_losses(losses: Sequence[float], reason: str) -> None:
    told = describe_divergence(losses)
    assert told is not None
    assert re.match(reason, told)


@pytest.mark.parametrize(
    "losses",
    [
        [],
        [3.0],
        line(2.0, 0.3, 50),
        [1.0, *[40.0] * 50, *[0.9] * 50],  # a rise on the way
        [0.02, 0.3],  # single batches differ
        [0.02 + 0.1 * (step % 7 == 6) for step in range(70)],
        line(0.5, 0.62, 100),
        line(2.3, 2.9, 40),
    ],
)
def test_noise_and_detours_are_no_divergence(losses: Sequence[float]) -> None:
    assert describe_divergence(losses) is None


def test_of_many_together_the_means_count() -> None:
    assert describe_rise([0.2, 0.4], [0.9, 0.1]) is None  # one lost what another won
    assert describe_rise([0.2, 0.4], [1.5, 0.9]) == "diverged: loss 0.3 -> 1.2"
    assert describe_rise([], []) is None


@pytest.mark.parametrize(
    ("lr", "choices"),
    [(1e5, {"epochs": 2}), (1e5, {"epochs": 1, "match_epochs": 2}), (30.0, {"epochs": 2, "tune": "all"})],
)
def test_a_wild_rate_fails_its_trial_and_not_its_neighbors(lr: float, choices: dict[str, Any]) -> None:
    anchors = {name: cut_anchor(name) for name in ("cifar_resnet8", "vit")}
    digits = load_data(DataSpec(dataset="digits")).train.subset(torch.arange(192))
    chosen = candidate(anchors, "vit", 1, "cifar_resnet8", 1)
    wild, tame = (TrainingChoices(lr=rate, **choices) for rate in (lr, 1e-3))
    failed, finished = run_trials([(chosen, wild), (chosen, tame)], context(anchors, digits))
    assert isinstance(failed, DivergedTraining) and "diverged: loss" in str(failed) and f"rate {lr:.3g}" in str(failed)
    assert isinstance(finished, TrialOutcome)
