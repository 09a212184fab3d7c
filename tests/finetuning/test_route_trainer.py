"""The trainer of whole networks: all parts learn, the run's anchors do not, and a state goes on to the same bits."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from restnet_search.compute import Compute
from restnet_search.data import Split, load_data
from restnet_search.finetuning.recipe import Recipe
from restnet_search.finetuning.route_trainer import Lesson, RouteTrainer, Teacher
from restnet_search.finetuning.step_images import StepImages
from restnet_search.finetuning.trained_route import TrainedRoute, anchor_route, hybrid_route, slice_of
from restnet_search.progress import SilentProgress
from restnet_search.search.prepare.hybrids import assemble, plan_between
from restnet_search.search.training.losses import task_loss
from restnet_search.space.schema import DataSpec
from restnet_search.stitching.layer import StitchLayer
from tests.search.stores import Anchors, cut_anchor

FRONT, BACK = ("cifar_resnet8", 1), ("vit", 1)
RECIPE = Recipe(rounds=1, steps=6, batch=16, lr=1e-2, teacher="vit", seed=0, weight_decay=0.0)


@pytest.fixture(scope="module")
def digits() -> Split:
    return load_data(DataSpec(dataset="digits")).train.subset(torch.arange(48))


@pytest.fixture
def anchors() -> Anchors:
    return {name: cut_anchor(name) for name in ("cifar_resnet8", "vit")}


def hybrid_of(anchors: Anchors, front: tuple[str, int] = FRONT, back: tuple[str, int] = BACK) -> TrainedRoute:
    """A hybrid with tensors of its own."""
    graphs = {name: cut.graph for name, cut in anchors.items()}
    stitch = StitchLayer(plan_between(graphs, "linear", front, back), torch.Generator().manual_seed(1))
    hybrid = copy.deepcopy(assemble(graphs, front, stitch, back))
    return hybrid_route("h000", hybrid, anchors[front[0]].anchor.preprocessing, 2)


def trainer_of(anchors: Anchors, digits: Split, routes: list[TrainedRoute], recipe: Recipe = RECIPE) -> RouteTrainer:
    teacher = copy.deepcopy(anchors["vit"].anchor.model)
    images = StepImages(digits, recipe.batch, recipe.seed, flip=False)
    followed = Teacher(teacher, anchors["vit"].anchor.preprocessing)
    lesson = Lesson(recipe, images, len(routes) * [followed], Compute(), lambda step: [step % len(routes)])
    trainer = RouteTrainer(routes, lesson, pytest.fail)
    trainer.schedule(recipe)
    return trainer


def train(trainer: RouteTrainer, first: int, steps: int) -> float:
    with SilentProgress().task("", 1) as task:
        return trainer.train(first, steps, task)


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_all_parts_learn_and_the_anchors_stay_as_they_are(anchors: Anchors, digits: Split) -> None:
    before = {name: state_of(cut.anchor.model) for name, cut in anchors.items()}
    route = hybrid_of(anchors)
    start = {name: one.detach().clone() for name, one in route.network.named_parameters()}
    statistics = [name for name, _ in route.network.named_buffers() if name.endswith("running_mean")]
    moments = {name: route.network.get_buffer(name).clone() for name in statistics}
    trainer = trainer_of(anchors, digits, [route])
    train(trainer, 0, 1)
    # AdamW's first step moves a weight by its rate, whatever its gradient (clipping leaves the ratio)
    moved = {name: (one.detach() - start[name]).abs().max().item() for name, one in route.network.named_parameters()}
    first = RECIPE.lr / 25  # where OneCycleLR begins
    parts = {part: [m for name, m in moved.items() if name.startswith(part)] for part in ("front", "stitch", "back")}
    for part, rate in (("front", first / 10), ("stitch", first), ("back", first / 10)):
        assert max(parts[part]) == pytest.approx(rate, rel=1e-2), part
    assert statistics
    assert all(not torch.equal(route.network.get_buffer(name), moments[name]) for name in statistics)
    for name, cut in anchors.items():
        assert all(torch.equal(value, before[name][key]) for key, value in cut.anchor.model.state_dict().items())


def test_the_loss_falls_and_the_kept_weights_are_an_average(anchors: Anchors, digits: Split) -> None:
    recipe = replace(RECIPE, steps=100, lr=5e-2, distill=0.0)  # decay 1 - 1/2
    trainer = trainer_of(anchors, digits, [route := hybrid_of(anchors)], recipe)
    weights = []
    for step in range(3):
        train(trainer, step, 1)
        weights.append(route.network.get_parameter("back.head.weight").detach().clone())
    expected = 0.5 * (0.5 * weights[0] + 0.5 * weights[1]) + 0.5 * weights[2]
    torch.testing.assert_close(trainer.averaged[0].get_parameter("back.head.weight"), expected)
    early = train(trainer, 3, 3)
    train(trainer, 6, 40)
    assert train(trainer, 46, 3) < early - 0.1


@pytest.mark.parametrize("together", [False, True])
def test_a_state_goes_on_to_the_same_bits(anchors: Anchors, digits: Split, together: bool) -> None:
    def fresh() -> RouteTrainer:
        own = copy.deepcopy(anchors)
        routes = [hybrid_of(own)]
        if together:
            view = own["vit"].anchor.preprocessing
            routes.append(anchor_route("vit", slice_of(own["vit"].graph.traced.module), view, 3))
        return trainer_of(anchors, digits, routes)

    whole, halves = fresh(), fresh()
    train(whole, 0, 6)
    train(halves, 0, 3)
    state = copy.deepcopy(halves.state_dict())
    later = fresh()
    later.load_state_dict(state)
    train(later, 3, 3)
    for one, other in zip(whole.averaged, later.averaged, strict=True):
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_each_route_follows_its_own_teacher(anchors: Anchors, digits: Split) -> None:
    """An anchor may follow itself as it was, while hybrids follow the best anchor."""
    own = copy.deepcopy(anchors)
    graph, view = own["cifar_resnet8"].graph, own["cifar_resnet8"].anchor.preprocessing
    routes = [anchor_route("cifar_resnet8", slice_of(graph.traced.module), view, 3), hybrid_of(own)]
    itself = Teacher(anchors["cifar_resnet8"].anchor.model, view)
    best = Teacher(anchors["vit"].anchor.model, anchors["vit"].anchor.preprocessing)
    images, rows = StepImages(digits, RECIPE.batch, 0, flip=False), slice(0, RECIPE.batch)
    lesson = Lesson(replace(RECIPE, distill=0.5), images, [itself, best], Compute(), lambda step: [0, 1])
    trainer = RouteTrainer(routes, lesson, pytest.fail)
    wanted = [
        task_loss(
            route.training(images.images(0, route.preprocessing)),
            images.labels(0),
            teacher.network(images.images(0, teacher.preprocessing)),
            0.5,
        ).item()
        for route, teacher in zip(routes, (itself, best), strict=True)
    ]
    assert trainer._loss(0, [0], rows).item() == pytest.approx(wanted[0], rel=1e-5)
    assert trainer._loss(0, [0, 1], rows).item() == pytest.approx(sum(wanted) / 2, rel=1e-5)


def test_timing_a_step_changes_nothing(anchors: Anchors, digits: Split) -> None:
    route = hybrid_of(anchors)
    trainer, before = trainer_of(anchors, digits, [route]), state_of(route.network)
    assert trainer.time_step() > 0
    assert all(torch.equal(value, before[name]) for name, value in route.network.state_dict().items())
    assert all(one.grad is None for one in route.network.parameters())
