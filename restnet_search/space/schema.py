"""The search space: what to cut, stitch, train and search, on which data, for which budgets.

Its sections stand in modules of their own; all of them can be had from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from restnet_search.errors import BudgetError
from restnet_search.space.effort import EFFORTS, Effort, with_effort
from restnet_search.space.sections.anchor_sections import AnchorCutPoints, AnchorSpec, CutPointSpec, FitSpec
from restnet_search.space.sections.checks import Problem, each_once, raise_problems, unknown_name
from restnet_search.space.sections.data_section import DataSpec, SplitSpec, SubsetSpec
from restnet_search.space.sections.fields import Positive, Section
from restnet_search.space.sections.machine_sections import CacheSpec, ComputeSpec, LatencySpec
from restnet_search.space.sections.search_sections import (
    STITCH_TERMS,
    TUNED,
    ControlSpec,
    HalvingSpec,
    JointSpec,
    MatchAt,
    RankerSpec,
    RetrainSpec,
    SearchSpec,
    StitchSpec,
    StitchTerm,
    TrainingSpec,
    Tune,
)
from restnet_search.units import MemoryDtype, parse_budget

__all__ = [
    "STITCH_TERMS",
    "TUNED",
    "AnchorCutPoints",
    "AnchorSpec",
    "CacheSpec",
    "ComputeSpec",
    "ControlSpec",
    "CutPointSpec",
    "DataSpec",
    "FitSpec",
    "HalvingSpec",
    "JointSpec",
    "LatencySpec",
    "MatchAt",
    "Objective",
    "Order",
    "RankerSpec",
    "RetrainSpec",
    "SearchSpace",
    "SearchSpec",
    "SplitSpec",
    "StitchSpec",
    "StitchTerm",
    "SubsetSpec",
    "TrainingSpec",
    "Tune",
]

Order = Literal["large_to_small", "small_to_large"]
Objective = Literal["accuracy", "macs", "params", "memory", "latency"]


class SearchSpace(Section):
    """Everything one search needs; YAML files under `search_spaces/` hold this."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = "space"
    description: str = ""
    anchors: Annotated[list[AnchorSpec], Field(min_length=2)]
    pairs: list[tuple[str, str]] | None = Field(default=None, description="Anchor names; null: every pair.")
    orders: list[Order] = Field(default=["large_to_small", "small_to_large"], min_length=1)
    cut_points: CutPointSpec = CutPointSpec()
    ranker: RankerSpec = RankerSpec()
    top_k: Positive = Field(
        default=3, description="Stitch points kept per front cut point and partner, under `keep: top_k`."
    )
    keep: Literal["top_k", "buckets"] = Field(
        default="top_k",
        description="Which stitch points the ranker keeps. top_k: so many per front. buckets: those within 5 % of the "
        "best of each of 20 ranges of FLOPs, and the best of every back cut point (KLAS).",
    )
    effort: Effort = Field(
        default="balanced",
        description="How hybrids are trained where `training` does not say: "
        + "; ".join(f"{name}: {level.says}" for name, level in EFFORTS.items())
        + ".",
    )
    stitch: StitchSpec = StitchSpec()
    training: TrainingSpec = TrainingSpec()
    search: SearchSpec = SearchSpec()
    halving: HalvingSpec = HalvingSpec()
    retrain: RetrainSpec = RetrainSpec()
    controls: ControlSpec = ControlSpec()
    fit: FitSpec = FitSpec()
    cache: CacheSpec = CacheSpec()
    compute: ComputeSpec = ComputeSpec()
    objectives: list[Objective] = Field(default=["accuracy", "macs"])
    memory_dtype: MemoryDtype = Field(default="float32", description="What weights and activations count as in memory.")
    latency: LatencySpec = LatencySpec()
    budgets: list[str] = Field(default=[], description="Device budgets; --budget on the command line wins.")
    data: DataSpec

    _distinct = field_validator("orders", "objectives")(each_once)

    @model_validator(mode="before")
    @classmethod
    def _fill_by_effort(cls, raw: object) -> object:
        return with_effort(raw) if isinstance(raw, Mapping) else raw

    @field_validator("objectives")
    @classmethod
    def _accuracy_and_a_cost(cls, value: list[str]) -> list[str]:
        if "accuracy" not in value or len(value) < 2:
            raise ValueError("needs accuracy and at least one of macs, params, memory, latency")
        return value

    @field_validator("budgets")
    @classmethod
    def _readable_budgets(cls, value: list[str]) -> list[str]:
        problems: list[Problem] = []
        for index, text in enumerate(value):
            try:
                parse_budget(text)
            except BudgetError as error:
                problems.append(Problem((index,), f"{error.problem} Expected: {error.expected}", text))
        raise_problems("SearchSpace", problems)
        return value

    def _joint_problems(self) -> list[Problem]:
        if self.search.strategy != "joint":
            return []
        problems: list[Problem] = []
        if self.training.tune != ["stitch"]:
            why = "must be stitch under search.strategy: joint, where anchors stay frozen and share stitch layers"
            problems.append(Problem(("training", "tune"), why, list(self.training.tune)))
        lists = {("stitch", "kind"): self.stitch.kind}
        lists |= {("training", name): getattr(self.training, name) for name in ("match_epochs", "match_at", "distill")}
        if self.retrain.hybrids:
            why = "must be 0 under search.strategy: joint, where anchors stay frozen and share stitch layers"
            problems.append(Problem(("retrain", "hybrids"), why, self.retrain.hybrids))
        if self.training.whiten:
            why = "must be false under search.strategy: joint, where a layer has the features of many fronts"
            problems.append(Problem(("training", "whiten"), why, True))
        why = "must be one value under search.strategy: joint, where all stitch layers are trained as one"
        return problems + [Problem(place, why, list(values)) for place, values in lists.items() if len(values) > 1]

    @model_validator(mode="after")
    def _names_agree(self) -> SearchSpace:
        names = [anchor.name for anchor in self.anchors]
        problems = [
            Problem(("anchors", index, "name"), "is the name of an earlier anchor; give each its own `name`", name)
            for index, name in enumerate(names)
            if name in names[:index]
        ]
        for index, pair in enumerate(self.pairs or []):
            problems += [
                Problem(("pairs", index, side), unknown_name(name, names), name)
                for side, name in enumerate(pair)
                if name not in names
            ]
            if pair[0] == pair[1]:
                problems.append(Problem(("pairs", index), "needs two different anchors", list(pair)))
        problems += self._joint_problems()
        for name in self.cut_points.anchors:
            if name not in names:
                problems.append(Problem(("cut_points", "anchors", name), unknown_name(name, names), name))
        raise_problems("SearchSpace", problems)
        return self
