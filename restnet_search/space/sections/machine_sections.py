"""Sections of a search space about the machine: how it computes, what it keeps, how latency is measured."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from restnet_search.space.sections.checks import Problem, raise_problems
from restnet_search.space.sections.fields import Cores, Few, Gigabytes, Runs, Section, Text

__all__ = ["CacheSpec", "ComputeSpec", "LatencySpec"]


class CacheSpec(Section):
    """The cache in which features of the anchors are kept, so that each is computed once (GB: 2^30 bytes)."""

    memory_gb: Gigabytes = Field(default=4.0, description="Bound in memory; 0: none are kept there.")
    disk_gb: Gigabytes = Field(default=10.0, description="Bound on disk, over all searches; 0: no files.")
    disk: Literal["auto", "always"] = Field(default="auto", description="auto: only what does not fit the memory.")
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = Field(
        default="float32",
        description="On disk. float32: exact, a trial reaches the same wherever features are kept. auto: float16 where "
        "it holds the features, at half the bytes.",
    )
    trials_per_pass: Few = Field(
        default=8, description="Trials that share a pass, at most, where features fit neither bound."
    )


class ComputeSpec(Section):
    """Devices and types that the search computes on; `--device` and `--compile` may differ when a run is resumed."""

    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto: a GPU where there is one, else the CPU."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Of forward passes while stitch layers are trained (auto: bfloat16 on a GPU only); bfloat16: of"
        " the anchors on training images, too, and of successive halving. Scores of trials are float32 always.",
    )
    channels_last: Literal["auto", "always", "never"] = Field(
        default="auto", description="Memory layout of convolutions; auto: what is faster, measured on the anchors."
    )
    compile: bool = Field(default=False, description="Run frozen fronts through torch.compile.")
    workers: Cores | Literal["auto"] = Field(
        default=1,
        description="Local processes that train trials, the threads divided. auto: one per core, at most "
        "search.ask_ahead, where training is long enough to pay for their start; so the command line has it where no "
        "number is given.",
    )


class LatencySpec(Section):
    """Measurement of latency, where a budget or an objective asks for it."""

    runtime: Literal["pytorch", "onnxruntime", "device"] = Field(
        default="pytorch", description="pytorch (CPU, eager), onnxruntime (CPU), or device: as `table` says."
    )
    threads: Cores = 1
    batch: Few = 1
    warmup: Runs = Field(default=3, description="Runs of every part that are not counted.")
    runs: Runs = Field(default=20, description="Counted runs of every part, interleaved.")
    checked: Few = Field(default=8, description="Whole hybrids that the sums of parts are checked against.")
    table: Text | None = Field(
        default=None, description="A device profile with latencies (YAML), or a run's latency.json; null: measure here."
    )

    @model_validator(mode="after")
    def _device_needs_a_table(self) -> LatencySpec:
        if self.runtime == "device" and self.table is None:
            raise_problems("LatencySpec", [Problem(("table",), "is needed for runtime: device", self.table)])
        return self
