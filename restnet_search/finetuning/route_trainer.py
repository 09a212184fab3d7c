"""The trainer of whole networks: one hybrid, or several routes over one set of weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from restnet_search.compute import Compute, copy_to_cpu
from restnet_search.data import Preprocessing
from restnet_search.errors import RunError, first_line
from restnet_search.finetuning.recipe import ANCHOR_RATE, Recipe, averaging_decay
from restnet_search.finetuning.settled_statistics import settle_statistics
from restnet_search.finetuning.step_images import StepImages
from restnet_search.finetuning.trained_route import TrainedRoute, trained_parameters
from restnet_search.progress import Task
from restnet_search.search.prepare.compiled import Compiled
from restnet_search.search.training.losses import task_loss
from restnet_search.search.training.optimizer import Group, Optimizer

__all__ = ["Lesson", "RouteTrainer", "Teacher"]


@dataclass(frozen=True, eq=False)
class Teacher:
    """A frozen network whose answers are followed, on the device, and how it sees images."""

    network: nn.Module
    preprocessing: Preprocessing


@dataclass(frozen=True, eq=False)
class Lesson:
    """The things that all steps of a fine-tuning have in common.

    Attributes:
        recipe: How it is trained.
        images: Of every step.
        teachers: Who is followed, by each route in their order.
        compute: Where and in what precision it runs.
        draw: Returns the places of the routes that learn in a step.
    """

    recipe: Recipe
    images: StepImages
    teachers: Sequence[Teacher]
    compute: Compute
    draw: Callable[[int], Sequence[int]]


class RouteTrainer:
    """Routes under training: AdamW in one cosine cycle, and the average of their weights, which is what is kept.

    Batch-norms normalise by their batch; for the averaged weights their statistics are estimated anew. A step depends
    on its number and on the weights alone, so that :meth:`load_state_dict` goes on to the same bits.

    Args:
        routes: Over tensors of their own or shared ones, on the device.
        lesson: How they are trained.
        say: Takes the one message that torch.compile cannot be used.
    """

    def __init__(self, routes: Sequence[TrainedRoute], lesson: Lesson, say: Callable[[str], None]) -> None:
        self.routes, self._lesson, self._say = tuple(routes), lesson, say
        self._networks = nn.ModuleList([route.network for route in routes])
        self._training: list[nn.Module] = [route.training for route in routes]
        self._followed: dict[Teacher, nn.Module] = {teacher: teacher.network for teacher in lesson.teachers}

    def schedule(self, recipe: Recipe) -> None:
        """Set the learning rates and the reach of the average for so many steps as the recipe says."""
        self._lesson = replace(self._lesson, recipe=recipe)
        stitches, others = trained_parameters(self.routes)
        groups = [Group(stitches, recipe.lr), Group(others, recipe.lr * ANCHOR_RATE)]
        self._optimizer = Optimizer(
            [group for group in groups if group.parameters], recipe.weight_decay, recipe.total_steps
        )
        average = get_ema_multi_avg_fn(averaging_decay(recipe.total_steps))
        self._average = AveragedModel(self._networks, multi_avg_fn=average)

    @property
    def averaged(self) -> Sequence[nn.Module]:
        """The routes with averaged weights, in their order and in eval mode: what is scored and kept."""
        return list(self._average.module)  # pyright: ignore[reportArgumentType]

    def train(self, first: int, steps: int, task: Task) -> float:
        """Train so many steps, the first of which has this number; return their mean loss. Averages are ready then.

        Raises:
            RunError: If the loss stops being finite.
        """
        total = 0.0
        for step in range(first, first + steps):
            total += self._step(step)
            self._average.update_parameters(self._networks)
            task.advance()
        for route, network in zip(self.routes, self.averaged, strict=True):
            settle_statistics(network, partial(self._unchanged, route.preprocessing))
        return total / steps

    def _unchanged(self, preprocessing: Preprocessing) -> Iterator[Tensor]:
        return map(self._lesson.compute.to_device, self._lesson.images.unchanged(preprocessing))

    def compile(self) -> bool:
        """Run what a step runs through torch.compile; return False where that fails, which is said once."""
        self._training = [Compiled(route.training, route.name) for route in self.routes]
        self._followed = {teacher: Compiled(teacher.network, "a teacher") for teacher in self._followed}
        try:
            self.time_step()
        except Exception as error:  # noqa: BLE001  compilers fail in ways of every type
            self._say(f"torch.compile cannot be used here, training goes on without it: {first_line(error)}")
            self._training = [route.training for route in self.routes]
            self._followed = {teacher: teacher.network for teacher in self._followed}
            return False
        return True

    def time_step(self) -> float:
        """Return the mean seconds of a route's forward and backward pass of one step; nothing is changed."""
        kept = {name: buffer.clone() for name, buffer in self._networks.named_buffers()}
        started = time.perf_counter()
        try:
            for place in range(len(self.routes)):
                self._lesson.compute.micro_batches.accumulate(
                    "training", self._lesson.images.batch, partial(self._backward, place)
                )
        finally:
            for name, buffer in self._networks.named_buffers():
                buffer.copy_(kept[name])
            self._networks.zero_grad()
        return (time.perf_counter() - started) / len(self.routes)

    def _backward(self, place: int, parts: Sequence[slice]) -> None:
        for rows in parts:
            self._loss(0, [place], rows).backward()

    def _step(self, step: int) -> float:
        lesson = self._lesson
        places, count = lesson.draw(step), lesson.images.batch

        def loss_of(rows: slice) -> Tensor:
            return self._loss(step, places, rows)

        loss = self._optimizer.step(count, loss_of, lesson.compute.micro_batches)
        if not math.isfinite(loss):
            raise RunError(
                f"Fine-tuning diverged: the loss of step {step + 1:,} is {loss}.",
                expected="a loss that is a number",
                hint=f"pass a lower --lr (it was {lesson.recipe.lr:g}) and --restart",
            )
        return loss

    def _loss(self, step: int, places: Sequence[int], rows: slice) -> Tensor:
        """Return the mean loss of the routes at these places for rows of a step's images."""
        lesson = self._lesson
        seen: dict[Preprocessing, Tensor] = {}

        def shown(preprocessing: Preprocessing) -> Tensor:
            if preprocessing not in seen:
                images = lesson.images.images(step, preprocessing)[rows]
                seen[preprocessing] = lesson.compute.to_device(images)
            return seen[preprocessing]

        labels = lesson.compute.to_device(lesson.images.labels(step)[rows])
        teachers = [lesson.teachers[place] for place in places]
        with torch.no_grad(), lesson.compute.autocast():
            answers = {one: self._followed[one](shown(one.preprocessing)).float() for one in dict.fromkeys(teachers)}
        losses: list[Tensor] = []
        for place, teacher in zip(places, teachers, strict=True):
            with lesson.compute.autocast():
                logits = self._training[place](shown(self.routes[place].preprocessing)).float()
            losses.append(task_loss(logits, labels, answers[teacher], lesson.recipe.distill))
        return torch.stack(losses).mean()

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which :meth:`load_state_dict` goes on as if nothing had happened, on the CPU."""
        return copy_to_cpu(
            {
                "networks": self._networks.state_dict(),
                "average": self._average.state_dict(),
                "optimizer": self._optimizer.state_dict(),
            }
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`."""
        self._networks.load_state_dict(state["networks"])
        self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
