"""The distilled control: planned by what a search spent, trained to follow the large anchor, the same after a kill."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from restnet_search.costs.cost_table import profile_anchor
from restnet_search.data import DataSplits, load_data
from restnet_search.search.prepare.images import SearchImages
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.run.records import AnchorRecord, Cost, FinalScore, Score
from restnet_search.search.run.rival_records import Distillation
from restnet_search.search.run.session import Session
from restnet_search.search.study.distilled_control import (
    DistilledWeights,
    FailedDistillation,
    distillation_job,
    distilled_network,
    forget_distillation,
    plan_distillation,
)
from restnet_search.search.training.jobs import unheard
from restnet_search.space.schema import DataSpec, SearchSpace
from restnet_search.units import UNLIMITED, parse_budget
from tests.search.stores import Anchors, context, cut_anchor, session_of

SMALL, LARGE = "cifar_resnet8", "resnet"
PLAN = Distillation(SMALL, LARGE, images=96, epochs=3, wanted=300)


def record(name: str, macs: int, top1: float) -> AnchorRecord:
    return AnchorRecord(name, name, Cost(macs, macs // 100), Score(top1, 100), FinalScore(top1, (0.0, 1.0), 100))


ANCHORS = [record("large", 100, 0.9), record("middle", 40, 0.8), record("small", 10, 0.7), record("odd", 45, 0.75)]


@pytest.mark.parametrize(
    ("budgets", "small"),
    [((), "middle"), (("41",), "middle"), (("39", "20"), "small"), (("200",), "middle"), (("5",), None)],
)
def test_the_best_affordable_anchor_below_the_best_one_follows_it(budgets: tuple[str, ...], small: str | None) -> None:
    limits = tuple(parse_budget(f"{text}FLOPs") for text in budgets) or (UNLIMITED,)
    plan = plan_distillation(ANCHORS, limits, 1000, 500, limit=True)
    assert (None if plan is None else (plan.small, plan.large)) == (None if small is None else (small, "large"))


def test_a_large_anchor_that_is_worse_than_others_is_not_followed() -> None:
    anchors = [*ANCHORS, record("larger", 200, 0.6)]
    plan = plan_distillation(anchors, [parse_budget("41FLOPs")], 1000, 500, limit=True)
    assert plan is not None and (plan.small, plan.large) == ("middle", "large")
    best_is_small = [record("best", 10, 0.9), record("large", 100, 0.8)]  # still: would distilling have done?
    plan = plan_distillation(best_is_small, [UNLIMITED], 1000, 500, limit=True)
    assert plan is not None and (plan.small, plan.large) == ("best", "large")
    alike = [record("one", 10, 0.9), record("other", 10, 0.8)]
    assert plan_distillation(alike, [UNLIMITED], 1000, 500, limit=True) is None


@pytest.mark.parametrize(
    ("spent", "available", "limit", "images", "epochs"),
    [
        (1000, 10**6, True, 200, 5),  # few: every image five times
        (132_000, 42_000, True, 26_400, 5),
        (1_000_000, 42_000, True, 41_666, 24),  # many: as many distinct images as there are
        (1000, 10**6, 400, 80, 5),
        (1000, 10**6, 5000, 200, 5),  # the number is a limit, not a wish
    ],
)
def test_it_sees_as_many_images_as_the_search_to_a_whole_epoch(
    spent: int, available: int, limit: bool | int, images: int, epochs: int
) -> None:
    plan = plan_distillation(ANCHORS, [UNLIMITED], spent, available, limit=limit)
    assert plan is not None
    assert (plan.images, plan.epochs) == (images, epochs)
    assert plan.images <= available
    assert 0 <= plan.wanted - plan.images * plan.epochs < plan.epochs


def test_it_can_be_left_out_and_is_where_there_are_too_few_images() -> None:
    assert plan_distillation(ANCHORS, [UNLIMITED], 1000, 500, limit=False) is None
    assert plan_distillation(ANCHORS, [UNLIMITED], 19, 500, limit=True) is None


@pytest.fixture(scope="module")
def anchors() -> Anchors:
    return {name: cut_anchor(name) for name in (SMALL, LARGE)}


@pytest.fixture(scope="module")
def data() -> DataSplits:
    return load_data(DataSpec(dataset="digits"))


class Search:
    """What a search has when it comes to its control."""

    def __init__(self, anchors: Anchors, data: DataSplits, folder: Path, **search: object) -> None:
        small_val = replace(data, val=data.val.subset(range(60)))
        space = SearchSpace.model_validate(
            {
                "anchors": [{"model": name} for name in (SMALL, LARGE)],
                "data": {"dataset": "digits"},
                "training": {"batch_size": 32},
                "search": search,
            }
        )
        self.session: Session = session_of(space, folder)
        costs = {name: profile_anchor(cut.graph) for name, cut in anchors.items()}
        self.prepared = Prepared(anchors, costs, data.classes)
        self.images = SearchImages(small_val, data.train.subset(range(64)))
        self.context = context(anchors, load_data(DataSpec(dataset="digits")).train.subset(range(160)))

    def run(
        self, plan: Distillation = PLAN, advance: Callable[[float], None] = unheard
    ) -> DistilledWeights | FailedDistillation:
        return distillation_job(self.session, self.prepared, self.images, plan).run(self.context, advance)

    def distilled(self, plan: Distillation = PLAN, advance: Callable[[float], None] = unheard) -> dict[str, Tensor]:
        weights = self.run(plan, advance)
        assert isinstance(weights, DistilledWeights)
        network = distilled_network(self.prepared, plan, weights)
        assert not network.training and not any(one.requires_grad for one in network.parameters())
        return network.state_dict()


class Killed:
    """Ends the process, as far as anything can tell, when a number of batches was trained."""

    def __init__(self, after: int) -> None:
        self._left = after + 1  # the large anchor has answered before the first

    def __call__(self, part: float) -> None:
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt


def test_it_goes_on_after_kills_to_the_same_bits_and_leaves_nothing(
    anchors: Anchors, data: DataSplits, tmp_path: Path
) -> None:
    before = copy.deepcopy(anchors[SMALL].anchor.model.state_dict())
    undisturbed = Search(anchors, data, tmp_path / "one").distilled()
    killed = Search(anchors, data, tmp_path / "two")
    for batches in (1, 4, 5):  # before the first epoch ended, in the second, and again
        with pytest.raises(KeyboardInterrupt):
            killed.distilled(advance=Killed(batches))
    told: list[float] = []
    resumed = killed.distilled(advance=told.append)
    assert sum(told) == pytest.approx(1)  # what earlier sessions did counts, too
    assert all(torch.equal(resumed[name], tensor) for name, tensor in undisturbed.items())
    assert any(not torch.equal(resumed[name], tensor) for name, tensor in before.items())
    assert all(torch.equal(anchors[SMALL].anchor.model.state_dict()[name], one) for name, one in before.items())
    forget_distillation(killed.session, PLAN)
    assert not list((tmp_path / "two").glob("distilled-*"))


def test_another_number_of_images_begins_anew(anchors: Anchors, data: DataSplits, tmp_path: Path) -> None:
    search = Search(anchors, data, tmp_path)
    search.distilled()
    other = replace(PLAN, images=64, epochs=1, wanted=64)
    begun = search.distilled(plan=other)
    assert [path.name for path in tmp_path.glob("distilled-*.pt")] == ["distilled-64.epoch.pt"]
    alone = Search(anchors, data, tmp_path / "other").distilled(plan=other)
    assert all(torch.equal(begun[name], tensor) for name, tensor in alone.items())


def test_the_time_of_the_search_is_its_own(anchors: Anchors, data: DataSplits, tmp_path: Path) -> None:
    search = Search(anchors, data, tmp_path, timeout=5.0)
    search.session.clock.seconds["trials"] = 6.0
    assert search.run() == FailedDistillation("no time was left (search.timeout)", out_of_time=True)


def test_a_loss_that_is_not_finite_is_its_reason(anchors: Anchors, data: DataSplits, tmp_path: Path) -> None:
    broken = dict(anchors)
    anchor = copy.deepcopy(anchors[SMALL].anchor)
    with torch.no_grad():
        next(anchor.model.parameters()).fill_(torch.inf)
    broken[SMALL] = replace(anchors[SMALL], anchor=anchor)
    failed = Search(broken, data, tmp_path).run()
    assert isinstance(failed, FailedDistillation) and not failed.out_of_time
    assert "diverged in epoch 1" in failed.reason


def test_its_job_reaches_the_same_in_another_process(anchors: Anchors, data: DataSplits, tmp_path: Path) -> None:
    """What a worker gets is a pickle; the anchors are its own."""
    search = Search(anchors, data, tmp_path / "one")
    job = distillation_job(search.session, search.prepared, search.images, PLAN)
    sent = pickle.loads(pickle.dumps(job))
    reached = sent.run(search.context, unheard)
    alone = Search(anchors, data, tmp_path / "two").distilled()
    assert all(torch.equal(reached.tensors[name], tensor) for name, tensor in alone.items())
    assert 0 < job.work(search.context) == sent.work(search.context)


def test_an_epoch_is_that_of_a_plain_loop(anchors: Anchors, data: DataSplits, tmp_path: Path) -> None:
    """Each image has the logits that the large anchor gives for it, and its own label."""
    few = replace(data, train=data.train.subset(range(64)))
    trained = Search(anchors, few, tmp_path).distilled(plan=replace(PLAN, images=64, epochs=1, wanted=64))
    network = copy.deepcopy(anchors[SMALL].anchor.model).requires_grad_(True).train()
    images, wide = (
        torch.cat(list(few.train.batches(anchors[name].anchor.preprocessing, 64))) for name in (SMALL, LARGE)
    )
    with torch.no_grad():
        wanted = anchors[LARGE].anchor.model(wide)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0, momentum=0.9, nesterov=True, weight_decay=5e-4)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    for rows, rate in zip(order.split(32), (0.01, 0.01), strict=True):  # one step of warm-up, then the cosine's first
        optimizer.param_groups[0]["lr"] = rate
        logits = network(images[rows])
        odds, soft = (wanted[rows] / 4).softmax(1), (logits / 4).log_softmax(1)
        apart = (odds * (odds.log() - soft)).sum(1).mean()
        loss = 0.9 * F.cross_entropy(logits, few.train.labels[rows]) + 0.1 * 16 * apart
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, tensor in network.state_dict().items():
        assert torch.allclose(trained[name], tensor, rtol=1e-3, atol=1e-5), name
