"""Rivals of what a search found: the distilled control, trained beside what is left of it, and anchors in a cascade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from safetensors.torch import save

from restnet_search.files import bytes_digest, write_atomically
from restnet_search.pipeline.scoring import AnchorOnVal, Search
from restnet_search.progress import Task
from restnet_search.reporting.assemble.cascades import SplitPredictions
from restnet_search.reporting.assemble.statistics import final_score
from restnet_search.search.run.records import AnchorRecord, Score
from restnet_search.search.run.rival_records import DISTILLED, Distillation, Distilled
from restnet_search.search.study.anchor_predictions import anchor_predictions
from restnet_search.search.study.distilled_control import (
    DistilledWeights,
    FailedDistillation,
    distillation_job,
    distilled_network,
    forget_distillation,
    plan_distillation,
)
from restnet_search.search.study.full_training import images_to_see
from restnet_search.search.study.training_run import TrainingRun
from restnet_search.search.training.accuracy import predictions_of_network

__all__ = ["DistilledControl", "RivalScores", "score_rivals"]


@dataclass(frozen=True)
class RivalScores:
    """The distilled control, where there is one, and what every anchor says of the images of val and test."""

    distilled: Distilled | None = None
    predictions: Mapping[str, SplitPredictions] = field(default_factory=dict)


def score_rivals(search: Search, distilled: Distilled | None) -> RivalScores:
    """Ask the anchors for their predictions on val and test, once per run."""
    images, compute, folder = search.images, search.prepared.compute, search.session.folder
    predictions = {
        name: {
            split.name: anchor_predictions(folder, cut.anchor, split, compute) for split in (images.val, images.test)
        }
        for name, cut in search.prepared.anchors.items()
    }
    return RivalScores(distilled, predictions)


class DistilledControl:
    """The distilled control of a search: trained once per run, as one job of its engine, then scored.

    Args:
        search: Its candidates are known.
        run: Its training, whose images the control gets.
        anchors: Scored on val.
    """

    def __init__(self, search: Search, run: TrainingRun, anchors: Sequence[AnchorOnVal]) -> None:
        self._search, self._run, self._anchors = search, run, anchors
        self._is_planned = False
        self._plan: Distillation | None = None
        self._kept: Distilled | None = None
        self._ticket: int | None = None
        self._told = 0.0
        self._task: Task | None = None

    def begin(self, *, ended: bool) -> None:
        """Submit its job where there are workers, as soon as it is known how many images it gets.

        One slot trains it while the others do what is left. ``ended`` says whether the trials have.
        """
        if self._run.engine.count > 1:
            self._submit(images_to_see(self._run, ended=ended))

    def finish(self, anchors: Sequence[AnchorRecord]) -> Distilled | None:
        """Wait for it, and score it; None where there is none.

        Its weights are on disk before the study says that it was trained. ``anchors`` have all that is known of them.
        """
        session = self._search.session
        with session.clock.stage("distilled"):
            self._submit(images_to_see(self._run, ended=True))
            if self._plan is None or self._ticket is None:
                return self._kept
            trained = self._wait(self._plan, self._ticket)
            if isinstance(trained, FailedDistillation):
                if trained.out_of_time:
                    session.progress.log("The distilled control was left out (search.timeout).")
                else:  # the search stands without it
                    session.warn(f"The distilled control failed: {trained.reason}")
                return None
            small = next(anchor for anchor in anchors if anchor.name == self._plan.small)
            made = self._score(self._plan, trained, small)
        self._search.study.note(DISTILLED, asdict(made))
        forget_distillation(session, self._plan)
        return made

    def _submit(self, spent: int | None) -> None:
        """Plan it, once, and submit its job unless it was trained before."""
        if spent is None or self._is_planned:
            return
        self._is_planned = True
        search, engine = self._search, self._run.engine
        session, limit = search.session, search.session.space.controls.distilled
        seen, available = search.halving.images_seen + spent, len(search.images.data.train)
        self._plan = plan_distillation(self._anchors, session.budgets, seen, available, limit=limit)
        if self._plan is None:
            if limit:
                session.progress.log(
                    "No distilled control: no anchor below the one to follow fits a budget, or too few images."
                )
            return
        kept = search.study.noted(DISTILLED, Distilled)
        if kept is not None and kept.plan == self._plan:
            self._kept = kept
            return
        engine.use(self._run.context)
        self._ticket = engine.submit(
            distillation_job(session, search.prepared, search.images, self._plan), self._advance
        )

    def _advance(self, part: float) -> None:
        self._told += part
        if self._task is not None:
            self._task.advance(part)

    def _wait(self, plan: Distillation, ticket: int) -> DistilledWeights | FailedDistillation:
        what = f"Fitting {plan.small}, distilled from {plan.large}"
        with self._search.session.progress.task(what, total=1) as task:
            task.advance(self._told)
            self._task = task
            return self._run.engine.wait([ticket])[ticket]

    def _score(self, plan: Distillation, trained: DistilledWeights, small: AnchorRecord) -> Distilled:
        """Write its weights, and score it on val and test."""
        search = self._search
        images, compute, prepared = search.images, search.prepared.compute, search.prepared
        network = distilled_network(prepared, plan, trained)
        view = prepared.anchors[plan.small].anchor.preprocessing
        val, test = (
            predictions_of_network(network, view, split, compute=compute).answers for split in (images.val, images.test)
        )
        content = save(dict(trained.tensors))
        write_atomically(search.session.folder.rival(DISTILLED), content)
        scored = replace(
            small,
            name=DISTILLED,
            val=Score.of(val.correct, val.n),
            test=final_score(test, test.n),
            weights="fitted",
            measured=None,
        )
        return Distilled(scored, plan, round(trained.seconds, 3), bytes_digest(content))
