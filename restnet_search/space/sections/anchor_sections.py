"""Sections of a search space about the models: the anchors, where they are cut, how they are fitted first."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from restnet_search.files import problem_of_name
from restnet_search.space.sections.checks import Problem, a_number, plain_data, raise_problems
from restnet_search.space.sections.fields import (
    CutPointReference,
    Epochs,
    Fraction,
    NonNegativeFloat,
    Positive,
    Rate,
    Runs,
    Section,
    Text,
)

__all__ = ["AnchorCutPoints", "AnchorSpec", "CutPointSpec", "FitSpec"]


_NAME = re.compile(r"[\w .+@=:-]{1,100}")


class AnchorSpec(Section):
    """One pre-trained model: a timm name, or a factory in user code (run only under ``--trust-code``)."""

    name: str = Field(default="", description="Name in reports and of files; the model's name when left out.")
    model: Text | None = Field(default=None, description="A timm model name.")
    factory: Text | None = Field(
        default=None, description="module:function or file.py:function that returns an nn.Module; needs --trust-code."
    )
    pretrained: bool = Field(default=True, description="Load pre-trained weights (from `weights` or timm's hub).")
    weights: Text | None = Field(
        default=None, description="Checkpoint file (safetensors, or a tensors-only .pth); relative to --weights DIR."
    )
    kwargs: dict[str, object] = Field(default_factory=dict, description="Arguments for timm.create_model or factory.")
    license: Text | None = Field(
        default=None, description="Of the weights, for the report and exports; null: what their publisher declares."
    )

    @field_validator("factory")
    @classmethod
    def _module_and_function(cls, value: str | None) -> str | None:
        module, _, function = (value or "m:f").rpartition(":")
        if not (module and function.isidentifier()):
            raise ValueError("must read module:function or file.py:function")
        return value

    @field_validator("kwargs", mode="before")
    @classmethod
    def _plain_kwargs(cls, value: object) -> object:
        return plain_data(value)

    @model_validator(mode="after")
    def _one_source(self) -> AnchorSpec:
        if self.model is None and self.factory is None:
            raise ValueError("needs `model` (a timm name) or `factory` (module:function)")
        if self.model is not None and self.factory is not None:
            raise ValueError("has both `model` and `factory`; keep one of them")
        if not self.name:
            default = self.model or str(self.factory).rpartition(":")[2]
            if problem_of_name(default) is not None:  # local-dir:../models
                default = re.sub(r"[^\w.+@=:-]+", "_", default)[-100:].strip("._")
            object.__setattr__(self, "name", default)  # frozen only from here on
        plain = _NAME.fullmatch(self.name) or self.name == self.model  # hf-hub:a/b lends its name
        if not plain or problem_of_name(self.name) is not None:
            why = "must be at most 100 letters, digits, spaces and _ . + - @ = :, no dot first, no name of a device"
            raise_problems("AnchorSpec", [Problem(("name",), f"{why}; files are named by it", self.name)])
        return self


class AnchorCutPoints(Section):
    """Cut points of one anchor to keep or to leave out, by index or module path."""

    include: list[CutPointReference] | None = Field(default=None, description="Only these; null: all.")
    exclude: list[CutPointReference] = Field(default=[], description="All but these.")


class CutPointSpec(Section):
    """Choice of the cut points that are offered."""

    granularity: Literal["block", "all"] = Field(default="block", description="Block boundaries, or every cut point.")
    min_depth: Fraction = Field(default=0.0, description="Least share of the anchor's MACs in the front.")
    max_depth: Fraction = Field(default=1.0, description="Largest share of the anchor's MACs in the front.")
    anchors: dict[str, AnchorCutPoints] = Field(default={}, description="Per anchor name: include / exclude.")

    @model_validator(mode="after")
    def _ordered(self) -> CutPointSpec:
        if self.min_depth >= self.max_depth:
            problem = f"min_depth must be below max_depth ({self.max_depth:g})"
            raise_problems("CutPointSpec", [Problem(("min_depth",), problem, self.min_depth)])
        return self


class FitSpec(Section):
    """The fit of an anchor whose head does not match the classes to the data."""

    tune: Literal["head", "full", "never"] = Field(default="head", description="never: a mismatch is an error.")
    when: Literal["mismatch", "always"] = Field(
        default="mismatch",
        description="always: fit anchors with the right classes, too (for other images than theirs).",
    )
    allow_untrained: bool = Field(
        default=False, description="Search with anchors that are at chance on val, too; each report then says so."
    )
    epochs: Annotated[Epochs, Field(ge=1)] = 10
    lr: Rate = 1e-3
    batch_size: Positive = 128
    weight_decay: NonNegativeFloat = 0.01
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="sgd: with Nesterov momentum 0.9.")
    label_smoothing: Annotated[float, BeforeValidator(a_number), Field(ge=0.0, lt=1.0)] = 0.0
    augment: bool = Field(default=False, description="Random crops and flips (timm's); needs tune: full.")
    patience: Runs | None = Field(
        default=None, description="Stop after so many epochs without a better val; null: never."
    )

    @model_validator(mode="after")
    def _agrees(self) -> FitSpec:
        problems: list[Problem] = []
        if self.augment and self.tune != "full":
            why = f"needs tune: full, not {self.tune}; the head alone trains on features that are computed once"
            problems.append(Problem(("augment",), why, self.augment))
        if self.when == "always" and self.tune == "never":
            problems.append(Problem(("when",), "contradicts tune: never", self.when))
        raise_problems("FitSpec", problems)
        return self
