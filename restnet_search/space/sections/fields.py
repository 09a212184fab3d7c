"""Building blocks of sections of search spaces and device profiles: their base class and the types of their numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from restnet_search.registry import RANKERS, STITCH_LAYERS, STRATEGIES
from restnet_search.space.sections.checks import a_number, cut_point_reference, registered_in

__all__ = [
    "AtLeastFour",
    "Cores",
    "CutPointReference",
    "Epochs",
    "Few",
    "Fraction",
    "Gigabytes",
    "KindSection",
    "NonNegative",
    "NonNegativeFloat",
    "Positive",
    "PositiveFloat",
    "RankerName",
    "Rate",
    "Runs",
    "Seconds",
    "Section",
    "Seed",
    "Share",
    "StitchName",
    "StrategyName",
    "Text",
]

Fraction = Annotated[float, BeforeValidator(a_number), Field(ge=0.0, le=1.0)]
Share = Annotated[float, BeforeValidator(a_number), Field(gt=0.0, le=1.0)]
NonNegative = Annotated[int, BeforeValidator(a_number), Field(ge=0, le=10**9)]
Positive = Annotated[int, BeforeValidator(a_number), Field(ge=1, le=10**9)]
"""Of images, mostly: beyond every data set."""
AtLeastFour = Annotated[int, BeforeValidator(a_number), Field(ge=4, le=10**9)]
Few = Annotated[int, BeforeValidator(a_number), Field(ge=1, le=10_000)]
"""Of things that a search makes or compares one by one."""
Epochs = Annotated[int, BeforeValidator(a_number), Field(ge=0, le=100_000)]
Runs = Annotated[int, BeforeValidator(a_number), Field(ge=1, le=1_000_000)]
Cores = Annotated[int, BeforeValidator(a_number), Field(ge=1, le=1024)]
"""Threads or processes of one machine."""
Seed = Annotated[int, BeforeValidator(a_number), Field(ge=0, lt=2**32)]
"""What numpy, torch and Optuna take alike."""
NonNegativeFloat = Annotated[float, BeforeValidator(a_number), Field(ge=0.0, le=1e6)]
PositiveFloat = Annotated[float, BeforeValidator(a_number), Field(gt=0.0, le=1e6)]
Rate = Annotated[float, BeforeValidator(a_number), Field(gt=0.0, le=1000.0)]
"""Learning rates; those of SGD on a linear probe go far above 1."""
Seconds = Annotated[float, BeforeValidator(a_number), Field(gt=0.0, le=1e9)]
Gigabytes = Annotated[float, BeforeValidator(a_number), Field(ge=0.0, le=1e6)]
RankerName = Annotated[str, AfterValidator(registered_in(RANKERS))]
StitchName = Annotated[str, AfterValidator(registered_in(STITCH_LAYERS))]
StrategyName = Annotated[str, AfterValidator(registered_in(STRATEGIES))]
Text = Annotated[str, Field(min_length=1)]
CutPointReference = Annotated[int | str, BeforeValidator(cut_point_reference)]


class Section(BaseModel):
    """Part of a YAML file of ours: unknown keys are errors, numbers are finite, nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class KindSection(Section):
    """A section that may be written as its `kind` alone: ``ranker: cka``."""

    @model_validator(mode="before")
    @classmethod
    def _kind_alone(cls, value: object) -> object:
        return {"kind": value} if isinstance(value, str) else value
