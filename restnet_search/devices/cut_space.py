"""The anchors of a space as latency sees them, cut and costed with random weights; and their latencies here."""

from __future__ import annotations

import time
from pathlib import Path

from restnet_search.costs.cost_table import AnchorCosts
from restnet_search.costs.latency_table import LatencyTable
from restnet_search.data import load_data
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.inspection.one_model import inspect_anchor
from restnet_search.progress import Progress
from restnet_search.search.points.latency_measurement import Clock, measure_table
from restnet_search.space.schema import LatencySpec, SearchSpace
from restnet_search.space.space_files import admit_extensions

__all__ = ["cut_space", "measure_here"]


def cut_space(
    space: SearchSpace, *, base: Path, trust_code: bool, progress: Progress
) -> tuple[dict[str, AnchorGraph], dict[str, AnchorCosts]]:
    """Cut and profile every anchor as a search does; no weights are loaded and nothing is fitted.

    Args:
        space: With an absolute data root; its data is opened to learn how many classes there are.
        base: The folder that files of factories are looked for in.
        trust_code: Whether factories and stitch layers of installed packages may run.
        progress: Shows the anchors.

    Raises:
        DataError, AnchorError, GraphError: As a search does.
    """
    admit_extensions(space, trust_code=trust_code)
    classes = len(load_data(space.data, progress=progress, checked=()).classes)
    graphs: dict[str, AnchorGraph] = {}
    costs: dict[str, AnchorCosts] = {}
    with progress.task("Cutting and profiling anchors", total=len(space.anchors)) as task:
        for spec in space.anchors:
            graphs[spec.name], costs[spec.name] = inspect_anchor(
                spec, granularity=space.cut_points.granularity, base=base, trust_code=trust_code, classes=classes
            )
            task.advance()
    return graphs, costs


def measure_here(
    space: SearchSpace,
    spec: LatencySpec,
    *,
    base: Path,
    trust_code: bool,
    progress: Progress,
    clock: Clock = time.perf_counter,
) -> LatencyTable:
    """Measure the parts of a space and some whole hybrids here; arguments and errors as of :func:`cut_space`.

    On a machine that others compute on, ``clock`` may be ``time.process_time``: with one thread it tells what the
    processor spent on a network, without the time that it was taken away.
    """
    graphs, costs = cut_space(space, base=base, trust_code=trust_code, progress=progress)
    return measure_table(space, graphs, costs, spec, progress, clock=clock)
