"""Rounds of a fine-tuning: train, score on val, keep the best and the state, go on after a kill to the same bits."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from restnet_search.anchors.fitting.resume import read_epoch, write_epoch
from restnet_search.finetuning.recipe import Recipe
from restnet_search.finetuning.route_trainer import RouteTrainer
from restnet_search.progress import Progress
from restnet_search.search.run.records import WholeTraining

__all__ = ["BestRound", "Judge", "kept_recipe", "train_rounds"]


@dataclass(frozen=True)
class Judge:
    """A way to compare rounds on val.

    Attributes:
        count: Returns how many images of val each route has right, for the routes' networks.
        worth: Returns what these counts are worth, higher is better; None: the round must not be kept.
        describe: Returns the counts in words, for the line of progress.
        start: What the counts of the start are worth: only a round that is better is kept.
    """

    count: Callable[[Sequence[nn.Module]], list[int]]
    worth: Callable[[Sequence[int]], float | None]
    describe: Callable[[Sequence[int]], str]
    start: float


@dataclass(frozen=True)
class BestRound:
    """The best round on val, and what all rounds cost.

    Attributes:
        number: From 1.
        correct: Images of val that each route has right in it.
        worth: Of the counts; None where no round may be kept.
        tensors: Of the averaged routes after it (names are ``<place>.<name in the network>``).
        seconds: Of all sittings.
    """

    number: int
    correct: tuple[int, ...]
    worth: float | None
    tensors: dict[str, Tensor]
    seconds: float

    def training(self, recipe: Recipe) -> WholeTraining:
        """Return what is kept of a training by this recipe."""
        return WholeTraining(
            round=self.number,
            rounds=recipe.rounds,
            images_seen=recipe.images_seen,
            seconds=self.seconds,
            lr=recipe.lr,
            teacher=recipe.teacher,
        )


def kept_recipe(checkpoint: Path) -> Recipe | None:
    """Return the recipe of a training under way; None where there is none, or its file is damaged."""
    state = read_epoch(checkpoint)
    return None if state is None else Recipe(**state["recipe"])


def train_rounds(
    trainer: RouteTrainer, recipe: Recipe, judge: Judge, checkpoint: Path, name: str, progress: Progress
) -> BestRound:
    """Train all rounds of a recipe, or those that are left of it; return the best.

    Args:
        trainer: At the start, with its schedule set.
        recipe: That of the checkpoint, where there is one.
        judge: Scores a round.
        checkpoint: Where the state after every round is kept, and taken up if it is there.
        name: In messages.
        progress: Told about every step, and of every round's score.

    Raises:
        RunError: If the loss stops being finite.
    """
    best, done, before = BestRound(0, (), None, {}, 0.0), 0, 0.0
    if (kept := read_epoch(checkpoint)) is not None:
        trainer.load_state_dict(kept["trainer"])
        best, done, before = BestRound(**kept["best"]), kept["rounds"], kept["seconds"]
        progress.log(f"{name}: goes on after round {done} of {recipe.rounds}")
    else:
        write_epoch(checkpoint, _state(recipe, trainer, best, 0, 0.0))
    started = time.perf_counter() - before
    with progress.task(f"Fine-tuning {name}", total=recipe.total_steps) as task:
        task.advance(done * recipe.steps)
        for number in range(done + 1, recipe.rounds + 1):
            loss = trainer.train((number - 1) * recipe.steps, recipe.steps, task)
            correct = judge.count(trainer.averaged)
            worth = judge.worth(correct)
            if not best.number or (worth is not None and (best.worth is None or worth > best.worth)):
                tensors = copy.deepcopy(nn.ModuleList(trainer.averaged).state_dict())
                best = BestRound(number, tuple(correct), worth, tensors, 0.0)
            seconds = time.perf_counter() - started
            progress.log(f"{name}: round {number} of {recipe.rounds}: loss {loss:.3f}, {judge.describe(correct)}")
            write_epoch(checkpoint, _state(recipe, trainer, best, number, seconds))
    return BestRound(best.number, best.correct, best.worth, best.tensors, time.perf_counter() - started)


def _state(recipe: Recipe, trainer: RouteTrainer, best: BestRound, rounds: int, seconds: float) -> dict[str, Any]:
    return {
        "recipe": asdict(recipe),
        "trainer": trainer.state_dict(),
        "best": {
            "number": best.number,
            "correct": best.correct,
            "worth": best.worth,
            "tensors": best.tensors,
            "seconds": 0.0,
        },
        "rounds": rounds,
        "seconds": seconds,
    }
