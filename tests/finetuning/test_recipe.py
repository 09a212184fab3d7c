"""The recipe of a fine-tuning: how steps are divided into rounds, and how far back weights are averaged."""

from __future__ import annotations

import pytest

from restnet_search.finetuning.recipe import averaging_decay, plan_rounds, rate_for


@pytest.mark.parametrize(
    ("images", "batch", "steps", "rounds", "per_round"),
    [
        (42_000, 128, 328 * 12, 12, 328),  # epochs
        (42_000, 128, 1000, 10, 100),  # three epochs would be too few to choose from: ten parts
        (42_000, 128, 50, 2, 20),  # a round has 20 steps at least
        (42_000, 128, 5, 1, 20),  # and there is one
        (100, 128, 7, 7, 1),  # fewer images than a batch
    ],
)
def test_rounds_are_epochs_or_a_tenth_of_all_steps(
    images: int, batch: int, steps: int, rounds: int, per_round: int
) -> None:
    assert plan_rounds(images, batch, steps) == (rounds, per_round)


def test_the_average_of_weights_reaches_over_a_fiftieth_of_the_steps() -> None:
    assert averaging_decay(5000) == pytest.approx(1 - 1 / 100)
    assert averaging_decay(10**7) == 0.999
    assert averaging_decay(10) == 0.0  # the last weights alone


def test_a_longer_training_takes_a_higher_rate_within_bounds() -> None:
    assert [rate_for(steps) for steps in (1, 500, 2000, 10**6)] == pytest.approx([5e-4, 2.5e-3, 5e-3, 5e-3])
