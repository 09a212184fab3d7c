"""Sections of a search space about stitch points: how they are ranked, trained, searched and compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, StrictBool, field_validator, model_validator

from restnet_search.space.sections.checks import Problem, each_once, one_is_a_list, plain_data, raise_problems
from restnet_search.space.sections.fields import (
    AtLeastFour,
    Epochs,
    Few,
    Fraction,
    KindSection,
    NonNegative,
    NonNegativeFloat,
    Positive,
    RankerName,
    Rate,
    Runs,
    Seconds,
    Section,
    Seed,
    Share,
    StitchName,
    StrategyName,
)

__all__ = [
    "STITCH_TERMS",
    "TUNED",
    "ControlSpec",
    "HalvingSpec",
    "JointSpec",
    "MatchAt",
    "RankerSpec",
    "RetrainSpec",
    "SearchSpec",
    "StitchSpec",
    "StitchTerm",
    "TrainingSpec",
    "Tune",
]

StitchTerm = Literal["positions", "prefix", "scale"]
STITCH_TERMS: tuple[StitchTerm, ...] = get_args(StitchTerm)
"""All that stitch layers may have beside their map, in the order in which it is named."""

MatchAt = Literal["stitch", "final"]
"""Where features are compared with the back anchor's own: at the stitch point, or before its head."""
Tune = Literal["stitch", "stitch+norm-stats", "stitch+norm", "stitch+lora", "all", "hybrid"]
TUNED: Mapping[str, str] = {
    "stitch+norm-stats": "stitch+norm-stats, the back's batch-norm statistics, estimated anew without a gradient",
    "stitch+norm": "stitch+norm, these and the back's norm scales and shifts",
    "stitch+lora": "stitch+lora, the statistics and low-rank deltas of the back's weights",
    "all": "all, every parameter of the back",
    "hybrid": "hybrid, every parameter of the front and of the back",
}
"""Meaning of the choices of ``training.tune``, beyond the stitch layer."""


class RankerSpec(KindSection):
    """The ranker, which orders stitch points before any training."""

    kind: RankerName = "cka"
    options: Annotated[dict[str, Any], AfterValidator(plain_data)] = Field(
        default={}, description="What else this ranker is built with; mostly for those of other packages."
    )
    images: AtLeastFour = Field(
        default=512, description="Training images the ranker looks at; kl learns from all of training.images."
    )
    batch_size: AtLeastFour = Field(default=128, description="Images per minibatch (at least 4).")


class ControlSpec(Section):
    """Controls: what a search trains beside its candidates, to compare them with."""

    self: NonNegative = Field(default=1, description="Cut points at which each anchor is stitched to itself.")
    random: NonNegative = Field(
        default=2, description="Stitch points drawn among those the ranker did not keep, at like FLOPs."
    )
    distilled: StrictBool | NonNegative = Field(
        default=False,
        description="Whether the best affordable anchor is trained whole, to follow the most accurate one that costs "
        "more, on as many images as the search saw (a number: at most on so many).",
    )


class StitchSpec(KindSection):
    """The layer between front and back."""

    kind: list[StitchName] = Field(
        default=["linear"],
        min_length=1,
        description="linear: a map of channels (1x1). conv3x3: also of the 3x3 neighbourhood. lowrank: through fewer "
        "channels, at half of linear's MACs. mlp: linear plus a hidden layer, at twice its MACs. block: conv3x3 plus "
        "two 3x3 convolutions with GELU between. One, or a list to search.",
    )
    terms: list[StitchTerm] = Field(
        default=list(STITCH_TERMS),
        description="What stitch layers have beside their map where a transformer is stitched: positions (an offset "
        "for every place of a target of tokens), prefix (its class token, from the front's mean feature), scale (the "
        "start gives every channel the spread that the back expects). Layers between CNNs have none; [] for none.",
    )
    init: Literal["lstsq", "random"] = Field(default="lstsq", description="Closed-form least squares, or random.")
    images: Positive = Field(default=1000, description="Training images the least-squares start is solved on.")
    ridge: NonNegativeFloat = Field(default=1e-4, description="Ridge relative to the mean diagonal.")

    _lists = field_validator("kind", "terms", mode="before")(one_is_a_list)
    _distinct = field_validator("kind", "terms")(each_once)


class TrainingSpec(Section):
    """Training of a stitch layer; ranges are searched by Optuna."""

    epochs: tuple[Epochs, Epochs] = Field(default=(1, 2), description="[low, high]; 0 keeps the start.")
    lr: tuple[Rate, Rate] = Field(default=(1e-4, 1e-2), description="[low, high] of the peak rate, log scale.")
    batch_size: Positive = 128
    images: Positive = Field(default=4000, description="Training images per epoch, drawn once by the seed.")
    weight_decay: NonNegativeFloat = 0.0
    norms: Literal["frozen", "batch"] = Field(
        default="frozen",
        description="What the back's batch-norms go by in training, unless `tune` is stitch: frozen statistics, "
        "estimated before it, or each batch's own; then they are estimated after it, too.",
    )
    whiten: bool = Field(
        default=False,
        description="Learn in coordinates in which the stitch layer's inputs are white (by the covariance that least "
        "squares has): all directions learn equally fast. The layer stays what it is.",
    )
    views: Few = Field(
        default=1,
        description="Views of each image, epochs in turn: 1 the image itself, more: also fixed augmented ones.",
    )

    tune: Annotated[list[Tune], Field(min_length=1)] = Field(
        default=["stitch"],
        description="What changes: the stitch layer alone; also the back's batch-norm statistics (no gradient), its "
        "norm parameters, low-rank deltas of its weights, or all of it; hybrid: all of the front, too, whose features "
        "are then computed anew in every step. One, or a list to search.",
    )
    match_epochs: list[Epochs] = Field(
        default=[0],
        min_length=1,
        description="Epochs before the others in which the stitch learns the back anchor's own features. One number, "
        "or a list to search.",
    )
    match_at: Annotated[list[MatchAt], Field(min_length=1)] = Field(
        default=["stitch"],
        description="Where these features are compared: at the stitch point, or at the back anchor's final ones before "
        "its head. One, or a list to search.",
    )
    distill: list[Fraction] = Field(
        default=[0.0],
        min_length=1,
        description="Share of the loss that follows the larger anchor's logits instead of the labels. One share, or a "
        "list to search.",
    )
    distill_backs: Literal["all", "larger"] = Field(
        default="all",
        description="Which hybrids follow them: all, or those whose back is of the larger anchor; a small back that is "
        "frozen cannot answer as the larger anchor does.",
    )

    _lists = field_validator("tune", "match_epochs", "match_at", "distill", mode="before")(one_is_a_list)
    _distinct = field_validator("tune", "match_epochs", "match_at", "distill")(each_once)

    @field_validator("epochs", "lr", mode="before")
    @classmethod
    def _single_value_is_a_range(cls, value: object) -> object:
        return (value, value) if isinstance(value, int | float) else value

    @field_validator("epochs", "lr")
    @classmethod
    def _low_before_high(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("low is above high; write [low, high]")
        return value


class JointSpec(Section):
    """SN-Net's sliding windows, in which neighbours share a stitch layer under ``strategy: joint``."""

    kernel: Few = Field(default=2, description="Cut points of each anchor that a window holds; 1: none is shared.")
    stride: Few = Field(default=1, description="Cut points from one window to the next; at most the kernel.")

    @model_validator(mode="after")
    def _windows_meet(self) -> JointSpec:
        if self.stride > self.kernel:
            raise_problems("JointSpec", [Problem(("stride",), f"is above kernel ({self.kernel})", self.stride)])
        return self


class HalvingSpec(Section):
    """Successive halving, which drops candidates before any full training: rungs, each dearer and surer than the last.

    Within each range of FLOPs the best go on, and never fewer in all than ``search.trials``.
    """

    when: Literal["auto", "always", "never"] = Field(
        default="auto", description="auto: each rung where more than twice as many candidates come as search.trials."
    )
    images: AtLeastFour = Field(
        default=400, description="Training images a closed-form stitch is solved on, and val images it is scored on."
    )
    closed_form: Share = Field(
        default=0.3, description="Share kept by the val accuracy of the closed-form stitch; 1: no such rung."
    )
    short: Share = Field(default=0.5, description="Share kept by the val accuracy after short training; 1: none.")
    short_images: Share = Field(
        default=0.25, description="Share of training.images in short training, which is one epoch."
    )
    buckets: Few = Field(default=8, description="Ranges of FLOPs, equally wide on a logarithmic scale.")


class RetrainSpec(Section):
    """Hybrids that are trained again after the trials: of each budget the best on val, front, stitch layer and back."""

    hybrids: NonNegative = Field(
        default=0, description="Of each budget; 0: none. Each is one more hybrid of the run (w012 is h012 retrained)."
    )
    epochs: Positive = Field(default=2, description="Passes over training.images.")


class SearchSpec(Section):
    """The Optuna study."""

    strategy: StrategyName = Field(
        default="independent",
        description="independent: each stitch layer is trained by itself, chosen by the sampler. joint: those of all "
        "candidates together, one drawn per step, shared between neighbours (SN-Net), with as many images in all.",
    )
    joint: JointSpec = JointSpec()

    trials: Runs = Field(
        default=40, description="Fully trained trials to reach; what `halving` tries and drops comes on top."
    )
    ask_ahead: Few = Field(
        default=4,
        description="Trials that are asked before the first of them is told: the sampler learns so many trials later, "
        "and half as many workers never wait.",
    )
    sampler: Literal["tpe", "random", "nsga2"] = "tpe"
    seed: Seed = 0
    timeout: Seconds | None = Field(default=None, description="Seconds; null: no limit.")
