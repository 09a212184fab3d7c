"""Costs of hybrids on a device beyond MACs and parameters: peak memory, and latency where it was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

import torch

from restnet_search.costs.budget_terms import asked_for, stated_at
from restnet_search.costs.cost import Cost
from restnet_search.costs.latency_table import LatencyTable, read_table, write_table
from restnet_search.costs.peak_memory import AnchorMemory, Memory, hybrid_memory, module_memory, profile_memory
from restnet_search.errors import BudgetError
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.search.points.latency_measurement import SummedLatency, anchor_digest, measure_table
from restnet_search.search.points.stitch_points import StitchPoint
from restnet_search.search.prepare.prepared import Prepared
from restnet_search.search.run.session import Session
from restnet_search.space.schema import SearchSpace
from restnet_search.stitching.layer import StitchLayer
from restnet_search.stitching.plan import StitchPlan
from restnet_search.units import ITEM_BYTES, DeviceBudget, MemoryDtype

__all__ = ["DeviceCosts", "memory_costs", "price_parts"]


@dataclass(frozen=True)
class DeviceCosts:
    """Prices of hybrids and anchors: peak memory by the parts' profiles, latency by sums (None: not asked for).

    ``foreign`` says that the latency table was measured on another device than this one.
    """

    graphs: Mapping[str, AnchorGraph]
    memory: Mapping[str, AnchorMemory]
    dtype: MemoryDtype
    latency: SummedLatency | None = None
    foreign: bool = False
    _stitches: dict[tuple[StitchPlan, tuple[int, ...]], Memory] = field(default_factory=dict)

    @property
    def table(self) -> LatencyTable | None:
        return self.latency.table if self.latency else None

    def anchor(self, name: str, cost: Cost) -> Cost:
        """Return the cost of a whole anchor with its memory and latency filled in."""
        latency = self.latency.anchor(name) if self.latency else None
        return replace(cost, memory=self.memory[name].total.peak, latency=latency)

    def priced(self, cost: Cost, point: StitchPoint) -> Cost:
        """Return the cost of a hybrid with its memory and latency filled in."""
        latency = self.latency.hybrid(point) if self.latency else None
        return replace(cost, memory=self.hybrid_memory(point), latency=latency)

    def hybrid_memory(self, point: StitchPoint) -> int:
        """Return the peak bytes of a hybrid for one image."""
        (front, front_cut), (back, back_cut) = point.front, point.back
        shape = (1, *self.graphs[front].cut_points[front_cut].shape)
        return hybrid_memory(
            self.memory[front].fronts[front_cut],
            self._stitch(point.plan, shape),
            self.memory[back].backs[back_cut],
            stitch_input=ITEM_BYTES[self.dtype] * prod(shape),
        )

    def _stitch(self, plan: StitchPlan, shape: tuple[int, ...]) -> Memory:
        """Return the memory of a stitch layer; stitch points share plans, so each plan is run once, without values."""
        key = (plan, shape)
        if key not in self._stitches:
            with torch.device("meta"):
                self._stitches[key] = module_memory(StitchLayer(plan), shape, self.dtype)
        return self._stitches[key]


def price_parts(session: Session, prepared: Prepared) -> DeviceCosts:
    """Price the parts of hybrids; where a budget or an objective asks for latency, measure that of every part.

    The latency table is kept in the run folder: a resumed run goes on with the same latencies.

    Raises:
        BudgetError: If the budgets contradict each other, or a given table is of other anchors.
    """
    space, budgets, graphs = session.space, session.budgets, prepared.graphs
    priced = DeviceCosts(graphs, prepared.memory, prepared.memory_dtype)
    if not asked_for("latency", space.objectives, budgets):
        return priced
    runtime = stated_at("latency", budgets, "device" if space.latency.table else space.latency.runtime)
    spec = space.latency.model_copy(update={"runtime": runtime})
    foreign = runtime == "device"
    if foreign and spec.table is None:
        raise BudgetError(
            "A latency limit on a device needs a table that was measured there.",
            expected="--device-profile FILE, or latency.table in the space, with latencies of that device",
            hint="write them with restnet-search device bench and device import, or measure here: 30ms@onnxruntime",
        )
    kept = session.folder.path / "latency.json"
    if kept.exists():
        table = read_table(kept)
    elif foreign:
        table = read_table(Path(str(spec.table)))
    else:
        with session.clock.stage("device costs"), prepared.on_cpu():
            table = measure_table(space, graphs, prepared.costs, spec, session.progress)
    table.require({name: anchor_digest(graph, prepared.costs[name]) for name, graph in graphs.items()})
    if not kept.exists():
        write_table(table, kept)
    return replace(priced, latency=SummedLatency(table), foreign=foreign)


def memory_costs(space: SearchSpace, budgets: Sequence[DeviceBudget], graphs: Mapping[str, AnchorGraph]) -> DeviceCosts:
    """Profile every anchor's memory, counted as the budgets say, else as the space does; latency stays unknown.

    Raises:
        BudgetError: If the budgets count it in different ways.
    """
    dtype: MemoryDtype = stated_at("memory", budgets, space.memory_dtype)  # pyright: ignore[reportAssignmentType]
    return DeviceCosts(graphs, {name: profile_memory(graph, dtype) for name, graph in graphs.items()}, dtype)
