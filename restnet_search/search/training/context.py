"""Context of a trial: what all trials of a search share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from restnet_search.compute import Compute
from restnet_search.data import Split
from restnet_search.data.augmented_views import AugmentedView
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.search.features.store import FeatureStore
from restnet_search.search.points.candidates import Candidate
from restnet_search.search.run.clock import Clock
from restnet_search.search.training.losses import task_loss
from restnet_search.space.schema import StitchSpec, TrainingSpec

__all__ = ["TrialContext", "TrialImages"]


@dataclass(frozen=True)
class TrialImages:
    """The images of trials.

    Attributes:
        train: What stitch layers are trained on.
        fit: The first of ``train``: what the closed-form start is solved on.
        val: What hybrids are scored on.
    """

    train: Split
    fit: Split
    val: Split

    @property
    def named(self) -> Mapping[str, Split]:
        """The splits by their names here; ``fit`` may be all of ``train``, and is it then."""
        named = {"fit": self.fit, "train": self.train, "val": self.val}
        return {name: split for name, split in named.items() if name != "fit" or split.digest != self.train.digest}


@dataclass(frozen=True)
class TrialContext:
    """Everything that the trials of a search share.

    Attributes:
        graphs: Of the anchors, by name.
        store: Features of their fronts.
        images: What trials are trained and scored on.
        stitch: Start of stitch layers.
        training: How they are trained.
        seed: Of the search.
        teachers: Anchors' logits ``(n, classes)`` of the training images, where the loss follows them.
        clock: Has run since the search began.
    """

    graphs: Mapping[str, AnchorGraph]
    store: FeatureStore
    images: TrialImages
    stitch: StitchSpec
    training: TrainingSpec
    seed: int
    teachers: Mapping[str, Tensor] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)

    @property
    def train(self) -> Split:
        """The images that stitch layers are trained on."""
        return self.images.train

    @property
    def fit(self) -> Split:
        """The images that the closed-form start is solved on."""
        return self.images.fit

    @property
    def val(self) -> Split:
        """The images that hybrids are scored on."""
        return self.images.val

    @property
    def compute(self) -> Compute:
        """The device and precision of trials: those of the store."""
        return self.store.compute

    @property
    def batch(self) -> int:
        """Training images per step."""
        return min(self.training.batch_size, len(self.train))

    def view_of(self, epoch: int) -> AugmentedView | None:
        """Return the view of training images in an epoch; ``training.views`` take turns, None is the image itself."""
        index = epoch % self.training.views
        return AugmentedView(index, self.seed) if index else None

    def task_loss(self, candidate: Candidate, logits: Tensor, indices: Tensor, share: float) -> Tensor:
        """Return the loss of a hybrid's float32 logits for the training images that the indices (on the CPU) name.

        A ``share`` of the loss follows a teacher, the larger of the candidate's anchors, unless ``distill_backs`` of
        the training leaves the candidate out.
        """
        gather, direction = self.compute.gather, candidate.direction
        if self.training.distill_backs == "larger" and direction.back != direction.larger:
            share = 0.0
        teacher = gather(self.teachers[direction.larger], indices) if share else None
        return task_loss(logits, gather(self.train.labels, indices), teacher, share)
