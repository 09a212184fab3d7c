"""Joint training, as SN-Net (Pan et al., CVPR 2023): one stitchable network, a random stitch point per step.

All candidates are one network that switches: neighbours share a stitch layer
(:mod:`restnet_search.search.training.sharing`), one optimizer holds all of them, and each step draws a candidate and a
batch of images. At the end every candidate is scored on val with the stitch layer that it shares.

Where this differs from SN-Net: only stitch layers learn, as everywhere here, while SN-Net tunes the anchors, too; so no
step is spent on an anchor by itself. Features of frozen fronts come from the store, which a front that learns would
make stale; that is why ``tune: all`` is not offered. A shared layer starts from the least squares over all of its
members' features, where SN-Net averages the solutions of each.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from restnet_search.compute import copy_to_cpu
from restnet_search.data.augmented_views import AugmentedView
from restnet_search.search.points.candidates import Candidate
from restnet_search.search.training.accuracy import score_on_val
from restnet_search.search.training.choices import control_choices
from restnet_search.search.training.context import TrialContext
from restnet_search.search.training.divergence import describe_rise
from restnet_search.search.training.losses import match_loss
from restnet_search.search.training.optimizer import Group, Optimizer
from restnet_search.search.training.seeds import generator_for
from restnet_search.search.training.sharing import share_layers
from restnet_search.search.training.stitch_trainer import TrialOutcome
from restnet_search.search.training.trial import image_order
from restnet_search.space.schema import JointSpec, SearchSpace
from restnet_search.stitching.initialize import StitchFit
from restnet_search.stitching.layer import StitchLayer

__all__ = ["JointBudget", "JointOutcome", "JointTraining", "budget_like_independent"]


@dataclass(frozen=True)
class JointBudget:
    """Length of joint training: passes over the training images, and the peak rate.

    ``match_epochs`` passes come first, in which stitch layers learn the back anchor's own features.
    """

    epochs: int
    match_epochs: int
    lr: float


def budget_like_independent(space: SearchSpace, candidates: int) -> JointBudget:
    """As many training images as ``strategy: independent`` would use: its trials at the mean of their epochs.

    Trials end there where every candidate was tried. The rate is the middle of the space's range, on a log scale.
    """
    trials, choices = min(space.search.trials, candidates), control_choices(space.training)
    return JointBudget(
        epochs=math.ceil(trials * sum(space.training.epochs) / 2),
        match_epochs=trials * space.training.match_epochs[0],
        lr=choices.lr,
    )


@dataclass(frozen=True)
class JointOutcome:
    """The outcome of a candidate with the layer that it shares; ``images`` were drawn for the candidate itself."""

    candidate: Candidate
    trial: TrialOutcome
    images: int


class JointTraining:
    """All stitch layers of a search under training.

    Which candidate and which images a step takes depends on the search's seed alone, so that a training which goes on
    from :meth:`state` ends bit-identical to one that was not interrupted.

    Args:
        candidates: In a fixed order.
        context: What trials share.
        spec: Which neighbours share a stitch layer.
        budget: How long.
    """

    def __init__(
        self, candidates: Sequence[Candidate], context: TrialContext, spec: JointSpec, budget: JointBudget
    ) -> None:
        self.candidates, self._context, self._budget = tuple(candidates), context, budget
        layouts = {name: [cut.layout for cut in graph.cut_points] for name, graph in context.graphs.items()}
        self.shared = share_layers(candidates, layouts, spec)
        self._place = {member.key: place for place, layer in enumerate(self.shared) for member in layer.members}
        self._stitches = nn.ModuleList(
            StitchLayer(layer.plan, generator_for(context.seed, "joint", layer.name)) for layer in self.shared
        )
        context.compute.place(self._stitches)
        per_epoch = math.ceil(len(context.train) / context.batch)
        self._matching_steps = budget.match_epochs * per_epoch
        self.steps = self._matching_steps + budget.epochs * per_epoch
        group = [Group(list(self._stitches.parameters()), budget.lr)]
        decay = context.training.weight_decay
        self._matching = Optimizer(group, decay, self._matching_steps)
        self._task = Optimizer(group, decay, self.steps - self._matching_steps)
        self._draws = torch.randint(
            len(candidates), (self.steps,), generator=generator_for(context.seed, "joint", "stitch points")
        ).tolist()
        self._store = context.store if context.store.can_cache_all(self._asks()) else context.store.uncached()
        self._backs: dict[tuple[str, int], nn.Module] = {}
        self._matched: dict[tuple[str, int], nn.Module] = {}
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))
        self.done, self.stopped, self.seconds = 0, False, 0.0
        self.failed: dict[int, str] = {}
        self._images = [0] * len(self.candidates)
        self._r2: list[float | None] = [None] * len(self.shared)
        self._ends: dict[int, list[float]] = {}  # first and last loss of each candidate, features matched or not

    @property
    def images(self) -> int:
        """Training images seen so far."""
        return sum(self._images)

    @property
    def ended(self) -> bool:
        return self.stopped or self.done == self.steps

    def stitch_of(self, candidate: Candidate) -> StitchLayer:
        """The stitch layer of a candidate, which it may share."""
        stitch = self._stitches[self._place[candidate.key]]
        assert isinstance(stitch, StitchLayer)
        return stitch

    def initialize(self) -> None:
        """The closed-form start: for each stitch layer the least squares over the features of all its members."""
        context, started = self._context, time.perf_counter()
        if context.stitch.init == "random":
            return
        batch, first = context.training.batch_size, torch.arange(len(context.fit))
        for place, layer in enumerate(self.shared):
            fit = StitchFit(self.stitch_of(layer.members[0]), context.stitch.ridge)
            for member in layer.members:
                front, back = member.direction.front, member.direction.back
                sources = context.store.batches(front, member.front_cut, context.train, batch, first)
                targets = context.store.batches(back, member.back_cut, context.fit, batch)
                for source, target in zip(sources, targets, strict=True):
                    fit.update(source, target)
            self._r2[place] = fit.solve()
        self.seconds += time.perf_counter() - started

    def train(
        self,
        save: Callable[[], None],
        *,
        every: int,
        advance: Callable[[], None] = lambda: None,
        deadline: float = math.inf,
        reserve: int = 0,
    ) -> None:
        """Train until the budget is spent or, by ``time.monotonic()``, the deadline is near.

        Args:
            save: Called after every ``every`` steps and at the end.
            every: Steps.
            advance: Called after each step.
            deadline: When all must be over.
            reserve: Steps' worth of time that is kept back before the deadline, judged by the steps so far.
        """
        began, before = time.monotonic(), self.done
        while not self.ended:
            started = time.perf_counter()
            self._step(self._draws[self.done])
            self.done += 1
            self.seconds += time.perf_counter() - started
            now = time.monotonic()
            self.stopped = now + reserve * (now - began) / (self.done - before) > deadline
            advance()
            if self.ended or self.done % every == 0:
                save()

    def _step(self, index: int) -> None:
        """One step with the candidate of this number; one whose loss was not finite is not trained any more."""
        if index in self.failed:
            return
        candidate, context = self.candidates[index], self._context
        epoch, indices = self._batch()
        matching = self.done < self._matching_steps
        view = None if matching else context.view_of(epoch - self._budget.match_epochs)
        stitch, features = (
            self.stitch_of(candidate),
            self._features(candidate.direction.front, candidate.front_cut, indices, view),
        )
        if matching:
            wanted = self._features(*self._match_place(candidate), indices, None)
            variance = wanted.var()
        else:
            wanted = variance = None

        def loss_of(rows: slice) -> Tensor:
            with context.compute.autocast():
                mapped = stitch(features[rows])
                given = (self._until_match(candidate) if matching else self._back(candidate))(mapped)
            if wanted is not None:
                return match_loss(given.float(), wanted[rows], variance)
            return context.task_loss(candidate, given.float(), indices[rows], context.training.distill[0])

        loss = (self._matching if matching else self._task).step(len(indices), loss_of, context.compute.micro_batches)
        if not math.isfinite(loss):
            self._fail(index, f"the loss became {loss} at learning rate {self._budget.lr:.3g}")
            return
        self._images[index] += len(indices)
        if not matching:
            self._ends[index] = [self._ends.get(index, [loss])[0], loss]

    def _fail(self, index: int, reason: str) -> None:
        """End a candidate; where its stitch layer itself is spoilt, all that share it."""
        stitch = self.stitch_of(self.candidates[index])
        spoilt = not all(bool(torch.isfinite(parameter).all()) for parameter in stitch.parameters())
        for number, other in enumerate(self.candidates):
            if number == index or (spoilt and self.stitch_of(other) is stitch):
                self.failed[number] = reason

    def fail_diverged(self) -> None:
        """End the candidates of every stitch layer whose losses, all its members' together, ended above their start.

        One member may lose by what its neighbours win: that is what sharing means, and no divergence.
        """
        for layer in self.shared:
            members = {member.key for member in layer.members}
            numbers = [number for number, one in enumerate(self.candidates) if one.key in members]
            ends = [self._ends[number] for number in numbers if number in self._ends and number not in self.failed]
            reason = describe_rise([start for start, _ in ends], [end for _, end in ends])
            if reason is not None:
                self.failed |= dict.fromkeys(numbers, f"{reason} at learning rate {self._budget.lr:.3g}")

    def outcomes(self, ended: Collection[int] = ()) -> Iterator[tuple[int, JointOutcome]]:
        """Score the candidates on val, one by one: those that neither failed nor have ``ended`` before, by number."""
        share = self.seconds / len(self.candidates)
        for index, candidate in enumerate(self.candidates):
            if index in self.failed or index in ended:
                continue
            started, stitch = time.perf_counter(), self.stitch_of(candidate)
            correct = score_on_val(stitch, self._back(candidate), candidate, self._context)
            seconds = share + time.perf_counter() - started
            r2 = self._r2[self._place[candidate.key]]
            home = self._context.compute.to_cpu(stitch.eval())
            trial = TrialOutcome(home, {}, correct, len(self._context.val), r2, seconds)
            yield index, JointOutcome(candidate, trial, self._images[index])

    def state(self) -> dict[str, Any]:
        """Tensors and plain values from which :meth:`restore` goes on."""
        return {
            "signature": self._signature(),
            "stitches": copy_to_cpu(self._stitches.state_dict()),
            "optimizers": copy_to_cpu([self._matching.state_dict(), self._task.state_dict()]),
            "done": self.done,
            "stopped": self.stopped,
            "seconds": self.seconds,
            "failed": self.failed,
            "images": self._images,
            "r2": self._r2,
            "ends": self._ends,
        }

    def restore(self, state: dict[str, Any] | None) -> bool:
        """Go on from a state; False, and nothing changed, where there is none or it is of another training."""
        if state is None or state.get("signature") != self._signature():
            return False
        self._stitches.load_state_dict(state["stitches"])
        for optimizer, kept in zip((self._matching, self._task), state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.done, self.stopped, self.seconds = state["done"], state["stopped"], state["seconds"]
        self.failed, self._images, self._r2 = state["failed"], state["images"], state["r2"]
        self._ends = state.get("ends", {})  # a state of an earlier version has none
        return True

    def _signature(self) -> str:
        parts = (self._context.seed, self._budget, self._context.batch, len(self._context.train), self.steps)
        parts += ("final",) if self._match_final else ()  # states of earlier versions say nothing
        layers = [(layer.name, layer.plan, [member.key for member in layer.members]) for layer in self.shared]
        return hashlib.sha256(repr((parts, layers)).encode()).hexdigest()

    def _batch(self) -> tuple[int, Tensor]:
        """The number of the pass that the next step belongs to, and its images."""
        size, count = self._context.batch, len(self._context.train)
        epoch, place = divmod(self.done, math.ceil(count / size))
        if self._order[0] != epoch:
            self._order = (epoch, image_order(self._context.seed, "all stitches", epoch, count))
        return epoch, self._order[1][place * size : (place + 1) * size]

    def _features(self, name: str, cut: int, indices: Tensor, view: AugmentedView | None) -> Tensor:
        (features,) = self._store.batches(name, cut, self._context.train, len(indices), indices, view)
        return features

    def _back(self, candidate: Candidate) -> nn.Module:
        key = (candidate.direction.back, candidate.back_cut)
        if key not in self._backs:
            back = self._context.graphs[key[0]].back(key[1]).requires_grad_(False)
            self._backs[key] = self._context.compute.place(back)
        return self._backs[key]

    def _match_place(self, candidate: Candidate) -> tuple[str, int]:
        """The back anchor, and its cut point where features are compared with its own."""
        back, cut = candidate.direction.back, candidate.back_cut
        return back, self._context.graphs[back].final_cut(cut) if self._match_final else cut

    def _until_match(self, candidate: Candidate) -> nn.Module:
        """From the stitch point to there."""
        key = back, cut = candidate.direction.back, candidate.back_cut
        if key not in self._matched:
            part = self._context.graphs[back].until_final(cut) if self._match_final else nn.Identity()
            self._matched[key] = self._context.compute.place(part.requires_grad_(False))
        return self._matched[key]

    @property
    def _match_final(self) -> bool:
        return self._context.training.match_at[0] == "final"

    def _asks(self) -> set[tuple[str, int, Any, AugmentedView | None]]:
        """All features of training images that steps may ask for."""
        train = self._context.train
        views = [self._context.view_of(epoch) for epoch in range(self._context.training.views)]
        asks = {(c.direction.front, c.front_cut, train, view) for c in self.candidates for view in views}
        if self._matching_steps:
            asks |= {(*self._match_place(c), train, None) for c in self.candidates}
        return asks
