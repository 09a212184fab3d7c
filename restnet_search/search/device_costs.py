"""What hybrids cost on a device beyond MACs and parameters: peak memory, and latency where it was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

import torch

from restnet_search.costs.cost_table import Cost
from restnet_search.costs.latency_table import LatencyTable, read_table, write_table
from restnet_search.costs.peak_memory import (
    ITEM_BYTES,
    AnchorMemory,
    Memory,
    MemoryDtype,
    hybrid_memory,
    module_memory,
    profile_memory,
)
from restnet_search.errors import BudgetError
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.progress import Progress
from restnet_search.search.latency import SummedLatency, anchor_digest, measure_table
from restnet_search.search.prepare import Prepared
from restnet_search.search.run_folder import RunFolder
from restnet_search.space.schema import SearchSpace
from restnet_search.stitching.layer import StitchLayer
from restnet_search.stitching.plan import StitchPlan
from restnet_search.units import DeviceBudget

__all__ = ["DeviceCosts", "asked_for", "device_costs", "memory_costs", "stated_at"]

Place = tuple[str, int]
"""An anchor and the index of one of its cut points."""


@dataclass(frozen=True)
class DeviceCosts:
    """Prices hybrids and anchors: peak memory by the parts' profiles, latency by sums (None: not asked for).

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
        """The cost of a whole anchor with its memory and latency filled in."""
        latency = self.latency.anchor(name) if self.latency else None
        return replace(cost, memory=self.memory[name].total.peak, latency=latency)

    def priced(self, cost: Cost, front: Place, plan: StitchPlan, back: Place) -> Cost:
        """The cost of a hybrid with its memory and latency filled in."""
        latency = self.latency.hybrid(front, plan, back) if self.latency else None
        return replace(cost, memory=self.hybrid_memory(front, plan, back), latency=latency)

    def hybrid_memory(self, front: Place, plan: StitchPlan, back: Place) -> int:
        """Peak bytes of a hybrid for one image."""
        shape = (1, *self.graphs[front[0]].cut_points[front[1]].shape)
        return hybrid_memory(
            self.memory[front[0]].fronts[front[1]],
            self._stitch(plan, shape),
            self.memory[back[0]].backs[back[1]],
            stitch_input=ITEM_BYTES[self.dtype] * prod(shape),
        )

    def _stitch(self, plan: StitchPlan, shape: tuple[int, ...]) -> Memory:
        """Memory of a stitch layer; many stitch points share one plan, so each plan is run once, without values."""
        key = (plan, shape)
        if key not in self._stitches:
            with torch.device("meta"):
                self._stitches[key] = module_memory(StitchLayer(plan), shape, self.dtype)
        return self._stitches[key]


def device_costs(
    space: SearchSpace, budgets: Sequence[DeviceBudget], prepared: Prepared, folder: RunFolder, progress: Progress
) -> DeviceCosts:
    """Profile every anchor's memory, and, where a budget or an objective asks for it, measure the latency of its parts.

    The latency table is kept in the run folder: a resumed run goes on with the same latencies.

    Raises:
        BudgetError: If the budgets contradict each other, or a given table is of other anchors.
    """
    graphs = prepared.graphs
    priced = memory_costs(space, budgets, graphs)
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
    kept = folder.path / "latency.json"
    if kept.exists():
        table = read_table(kept)
    elif foreign:
        table = read_table(Path(str(spec.table)))
    else:
        table = measure_table(space, graphs, prepared.costs, spec, progress)
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


def asked_for(kind: str, objectives: Iterable[str], budgets: Iterable[DeviceBudget]) -> bool:
    """Whether a budget or an objective uses a kind of cost."""
    return kind in objectives or any(kind in dict(budget.limits) for budget in budgets)


def stated_at(kind: str, budgets: Sequence[DeviceBudget], otherwise: str) -> str:
    """What the budgets' limits of one kind are counted in or measured on (behind the ``@``).

    Raises:
        BudgetError: If they name different ones: one search counts and measures one way.
    """
    named = list(dict.fromkeys(at for budget in budgets for name, at in budget.at if name == kind))
    if len(named) > 1:
        raise BudgetError(
            f"The budgets limit {kind} in different ways: {', '.join(named)}.",
            expected="one way for all budgets of a search",
            hint="run one search for each",
        )
    return named[0] if named else otherwise
