"""The distilled control: the images that a search spent on stitch layers, spent on a small anchor instead.

All of the small anchor is trained to follow the logits of the best one (Hinton et al. 2015), from the weights that
it has. It answers what a reader asks first: would distilling the small model have done?
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from restnet_search.anchors.anchor import freeze
from restnet_search.anchors.architecture_kind import architecture_kind
from restnet_search.anchors.fitting.resume import features_beside, forget, read_epoch, write_epoch
from restnet_search.anchors.fitting.train import train_full
from restnet_search.anchors.fitting.training_loop import FitJob, FitSettings
from restnet_search.data import DataSplits
from restnet_search.errors import AnchorError
from restnet_search.progress import PartsProgress, Progress
from restnet_search.search.prepare.images import SearchImages
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.run.records import Cost, Score
from restnet_search.search.run.rival_records import Distillation
from restnet_search.search.run.session import Session
from restnet_search.search.training.context import TrialContext
from restnet_search.search.training.jobs import Advance
from restnet_search.search.training.losses import task_loss
from restnet_search.search.training.seeds import generator_for
from restnet_search.search.training.teachers import teacher_logits
from restnet_search.space.schema import FitSpec
from restnet_search.units import DeviceBudget

__all__ = [
    "DistillationJob", "DistilledWeights", "FailedDistillation", "distillation_job", "distilled_network",
    "forget_distillation", "plan_distillation",
]  # fmt: skip

_log = logging.getLogger("restnet_search")


_LEAST_EPOCHS = 5  # so that val may choose among several, and a kill loses a fifth at most
_LEAST_IMAGES = 4
_FOLLOWED = 0.1
"""Share of the loss that follows the large anchor. A larger one pulls an anchor that was fitted to the labels away from
where it was, and so few images do not bring it back."""
_RECIPE: Mapping[str, Any] = {"optimizer": "sgd", "lr": 0.01, "weight_decay": 5e-4}
"""For convolutional anchors; on CIFAR-10, AdamW at the rates tried took more from the weights that it began with."""
_RECIPE_OF_OTHERS: Mapping[str, Any] = {"optimizer": "adamw", "lr": 5e-4, "weight_decay": 0.05}
"""For transformers and the like, which are not trained with SGD."""


class _OutOfTime(Exception):
    """The time of the search (``search.timeout``) is over; what was trained so far is kept for a later session."""


@dataclass(frozen=True)
class DistilledWeights:
    """The state dict of the trained network, on the CPU, and the seconds that its training took."""

    tensors: Mapping[str, Tensor]
    seconds: float


@dataclass(frozen=True)
class FailedDistillation:
    """The reason why there is no distilled control; a later session may go on where it was only out of time."""

    reason: str
    out_of_time: bool = False


class Scored(Protocol):
    """An anchor that has been scored on val."""

    @property
    def name(self) -> str: ...

    @property
    def cost(self) -> Cost: ...

    @property
    def val(self) -> Score: ...


def plan_distillation(
    anchors: Sequence[Scored], budgets: Sequence[DeviceBudget], spent: int, available: int, *, limit: bool | int
) -> Distillation | None:
    """Plan the distilled control of a search; None where there is none to train.

    The most accurate anchor on val that is not the cheapest is followed. Of those with fewer MACs, the most accurate
    that a budget allows is trained.
    As many distinct images are taken as epochs leave, for what an anchor has not seen teaches it most.

    Args:
        anchors: Scored on val.
        budgets: Of the search.
        spent: Training images that the search saw, each as often as it did.
        available: Training images that there are.
        limit: ``controls.distilled`` of the space: False: none; True: as many images as were spent; a number: at most.
    """
    wanted = spent if limit is True else min(spent, limit)
    cheapest = min(anchor.cost.macs for anchor in anchors)
    followed = [anchor for anchor in anchors if anchor.cost.macs > cheapest] or anchors
    large = max(followed, key=lambda anchor: (anchor.val.top1, -anchor.cost.macs, anchor.name))
    affordable = [
        anchor
        for anchor in anchors
        if anchor.cost.macs < large.cost.macs and any(anchor.cost.fits(budget) for budget in budgets)
    ]
    epochs = max(_LEAST_EPOCHS, math.ceil(wanted / available))
    if not affordable or wanted // epochs < _LEAST_IMAGES:
        return None
    small = min(affordable, key=lambda anchor: (-anchor.val.top1, anchor.cost.macs, anchor.name))
    return Distillation(small.name, large.name, wanted // epochs, epochs, wanted)


@dataclass(frozen=True)
class DistillationJob:
    """Train the distilled control, or go on where a killed search left it; the result is the same to the bit.

    What the large anchor says of the images, which it sees once each, and the state after every epoch are kept beside
    the checkpoint until :func:`forget_distillation`. Progress is told as parts of 1.

    Attributes:
        plan: What is trained on what.
        data: ``train`` are the images of the plan; ``val`` chooses the epoch.
        seed: Of the search.
        batch_size: Images per step.
        checkpoint: In the run folder.
        seconds: That are left of ``search.timeout``.
        macs: Of the large and the small anchor.
    """

    plan: Distillation
    data: DataSplits
    seed: int
    batch_size: int
    checkpoint: Path
    seconds: float
    macs: tuple[int, int]

    def work(self, context: TrialContext) -> int:
        """Estimate its MACs: a pass of the large anchor, and forward and backward passes of the small one."""
        asked, trained = self._shares
        return asked + trained

    @property
    def name(self) -> str:
        return f"distilling {self.plan.small} from {self.plan.large}"

    @property
    def _shares(self) -> tuple[int, int]:
        large, small = self.macs
        return large * self.plan.images, 3 * small * self.plan.images_seen

    def run(self, context: TrialContext, advance: Advance) -> DistilledWeights | FailedDistillation:
        """Train a copy of the small anchor; it fails where its loss does, or where the time is over."""
        started = time.perf_counter()
        self.data.train.pixels.max_bytes = context.train.pixels.max_bytes
        asked, trained = self._shares
        part = asked / (asked + trained)
        small, compute = context.store.anchors[self.plan.small].anchor, context.compute
        try:
            teacher = self._teacher(context, PartsProgress(lambda done: advance(part * done), _log.info)).to(
                compute.device
            )
            labels = self.data.train.labels.to(compute.device)

            def loss_of(logits: Tensor, rows: Tensor) -> Tensor:
                if time.perf_counter() - started > self.seconds:
                    raise _OutOfTime
                rows = rows.to(labels.device)
                return task_loss(logits.float(), labels[rows], teacher[rows], _FOLLOWED)

            recipe = _RECIPE if architecture_kind(small.model) == "cnn" else _RECIPE_OF_OTHERS
            spec = FitSpec(tune="full", epochs=self.plan.epochs, batch_size=self.batch_size, **recipe)
            settings = FitSettings(
                spec, self.seed, PartsProgress(lambda done: advance((1 - part) * done), _log.info), compute
            )
            named = f"{self.plan.small}, distilled from {self.plan.large}"
            network = copy.deepcopy(small.model)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                train_full(FitJob(named, settings, self.checkpoint, loss_of), network, small.preprocessing, self.data)
        except _OutOfTime:
            return FailedDistillation("no time was left (search.timeout)", out_of_time=True)
        except AnchorError as error:
            return FailedDistillation(str(error))
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        return DistilledWeights(tensors, time.perf_counter() - started)

    def given_up(self, reason: str) -> FailedDistillation:
        return FailedDistillation(reason)

    def _teacher(self, context: TrialContext, progress: Progress) -> Tensor:
        """Return the logits ``(n, classes)`` of the large anchor; a session that was killed has left them on disk."""
        path = features_beside(self.checkpoint) / "teacher.pt"
        kept = read_epoch(path)
        if kept is not None and kept.get("images") == self.data.train.digest:
            with progress.task("Logits of the anchors", total=1) as task:
                task.advance()
            return kept["logits"]
        large = {self.plan.large: context.store.anchors[self.plan.large]}
        logits = teacher_logits(large, self.data.train, progress, context.compute)[self.plan.large]
        write_epoch(path, {"images": self.data.train.digest, "logits": logits})
        return logits


def distillation_job(session: Session, prepared: Prepared, images: SearchImages, plan: Distillation) -> DistillationJob:
    """Return the job that trains the distilled control of a search.

    The images are drawn from the whole training split by the search's seed.
    """
    every, seed = images.data.train, session.space.search.seed
    drawn = torch.randperm(len(every), generator=generator_for(seed, "distilled"))
    train = every.subset(drawn[: plan.images].sort().values)
    checkpoint = _checkpoint(session, plan)
    for stale in set(session.folder.path.glob("distilled-*.epoch.pt")) - {checkpoint}:
        forget(stale)  # of a search that has seen more images since
    return DistillationJob(
        plan,
        replace(images.data, train=train),
        seed,
        session.space.training.batch_size,
        checkpoint,
        _seconds_left(session),
        (prepared.macs[plan.large], prepared.macs[plan.small]),
    )


def distilled_network(prepared: Prepared, plan: Distillation, weights: DistilledWeights) -> nn.Module:
    """Return the trained network, frozen, on the device of ``prepared``."""
    network = copy.deepcopy(prepared.anchors[plan.small].anchor.model)
    network.load_state_dict(dict(weights.tensors))
    return prepared.compute.place(freeze(network))


def forget_distillation(session: Session, plan: Distillation) -> None:
    """Remove what a killed training would go on from; its network has been kept."""
    forget(_checkpoint(session, plan))


def _checkpoint(session: Session, plan: Distillation) -> Path:
    return session.folder.path / f"distilled-{plan.wanted}.epoch.pt"


def _seconds_left(session: Session) -> float:
    """Return the seconds that ``search.timeout`` leaves to halving, trials and this."""
    timeout = session.space.search.timeout or math.inf
    return timeout - sum(session.clock.seconds.get(stage, 0.0) for stage in ("halving", "trials", "retraining"))
