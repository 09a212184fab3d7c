"""The distilled control: the images that a search spent on stitch layers, spent on a small anchor instead.

All of the small anchor is trained to follow the logits of the best one (Hinton et al. 2015), from the weights that
it has. It answers what a reader asks first: would distilling the small model have done?
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restnet_search.anchors.anchor import freeze
from restnet_search.anchors.architecture_kind import architecture_kind
from restnet_search.anchors.fitting.resume import features_beside, forget, read_epoch, write_epoch
from restnet_search.anchors.fitting.train import train_full
from restnet_search.anchors.fitting.training_loop import FitJob, FitSettings
from restnet_search.data import Split
from restnet_search.search.prepare.images import SearchImages
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.run.records import AnchorRecord
from restnet_search.search.run.rival_records import Distillation
from restnet_search.search.run.session import Session
from restnet_search.search.training.losses import task_loss
from restnet_search.search.training.seeds import generator_for
from restnet_search.search.training.teachers import teacher_logits
from restnet_search.space.schema import FitSpec
from restnet_search.units import DeviceBudget

__all__ = ["OutOfTime", "distill", "forget_distillation", "plan_distillation"]

_LEAST_EPOCHS = 5  # so that val may choose among several, and a kill loses a fifth at most
_LEAST_IMAGES = 4
_FOLLOWED = 0.1
"""Share of the loss that follows the large anchor. A larger one pulls an anchor that was fitted to the labels away from
where it was, and so few images do not bring it back."""
_RECIPE: Mapping[str, Any] = {"optimizer": "sgd", "lr": 0.01, "weight_decay": 5e-4}
"""For convolutional anchors; on CIFAR-10, AdamW at the rates tried took more from the weights that it began with."""
_RECIPE_OF_OTHERS: Mapping[str, Any] = {"optimizer": "adamw", "lr": 5e-4, "weight_decay": 0.05}
"""For transformers and the like, which are not trained with SGD."""


class OutOfTime(Exception):
    """The time of the search (``search.timeout``) is over; what was trained so far is kept for a later session."""


def plan_distillation(
    anchors: Sequence[AnchorRecord], budgets: Sequence[DeviceBudget], spent: int, available: int, *, limit: bool | int
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
    cheapest = min(anchor.macs for anchor in anchors)
    followed = [anchor for anchor in anchors if anchor.macs > cheapest] or anchors
    large = max(followed, key=lambda anchor: (anchor.val.top1, -anchor.macs, anchor.name))
    affordable = [
        anchor for anchor in anchors if anchor.macs < large.macs and any(anchor.cost.fits(budget) for budget in budgets)
    ]
    epochs = max(_LEAST_EPOCHS, math.ceil(wanted / available))
    if not affordable or wanted // epochs < _LEAST_IMAGES:
        return None
    small = min(affordable, key=lambda anchor: (-anchor.val.top1, anchor.macs, anchor.name))
    return Distillation(small.name, large.name, wanted // epochs, epochs, wanted)


def distill(session: Session, prepared: Prepared, images: SearchImages, plan: Distillation) -> nn.Module:
    """Train the distilled control, or go on where a killed search left it; the result is the same to the bit.

    The images are drawn from the whole training split by the search's seed; the large anchor sees each once. What it
    says of them, and the state after every epoch, are kept in the run folder until :func:`forget_distillation`.

    Returns:
        The network, frozen, on the device of ``prepared``.

    Raises:
        OutOfTime: If ``search.timeout`` has passed.
        AnchorError: If the training diverges.
    """
    small = prepared.anchors[plan.small].anchor
    every = images.data.train
    drawn = torch.randperm(len(every), generator=generator_for(session.space.search.seed, "distilled"))
    train = every.subset(drawn[: plan.images].sort().values)
    checkpoint = _checkpoint(session, plan)
    for stale in set(session.folder.path.glob("distilled-*.epoch.pt")) - {checkpoint}:
        forget(stale)  # of a search that has seen more images since
    teacher = _teacher(session, prepared, train, plan, checkpoint).to(prepared.compute.device)
    labels = train.labels.to(prepared.compute.device)
    deadline = _deadline(session)

    def loss_of(logits: Tensor, rows: Tensor) -> Tensor:
        if time.perf_counter() > deadline:
            raise OutOfTime
        rows = rows.to(labels.device)
        return task_loss(logits.float(), labels[rows], teacher[rows], _FOLLOWED)

    recipe = _RECIPE if architecture_kind(small.model) == "cnn" else _RECIPE_OF_OTHERS
    batch = session.space.training.batch_size
    spec = FitSpec(tune="full", epochs=plan.epochs, batch_size=batch, **recipe)
    settings = FitSettings(spec, session.space.search.seed, session.progress, prepared.compute)
    job = FitJob(f"{plan.small}, distilled from {plan.large}", settings, checkpoint, loss_of)
    network = copy.deepcopy(small.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(session.space.search.seed)
        train_full(job, network, small.preprocessing, replace(images.data, train=train))
    return prepared.compute.place(freeze(network))


def forget_distillation(session: Session, plan: Distillation) -> None:
    """Remove what a killed training would go on from; its network has been kept."""
    forget(_checkpoint(session, plan))


def _checkpoint(session: Session, plan: Distillation) -> Path:
    return session.folder.path / f"distilled-{plan.wanted}.epoch.pt"


def _teacher(session: Session, prepared: Prepared, train: Split, plan: Distillation, checkpoint: Path) -> Tensor:
    """Return the logits ``(n, classes)`` of the large anchor; a session that was killed has left them on disk."""
    path = features_beside(checkpoint) / "teacher.pt"
    kept = read_epoch(path)
    if kept is not None and kept.get("images") == train.digest:
        return kept["logits"]
    large = {plan.large: prepared.anchors[plan.large]}
    logits = teacher_logits(large, train, session.progress, prepared.compute)[plan.large]
    write_epoch(path, {"images": train.digest, "logits": logits})
    return logits


def _deadline(session: Session) -> float:
    """Return when the time is over that ``search.timeout`` leaves to halving, trials and this, by ``perf_counter``."""
    timeout = session.space.search.timeout or math.inf
    taken = sum(session.clock.seconds.get(stage, 0.0) for stage in ("halving", "trials", "retraining"))
    return time.perf_counter() + timeout - taken
