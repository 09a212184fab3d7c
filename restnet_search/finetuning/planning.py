"""The plan of a fine-tuning: a trainer that is ready, and a recipe that fits the epochs or the time asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from restnet_search.finetuning.opened_run import OpenedRun
from restnet_search.finetuning.recipe import Recipe, plan_rounds, rate_for
from restnet_search.finetuning.route_trainer import Lesson, RouteTrainer, Teacher
from restnet_search.finetuning.step_images import StepImages
from restnet_search.finetuning.trained_route import TrainedRoute
from restnet_search.search.prepare.rebuild import Rebuilt
from restnet_search.search.training.accuracy import score_network

__all__ = ["Assignment", "ready_trainer"]

_SCORING = 2.0  # times what scoring val costs: statistics are estimated and the state is written, too
_SPENT = 0.95  # of the time that is left: a machine may be busier later, and test is scored, too


@dataclass(frozen=True, eq=False)
class Assignment:
    """Routes to train, and the networks that teach them.

    Attributes:
        routes: On the device.
        teachers: The network that each route follows, on the device; some may be the same.
        draw: Returns the places of the routes that learn in a step.
        drawn: How many these are.
    """

    routes: Sequence[TrainedRoute]
    teachers: Sequence[Rebuilt]
    draw: Callable[[int], Sequence[int]] = lambda step: (0,)
    drawn: int = 1


def ready_trainer(
    run: OpenedRun, assignment: Assignment, started: float, kept: Recipe | None
) -> tuple[RouteTrainer, Recipe]:
    """Return a trainer at its start, with its recipe.

    Args:
        run: The opened run.
        assignment: What is trained.
        started: When the work on it began (``perf_counter``).
        kept: The recipe of a training that goes on; None: it is planned.
    """
    routes, teachers = assignment.routes, assignment.teachers
    macs = assignment.drawn * max(route.macs for route in routes)
    recipe = kept or replace(run.draft_recipe(teachers, macs, len(routes)), drawn=assignment.drawn)
    images = StepImages(run.data.train, recipe.batch, recipe.seed, flip=recipe.flip)
    followed = {one.network: Teacher(one.network, one.preprocessing) for one in teachers}
    lesson = Lesson(recipe, images, [followed[one.network] for one in teachers], run.compute, assignment.draw)
    trainer = RouteTrainer(routes, lesson, run.progress.log)
    if recipe.compiled and not trainer.compile():
        recipe = replace(recipe, compiled=False)
    if kept is None:
        recipe = _with_rounds(run, recipe, trainer, started)
        recipe = replace(recipe, lr=run.request.lr or rate_for(recipe.total_steps))
    trainer.schedule(recipe)
    return trainer, recipe


def _with_rounds(run: OpenedRun, recipe: Recipe, trainer: RouteTrainer, started: float) -> Recipe:
    """Plan the rounds by the epochs or by the time that were asked for."""
    request, images = run.request, len(run.data.train)
    if request.epochs is not None:
        return replace(recipe, rounds=request.epochs, steps=max(1, images // recipe.batch))
    assert request.seconds is not None
    trainer.time_step()  # the first one is slower
    step = trainer.time_step() * recipe.drawn
    begun = time.perf_counter()
    for route in trainer.routes:
        score_network(route.network, route.preprocessing, run.data.val, compute=run.compute)
    round_end = _SCORING * (time.perf_counter() - begun)
    left = _SPENT * (request.seconds - (time.perf_counter() - started))
    rounds, steps = plan_rounds(images, recipe.batch, max(1, int(left / step)))
    while rounds > 1 and rounds * (steps * step + round_end) > left:
        rounds -= 1
    return replace(recipe, rounds=rounds, steps=steps)
