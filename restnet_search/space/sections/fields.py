"""Building blocks of sections of search spaces and device profiles: their base class and the types of their numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from restnet_search.registry import RANKERS, STITCH_LAYERS, STRATEGIES
from restnet_search.space.sections.checks import cut_point_reference, no_bool, registered_in

__all__ = [
    "AtLeastFour",
    "CutPointReference",
    "Fraction",
    "KindSection",
    "NonNegative",
    "NonNegativeFloat",
    "Positive",
    "PositiveFloat",
    "RankerName",
    "Section",
    "Share",
    "StitchName",
    "StrategyName",
    "Text",
]

Fraction = Annotated[float, BeforeValidator(no_bool), Field(ge=0.0, le=1.0)]
Share = Annotated[float, BeforeValidator(no_bool), Field(gt=0.0, le=1.0)]
NonNegative = Annotated[int, BeforeValidator(no_bool), Field(ge=0)]
Positive = Annotated[int, BeforeValidator(no_bool), Field(ge=1)]
AtLeastFour = Annotated[int, BeforeValidator(no_bool), Field(ge=4)]
NonNegativeFloat = Annotated[float, BeforeValidator(no_bool), Field(ge=0.0)]
PositiveFloat = Annotated[float, BeforeValidator(no_bool), Field(gt=0.0)]
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
