"""Optuna's samplers, every draw seeded by what it is for: a study that was cut off anywhere goes on asking the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from restnet_search.space.schema import SearchSpec

__all__ = ["SeededSampler", "make_sampler"]


class SeededSampler(BaseSampler):
    """A sampler whose draws depend on the seed, the trial's number, the parameter and the trials that were told.

    Optuna's own samplers draw everything from one generator, so that what they suggest depends on how often they were
    asked before in this process.

    Args:
        make: Make Optuna's sampler for a seed.
        seed: Of the search.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler(trial, param_name).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._sampler(trial).after_trial(study, trial, state, values)

    def _sampler(self, trial: FrozenTrial, parameter: str = "") -> BaseSampler:
        digest = hashlib.sha256(repr((self._seed, trial.number, parameter)).encode()).digest()
        return self._make(int.from_bytes(digest[:4], "little"))


def make_sampler(search: SearchSpec) -> BaseSampler:
    """Make the sampler that ``search.sampler`` names."""
    kinds: Mapping[str, Callable[[int], BaseSampler]] = {
        "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
        "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed),
        "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    }
    return SeededSampler(kinds[search.sampler], search.seed)
