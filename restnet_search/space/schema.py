"""The search space: what to cut, stitch, train and search, on which data, for which budgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from restnet_search.errors import BudgetError
from restnet_search.space.checks import Problem, cut_point_reference, no_bool, plain_data, raise_problems, unknown_name
from restnet_search.space.datasets import with_published_splits
from restnet_search.units import parse_budget

__all__ = [
    "TUNED",
    "AnchorCutPoints",
    "AnchorSpec",
    "CacheSpec",
    "ControlSpec",
    "CutPointSpec",
    "DataSpec",
    "EarlySpec",
    "FitSpec",
    "JointSpec",
    "LatencySpec",
    "Order",
    "RankerSpec",
    "SearchSpace",
    "SearchSpec",
    "SplitSpec",
    "StitchSpec",
    "SubsetSpec",
    "TrainingSpec",
    "Tune",
]

Order = Literal["large_to_small", "small_to_large"]
Tune = Literal["stitch", "stitch+norm-stats", "stitch+norm", "stitch+lora", "all"]
TUNED: Mapping[str, str] = {
    "stitch+norm-stats": "stitch+norm-stats, the back's batch-norm statistics, estimated anew without a gradient",
    "stitch+norm": "stitch+norm, these and the back's norm scales and shifts",
    "stitch+lora": "stitch+lora, the statistics and low-rank deltas of the back's weights",
    "all": "all, every parameter of the back",
}
"""What the choices of ``training.tune`` mean, beyond the stitch layer."""

Fraction = Annotated[float, BeforeValidator(no_bool), Field(ge=0.0, le=1.0)]
Share = Annotated[float, BeforeValidator(no_bool), Field(gt=0.0, le=1.0)]
NonNegative = Annotated[int, BeforeValidator(no_bool), Field(ge=0)]
Positive = Annotated[int, BeforeValidator(no_bool), Field(ge=1)]
AtLeastFour = Annotated[int, BeforeValidator(no_bool), Field(ge=4)]
NonNegativeFloat = Annotated[float, BeforeValidator(no_bool), Field(ge=0.0)]
PositiveFloat = Annotated[float, BeforeValidator(no_bool), Field(gt=0.0)]
MemoryDtype = Literal["float32", "float16", "bfloat16", "int8"]
Text = Annotated[str, Field(min_length=1)]
CutPointReference = Annotated[int | str, BeforeValidator(cut_point_reference)]


class _Section(BaseModel):
    """Part of a space: unknown keys are errors, numbers are finite, nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class AnchorSpec(_Section):
    """One pre-trained model: a timm name, or a factory in user code (run only under ``--trust-code``)."""

    name: str = Field(default="", description="Name in reports; the model's name when left out.")
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
            object.__setattr__(self, "name", default)  # frozen only from here on
        return self


class AnchorCutPoints(_Section):
    """Cut points of one anchor to keep or to leave out, by index or module path."""

    include: list[CutPointReference] | None = Field(default=None, description="Only these; null: all.")
    exclude: list[CutPointReference] = Field(default=[], description="All but these.")


class CutPointSpec(_Section):
    """Which cut points of the anchors are offered."""

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


class _KindSection(_Section):
    """A section that may be written as its `kind` alone: ``ranker: cka``."""

    @model_validator(mode="before")
    @classmethod
    def _kind_alone(cls, value: object) -> object:
        return {"kind": value} if isinstance(value, str) else value


class RankerSpec(_KindSection):
    """How stitch points are ordered before any training."""

    kind: Literal["cka", "kl", "lstsq", "random"] = "cka"
    images: AtLeastFour = Field(default=512, description="Training images the ranker looks at.")
    batch_size: AtLeastFour = Field(default=128, description="Images per minibatch (at least 4).")


class ControlSpec(_Section):
    """What a search trains beside its candidates, to compare them with."""

    self: NonNegative = Field(default=1, description="Cut points at which each anchor is stitched to itself.")
    random: NonNegative = Field(
        default=2, description="Stitch points drawn among those the ranker did not keep, at like FLOPs."
    )


class StitchSpec(_KindSection):
    """The layer between front and back."""

    kind: Literal["linear", "conv3x3", "lowrank", "mlp"] = Field(
        default="linear",
        description="linear: a map of channels (1x1). conv3x3: also of the 3x3 neighbourhood. lowrank: through fewer "
        "channels, at half of linear's MACs. mlp: linear plus a hidden layer, at twice its MACs.",
    )
    init: Literal["lstsq", "random"] = Field(default="lstsq", description="Closed-form least squares, or random.")
    images: Positive = Field(default=1000, description="Training images the least-squares start is solved on.")
    ridge: NonNegativeFloat = Field(default=1e-4, description="Ridge relative to the mean diagonal.")


class TrainingSpec(_Section):
    """How a stitch layer is trained; ranges are searched by Optuna."""

    epochs: tuple[NonNegative, NonNegative] = Field(default=(1, 2), description="[low, high]; 0 keeps the start.")
    lr: tuple[PositiveFloat, PositiveFloat] = Field(
        default=(1e-4, 1e-2), description="[low, high] of the peak rate, log scale."
    )
    batch_size: Positive = 128
    images: Positive = Field(default=4000, description="Training images per epoch, drawn once by the seed.")
    weight_decay: NonNegativeFloat = 0.0
    views: Positive = Field(
        default=1,
        description="Views of each image, epochs in turn: 1 the image itself, more: also fixed augmented ones.",
    )

    tune: Annotated[list[Tune], Field(min_length=1)] = Field(
        default=["stitch"],
        description="What changes: the stitch layer alone; also the back's batch-norm statistics (no gradient), its "
        "norm parameters, low-rank deltas of its weights, or all of it. One, or a list to search.",
    )
    match_epochs: NonNegative = Field(
        default=0, description="Epochs before the others in which the stitch learns the back anchor's own features."
    )
    distill: Fraction = Field(
        default=0.0, description="Share of the loss that follows the larger anchor's logits instead of the labels."
    )

    @field_validator("tune", mode="before")
    @classmethod
    def _single_choice_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("tune")
    @classmethod
    def _each_tune_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("lists something twice")
        return value

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


class JointSpec(_Section):
    """Which neighbouring stitch points share a stitch layer under ``strategy: joint`` (SN-Net's sliding windows)."""

    kernel: Positive = Field(default=2, description="Cut points of each anchor that a window holds; 1: none is shared.")
    stride: Positive = Field(default=1, description="Cut points from one window to the next; at most the kernel.")

    @model_validator(mode="after")
    def _windows_meet(self) -> JointSpec:
        if self.stride > self.kernel:
            raise_problems("JointSpec", [Problem(("stride",), f"is above kernel ({self.kernel})", self.stride)])
        return self


class EarlySpec(_Section):
    """Which candidates are dropped before any full training: rungs, each dearer and surer than the one before.

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
    buckets: Positive = Field(default=8, description="Ranges of FLOPs, equally wide on a logarithmic scale.")


class SearchSpec(_Section):
    """The Optuna study."""

    strategy: Literal["independent", "joint"] = Field(
        default="independent",
        description="independent: each stitch layer is trained by itself, chosen by the sampler. joint: those of all "
        "candidates together, one drawn per step, shared between neighbours (SN-Net), with as many images in all.",
    )
    joint: JointSpec = JointSpec()

    trials: Positive = Field(
        default=40, description="Fully trained trials to reach; what `early` tries and drops comes on top."
    )
    sampler: Literal["tpe", "random", "nsga2"] = "tpe"
    seed: NonNegative = 0
    timeout: PositiveFloat | None = Field(default=None, description="Seconds; null: no limit.")


class CacheSpec(_Section):
    """Where features of the anchors are kept, so that each is computed once (GB: 2^30 bytes)."""

    memory_gb: PositiveFloat = Field(default=4.0, description="Bound in memory.")
    disk_gb: NonNegativeFloat = Field(default=10.0, description="Bound on disk, over all searches; 0: no files.")
    disk: Literal["auto", "always"] = Field(default="auto", description="auto: only what does not fit the memory.")
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = Field(
        default="auto", description="On disk. auto: float16 where it holds the features; float32 is exact."
    )
    together: Positive = Field(default=8, description="Trials asked together where features fit neither bound.")


class LatencySpec(_Section):
    """How latency is measured where a budget or an objective asks for it."""

    runtime: Literal["pytorch", "onnxruntime", "device"] = Field(
        default="pytorch", description="pytorch (CPU, eager), onnxruntime (CPU), or device: as `table` says."
    )
    threads: Positive = 1
    batch: Positive = 1
    warmup: Positive = Field(default=3, description="Runs of every part that are not counted.")
    runs: Positive = Field(default=20, description="Counted runs of every part, interleaved.")
    checked: Positive = Field(default=8, description="Whole hybrids that the sums of parts are checked against.")
    table: Text | None = Field(
        default=None, description="A device profile with latencies (YAML), or a run's latency.json; null: measure here."
    )

    @model_validator(mode="after")
    def _device_needs_a_table(self) -> LatencySpec:
        if self.runtime == "device" and self.table is None:
            raise_problems("LatencySpec", [Problem(("table",), "is needed for runtime: device", self.table)])
        return self


class FitSpec(_Section):
    """How an anchor whose head does not match the classes is fitted to the data first."""

    tune: Literal["head", "full", "never"] = Field(default="head", description="never: a mismatch is an error.")
    when: Literal["mismatch", "always"] = Field(
        default="mismatch",
        description="always: fit anchors with the right classes, too (for other images than theirs).",
    )
    epochs: Positive = 10
    lr: PositiveFloat = 1e-3
    batch_size: Positive = 128
    weight_decay: NonNegativeFloat = 0.01
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="sgd: with Nesterov momentum 0.9.")
    label_smoothing: Annotated[float, BeforeValidator(no_bool), Field(ge=0.0, lt=1.0)] = 0.0
    augment: bool = Field(default=False, description="Random crops and flips (timm's); needs tune: full.")
    patience: Positive | None = Field(
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


class SubsetSpec(_Section):
    """How many images of each split are used (null: all), drawn by the seed, classes kept in proportion."""

    train: Positive | None = None
    val: Positive | None = None
    test: Positive | None = None


class SplitSpec(_Section):
    """Where each split is: a folder or tar below the root, or a split name that timm's data set knows."""

    train: Text = "train"
    val: Text = "val"
    test: Text | None = Field(default=None, description="null: cut from val, disjoint, stratified, by the seed.")


class DataSpec(_Section):
    """A data set of the literature, anything else that timm.data.create_dataset reads, or the embedded `digits`."""

    dataset: str = Field(
        default="",
        description="'' for folders and tars, a preset (`restnet-search spaces data`), a timm name such as "
        "torch/mnist, or digits.",
    )
    root: Text | None = Field(default=None, description="Folder of the data; --data DIR on the command line wins.")
    splits: SplitSpec = SplitSpec()
    subset: SubsetSpec = SubsetSpec()
    test_fraction: Annotated[float, BeforeValidator(no_bool), Field(gt=0.0, lt=1.0)] = Field(
        default=0.5, description="Share of val that becomes test when there is no test split."
    )
    seed: NonNegative = 0
    max_unreadable: Fraction | None = Field(
        default=0.01,
        description="Share of a split's images that may be unreadable; they are left out. null: none is looked for.",
    )

    @model_validator(mode="before")
    @classmethod
    def _published_splits(cls, value: object) -> object:
        """A preset's own splits stand in for those that are not named."""
        return with_published_splits(value)


class SearchSpace(_Section):
    """Everything one search needs; YAML files under `search_spaces/` hold this."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = "space"
    description: str = ""
    anchors: Annotated[list[AnchorSpec], Field(min_length=2)]
    pairs: list[tuple[str, str]] | None = Field(default=None, description="Anchor names; null: every pair.")
    orders: Annotated[list[Order], Field(min_length=1)] = ["large_to_small", "small_to_large"]
    cut_points: CutPointSpec = CutPointSpec()
    ranker: RankerSpec = RankerSpec()
    top_k: Positive = Field(default=3, description="Stitch points the ranker keeps per front cut point and partner.")
    stitch: StitchSpec = StitchSpec()
    training: TrainingSpec = TrainingSpec()
    search: SearchSpec = SearchSpec()
    early: EarlySpec = EarlySpec()
    controls: ControlSpec = ControlSpec()
    fit: FitSpec = FitSpec()
    cache: CacheSpec = CacheSpec()
    objectives: list[Literal["accuracy", "macs", "params", "memory", "latency"]] = ["accuracy", "macs"]
    memory_dtype: MemoryDtype = Field(default="float32", description="What weights and activations count as in memory.")
    latency: LatencySpec = LatencySpec()
    budgets: Annotated[list[str], Field(description="Device budgets; --budget on the command line wins.")] = []
    data: DataSpec

    @field_validator("orders", "objectives")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("lists something twice")
        return value

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
        if self.search.strategy == "joint" and self.training.tune != ["stitch"]:
            why = "must be stitch under search.strategy: joint, where anchors stay frozen and share stitch layers"
            problems.append(Problem(("training", "tune"), why, list(self.training.tune)))
        for name in self.cut_points.anchors:
            if name not in names:
                problems.append(Problem(("cut_points", "anchors", name), unknown_name(name, names), name))
        raise_problems("SearchSpace", problems)
        return self
