"""Rivals of a search's picks: the control that distils a small anchor, and what cascades of anchors are made of."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from safetensors.torch import save

from restnet_search.errors import AnchorError
from restnet_search.files import bytes_digest, write_atomically
from restnet_search.reporting.assemble.cascades import SplitPredictions
from restnet_search.reporting.assemble.statistics import final_score
from restnet_search.scoring import Search
from restnet_search.search.run.records import AnchorRecord, Score
from restnet_search.search.run.rival_records import DISTILLED, Distilled
from restnet_search.search.study.anchor_predictions import anchor_predictions
from restnet_search.search.study.distilled_control import (
    Distillation,
    OutOfTime,
    distill,
    forget_distillation,
    plan_distillation,
)
from restnet_search.search.training.accuracy import answers_of_network

__all__ = ["RivalScores", "score_rivals"]

_STAGE = "distilled"  # of the clock


@dataclass(frozen=True)
class RivalScores:
    """The distilled control, where there is one, and what every anchor says of the images of val and test."""

    distilled: Distilled | None = None
    predictions: Mapping[str, SplitPredictions] = field(default_factory=dict)


def score_rivals(search: Search, anchors: Sequence[AnchorRecord]) -> RivalScores:
    """Train and score the distilled control of a search, each once per run; ask the anchors for their predictions.

    Args:
        search: With all its hybrids trained.
        anchors: Scored on val and test.
    """
    images, compute, folder = search.images, search.prepared.compute, search.session.folder
    predictions = {
        name: {
            split.name: anchor_predictions(folder, cut.anchor, split, compute) for split in (images.val, images.test)
        }
        for name, cut in search.prepared.anchors.items()
    }
    return RivalScores(_distilled(search, anchors), predictions)


def _distilled(search: Search, anchors: Sequence[AnchorRecord]) -> Distilled | None:
    session, available = search.session, len(search.images.data.train)
    limit = session.space.controls.distilled
    plan = plan_distillation(anchors, session.budgets, search.images_seen, available, limit=limit)
    if plan is None:
        if limit:
            session.progress.log("No distilled control: no anchor but the largest fits a budget, or too few images.")
        return None
    kept = search.study.noted(DISTILLED, Distilled)
    if kept is not None and (kept.small, kept.large, kept.wanted) == (plan.small, plan.large, plan.wanted):
        return kept
    try:
        with session.clock.stage(_STAGE):
            made = _train(search, plan, next(anchor for anchor in anchors if anchor.name == plan.small))
    except OutOfTime:
        session.progress.log("The distilled control was left out (search.timeout).")
        return None
    except AnchorError as error:  # the search stands without it
        session.warn(f"The distilled control failed: {error}")
        return None
    search.study.note(DISTILLED, asdict(made))
    forget_distillation(session, plan)
    return made


def _train(search: Search, plan: Distillation, small: AnchorRecord) -> Distilled:
    """Train the control, write its weights, and score it on val and test; all of it is told the study in one step."""
    images, compute, folder = search.images, search.prepared.compute, search.session.folder
    started = time.perf_counter()
    network = distill(search.session, search.prepared, images, plan)
    seconds = time.perf_counter() - started
    view = search.prepared.anchors[plan.small].anchor.preprocessing
    val, test = (answers_of_network(network, view, split, compute=compute) for split in (images.val, images.test))
    content = save({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()})
    write_atomically(folder.rival(DISTILLED), content)
    scored = replace(
        small,
        name=DISTILLED,
        val=Score.of(val.correct, val.n),
        test=final_score(test, test.n),
        weights="fitted",
        measured=None,
    )
    return Distilled(
        network=scored,
        small=plan.small,
        large=plan.large,
        images=plan.images,
        epochs=plan.epochs,
        wanted=plan.wanted,
        seconds=round(seconds, 3),
        sha256=bytes_digest(content),
    )
