"""Check a search space before the user spends an hour: can it be cut, stitched, opened, and what would it cost?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from restnet_search.anchors.anchor import WeightsSource
from restnet_search.costs.cost import Cost
from restnet_search.costs.cost_table import AnchorCosts
from restnet_search.data import DataSplits, Preprocessing, load_data
from restnet_search.data.readers.open_source import open_source
from restnet_search.errors import BudgetError, DataError, GraphError
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.inspection.one_model import inspect_anchor, published_cfg, weights_source
from restnet_search.progress import Progress
from restnet_search.reporting.commands.preview_tables import (
    AnchorRow,
    BudgetRow,
    DataFacts,
    DirectionRow,
    HybridRow,
    SpacePreview,
)
from restnet_search.search.points.candidates import Candidate, enumerate_candidates
from restnet_search.search.points.device_costs import DeviceCosts, memory_costs
from restnet_search.search.points.stitch_points import directions_of, offered_cuts
from restnet_search.search.points.suggested_budgets import suggest_budgets
from restnet_search.search.run.records import Part
from restnet_search.space.schema import AnchorSpec, SearchSpace
from restnet_search.space.space_files import admit_extensions
from restnet_search.stitching.plan import why_not_stitchable
from restnet_search.units import UNLIMITED, format_bytes, parse_budget

__all__ = ["find_test_split", "preview_space"]


def find_test_split(root: Path) -> tuple[str | None, str]:
    """Return the name of a usable test split in a folder of splits, or None and why it cannot be used.

    ImageNet's ``test`` folder has no classes, for one; then test is cut from val.
    """
    if not ((root / "test").is_dir() or (root / "test.tar").is_file()):
        return None, ""
    try:
        open_source("", root, "test")
    except DataError as error:
        return None, f"test is cut from val: {error.problem}"
    return "test", ""


def preview_space(space: SearchSpace, *, base: Path, trust_code: bool, progress: Progress) -> SpacePreview:
    """Open the data, cut the anchors with random weights, and cost every hybrid; nothing is trained or downloaded.

    Args:
        space: With an absolute data root. Its budgets are checked; without any, some are suggested.
        base: The folder that files of factories are looked for in.
        trust_code: Whether factories and stitch layers of installed packages may run.
        progress: Told about every step.

    Raises:
        DataError: If the data cannot be opened, or the first image of a split cannot be read.
        AnchorError: If an anchor cannot be built.
        GraphError: If an anchor cannot be cut, or no two cut points can be stitched.
        BudgetError: If a budget of the space lets no hybrid through.
    """
    admit_extensions(space, trust_code=trust_code)
    graphs: dict[str, AnchorGraph] = {}
    costs: dict[str, AnchorCosts] = {}
    data = load_data(space.data, progress=progress, checked=())  # the whole check is the search's
    with progress.task("Reading an image of each split", total=1) as task:
        _read_an_image_each(data, lenient=bool(space.data.max_unreadable))
        task.advance()
    with progress.task("Cutting and profiling anchors", total=len(space.anchors)) as task:
        for spec in space.anchors:
            graphs[spec.name], costs[spec.name] = inspect_anchor(
                spec,
                granularity=space.cut_points.granularity,
                base=base,
                trust_code=trust_code,
                classes=len(data.classes),
            )
            task.advance()
    device = memory_costs(space, [parse_budget(text) for text in space.budgets], graphs)
    hybrids = _hybrids(space, graphs, costs, device)
    priced = {name: device.anchor(name, row.total) for name, row in costs.items()}
    anchors = tuple(
        _anchor_row(
            spec,
            graphs[spec.name],
            priced[spec.name],
            weights_source(spec, base=base, trust_code=trust_code),
        )
        for spec in space.anchors
    )
    suggested = suggest_budgets([hybrid.cost.macs for hybrid in hybrids], [row.total.macs for row in costs.values()])
    budgets = tuple(_budget_row(text, hybrids, priced) for text in space.budgets or suggested)
    least = min(hybrid.cost.memory or 0 for hybrid in hybrids)
    for row in budgets:
        if not row.hybrids:
            raise BudgetError(
                f"No hybrid of these anchors fits {row.name} (and costs less than the larger anchor).",
                expected=f"a budget such as {', '.join(suggested)}; the least memory that one takes is"
                f" {format_bytes(least)} in {device.dtype}",
                hint="raise --budget, leave it out to be given budgets, or add a smaller --anchor",
            )
    return SpacePreview(
        space=space.name,
        anchors=anchors,
        directions=_direction_rows(space, graphs, costs, hybrids),
        examples=_examples(hybrids, graphs),
        budgets=budgets,
        data=_data_facts(space, data),
        memory_dtype=device.dtype,
    )


def _read_an_image_each(data: DataSplits, *, lenient: bool) -> None:
    """The first image of every split must be readable, or its middle or last one; a search then checks them all."""
    small = Preprocessing((3, 32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", 1.0, "center")
    for split in (data.train, data.val, data.test):
        for tries, index in enumerate((0, len(split) // 2, len(split) - 1), start=1):
            try:
                split.subset([index], own_pixels=True).images(small, [0])
                break
            except DataError:
                if not lenient or tries == 3:
                    raise


def _hybrids(
    space: SearchSpace, graphs: Mapping[str, AnchorGraph], costs: Mapping[str, AnchorCosts], device: DeviceCosts
) -> tuple[Candidate, ...]:
    """All hybrids that cost less than the larger of their anchors, the cheapest first, whatever a ranker may say."""
    every = space.model_copy(update={"keep": "top_k", "top_k": max(len(graph.cut_points) for graph in graphs.values())})
    scores = {(a, b): np.zeros((len(graphs[a].cut_points), len(graphs[b].cut_points))) for a in graphs for b in graphs}
    points = {name: graph.cut_points for name, graph in graphs.items()}
    enumeration = enumerate_candidates(every, [UNLIMITED], points, costs, {space.ranker.kind: scores}, device)
    if not enumeration.candidates:
        names = " and ".join(graphs)
        why = "their cut points lie on different kinds of features"
        if enumeration.cheapest is not None:
            why = "every hybrid costs as much as the larger anchor"
        raise GraphError(
            f"{names} have no stitch point worth a trial: {why}.",
            hint="look at `restnet-search anchors inspect MODEL`, and take another --anchor",
        )
    return tuple(sorted(enumeration.candidates, key=lambda hybrid: (hybrid.cost.macs, str(hybrid.key))))


def _anchor_row(spec: AnchorSpec, graph: AnchorGraph, cost: Cost, source: WeightsSource) -> AnchorRow:
    cfg = published_cfg(spec)
    if cfg is not None and not cfg.has_weights:
        cfg = None
    return AnchorRow(
        name=spec.name,
        cost=cost,
        cut_points=len(graph.cut_points),
        input=tuple(graph.traced.example(1).shape[1:]),
        weights_classes=cfg.num_classes if cfg is not None else None,
        license=cfg.license if cfg is not None else None,
        source="given" if source == "published" and cfg is None else source,
    )


def _direction_rows(
    space: SearchSpace,
    graphs: Mapping[str, AnchorGraph],
    costs: Mapping[str, AnchorCosts],
    hybrids: Sequence[Candidate],
) -> tuple[DirectionRow, ...]:
    layouts = {
        name: [
            graph.cut_points[cut].layout for cut in offered_cuts(space.cut_points, name, graph.cut_points, costs[name])
        ]
        for name, graph in graphs.items()
    }
    rows: list[DirectionRow] = []
    for direction in directions_of(space, costs):
        pairs = [(a, b) for a in layouts[direction.front] for b in layouts[direction.back]]
        stitchable = sum(why_not_stitchable(a, b) is None for a, b in pairs)
        worth = sum(hybrid.direction == direction for hybrid in hybrids)
        rows.append(DirectionRow(direction, len(pairs), stitchable, worth))
    return tuple(rows)


def _examples(hybrids: Sequence[Candidate], graphs: Mapping[str, AnchorGraph]) -> tuple[HybridRow, ...]:
    chosen = {"cheapest": hybrids[0], "middle": hybrids[len(hybrids) // 2], "dearest": hybrids[-1]}
    return tuple(
        HybridRow(
            which=which,
            front=_part(graphs, hybrid.direction.front, hybrid.front_cut),
            back=_part(graphs, hybrid.direction.back, hybrid.back_cut),
            cost=hybrid.cost,
            stitch_macs=hybrid.plan.cost.macs,
        )
        for which, hybrid in chosen.items()
    )


def _part(graphs: Mapping[str, AnchorGraph], anchor: str, cut: int) -> Part:
    return Part(anchor, cut, graphs[anchor].cut_points[cut].path)


def _budget_row(text: str, hybrids: Sequence[Candidate], anchors: Mapping[str, Cost]) -> BudgetRow:
    budget = parse_budget(text)
    known = budget.without("latency")

    def fits(cost: Cost) -> bool:
        return known.allows(macs=cost.macs, params=cost.params, memory=cost.memory)

    within = sum(fits(hybrid.cost) for hybrid in hybrids)
    return BudgetRow(budget.text, within, tuple(name for name, cost in anchors.items() if fits(cost)), known != budget)


def _data_facts(space: SearchSpace, data: DataSplits) -> DataFacts:
    source = " in ".join(filter(None, (space.data.dataset, space.data.root)))
    apart = space.data.dataset == "digits" or space.data.splits.test is not None
    images = {split.name: len(split) for split in (data.train, data.val, data.test)}
    return DataFacts(source, len(data.classes), images, "test" if apart else "val")
