"""Latency of the parts that hybrids of a space are made of, on PyTorch or onnxruntime, and its sums per hybrid."""

from __future__ import annotations

import hashlib
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from restnet_search.costs.cost_table import AnchorCosts
from restnet_search.costs.latency_table import (
    OVERHEAD,
    LatencyTable,
    MeasuredOn,
    Timing,
    WholeTiming,
    measure_interleaved,
    part_id,
)
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.progress import Progress
from restnet_search.search.points.onnx_sessions import onnx_call
from restnet_search.search.points.stitch_points import StitchPoint, self_stitches, stitch_points
from restnet_search.search.prepare.hybrids import assemble
from restnet_search.space.schema import LatencySpec, SearchSpace
from restnet_search.stitching.layer import StitchLayer
from restnet_search.stitching.plan import StitchPlan

__all__ = [
    "Clock",
    "SummedLatency",
    "anchor_digest",
    "measure_networks",
    "measure_table",
    "networks_to_measure",
    "parts_of",
]

Clock = Callable[[], float]


def parts_of(point: StitchPoint) -> tuple[str, str, str]:
    """Return the ids of a stitch point's parts in a latency table."""
    return part_id("front", *point.front), part_id("stitch", _plan_digest(point.plan)), part_id("back", *point.back)


@dataclass(frozen=True)
class SummedLatency:
    """Latencies by sums over a table."""

    table: LatencyTable

    def anchor(self, name: str) -> float:
        """Return the seconds of an anchor."""
        return self.table.seconds(part_id("anchor", name))

    def hybrid(self, point: StitchPoint) -> float:
        """Return the seconds of a hybrid."""
        return self.table.seconds(*parts_of(point))


def anchor_digest(graph: AnchorGraph, costs: AnchorCosts) -> str:
    """Return a digest of all that latencies depend on: cut points, image size, every part's MACs and parameters."""
    facts = (
        graph.traced.image_size,
        [(cut.node, cut.path, cut.shape) for cut in graph.cut_points],
        [(cost.macs, cost.params) for cost in (costs.total, *costs.fronts, *costs.backs)],
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def measure_table(
    space: SearchSpace,
    graphs: Mapping[str, AnchorGraph],
    costs: Mapping[str, AnchorCosts],
    spec: LatencySpec,
    progress: Progress,
    *,
    clock: Clock = time.perf_counter,
) -> LatencyTable:
    """Measure every anchor, front, back and distinct stitch layer that the space offers, and some whole hybrids.

    All are run in the same interleaved rounds. The hybrids are drawn by the search's seed.
    """
    networks, drawn = networks_to_measure(space, graphs, costs, spec)
    timings = measure_networks(networks, spec, progress, clock=clock)
    wholes = tuple(WholeTiming(*parts_of(point), timings.pop(id)) for id, point in drawn.items())
    digests = {name: anchor_digest(graph, costs[name]) for name, graph in graphs.items()}
    on = MeasuredOn(spec.runtime, spec.threads, spec.batch, machine())
    return LatencyTable(on, spec.warmup, digests, timings, wholes)


def networks_to_measure(
    space: SearchSpace, graphs: Mapping[str, AnchorGraph], costs: Mapping[str, AnchorCosts], spec: LatencySpec
) -> tuple[dict[str, tuple[nn.Module, Tensor]], dict[str, StitchPoint]]:
    """Build the networks of a latency table, by id, each with an input; return the whole hybrids among them, too."""
    cut_points = {name: graph.cut_points for name, graph in graphs.items()}
    points = stitch_points(space, cut_points, costs)
    own = [point for name, cuts in cut_points.items() for point in self_stitches(space, name, cuts, costs[name])]
    drawn = random.Random(space.search.seed).sample(points, min(spec.checked, len(points)))
    networks = part_networks(graphs, [*points, *own], spec.batch)
    wholes = {f"hybrid/{place}": point for place, point in enumerate(drawn)}
    for id, point in wholes.items():
        hybrid = assemble(graphs, point.front, StitchLayer(point.plan), point.back)
        networks[id] = (hybrid, graphs[point.front[0]].traced.example(spec.batch))
    return networks, wholes


def part_networks(
    graphs: Mapping[str, AnchorGraph], points: Sequence[StitchPoint], batch: int
) -> dict[str, tuple[nn.Module, Tensor]]:
    """Build every part of the stitch points, with an input; the anchors; and a call that does nothing."""
    networks: dict[str, tuple[nn.Module, Tensor]] = {OVERHEAD: (nn.Identity(), torch.zeros(batch, 1))}
    for name, graph in graphs.items():
        networks[part_id("anchor", name)] = (graph.traced.module, graph.traced.example(batch))
    for point in points:
        (front, i), (back, j) = point.front, point.back
        front_id, stitch_id, back_id = parts_of(point)
        if front_id not in networks:
            networks[front_id] = (graphs[front].front(i), graphs[front].traced.example(batch))
        if stitch_id not in networks:
            networks[stitch_id] = (StitchLayer(point.plan).eval(), _noise(batch, graphs[front].cut_points[i].shape))
        if back_id not in networks:
            networks[back_id] = (graphs[back].back(j), _noise(batch, graphs[back].cut_points[j].shape))
    return networks


def measure_networks(
    networks: Mapping[str, tuple[nn.Module, Tensor]],
    spec: LatencySpec,
    progress: Progress,
    *,
    clock: Clock = time.perf_counter,
) -> dict[str, Timing]:
    """Time networks on the runtime that the section names, interleaved."""
    with tempfile.TemporaryDirectory(prefix="restnet-latency-") as scratch, _threads(spec.threads):
        calls: dict[str, Callable[[], object]] = {}
        with progress.task(f"Preparing {len(networks)} parts for {spec.runtime}", total=len(networks)) as task:
            for place, (id, (network, features)) in enumerate(networks.items()):
                if spec.runtime == "onnxruntime":
                    calls[id] = onnx_call(network, features, Path(scratch) / f"{place}.onnx", spec.threads)
                else:
                    calls[id] = _torch_call(network, features)
                task.advance()
        with progress.task("Measuring latency", total=spec.warmup + spec.runs) as task:
            return measure_interleaved(calls, warmup=spec.warmup, runs=spec.runs, clock=clock, on_round=task.advance)


def machine() -> str:
    """Return the name of the processor, and its number of CPUs."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith(("model name", "model\t"))]
    return f"{(names or [platform.processor() or platform.machine()])[-1]} ({os.cpu_count()} cpus)"


def _torch_call(network: nn.Module, features: Tensor) -> Callable[[], object]:
    def call() -> Tensor:
        with torch.inference_mode():
            return network(features)

    return call


def _noise(batch: int, shape: Sequence[int]) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))


def _plan_digest(plan: StitchPlan) -> str:
    return hashlib.sha256(repr(plan).encode()).hexdigest()[:16]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
