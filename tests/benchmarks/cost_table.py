"""Cost table: MACs and parameters of every candidate as sums, against fvcore on each assembled hybrid.

Assembled hybrids are profiled for a seeded draw of candidates, on which both must agree exactly; the time for all is
extrapolated from them. Tracing and cutting the anchors is needed by both ways and is not in either time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from tests.benchmarks.measure import growth_exponent, timed
from tests.benchmarks.result import Condition, Finding

if TYPE_CHECKING:
    from restnet_search.costs.cost_table import AnchorCosts
    from restnet_search.graph.anchor_graph import AnchorGraph
    from restnet_search.search.points.candidates import Candidate


@dataclass(frozen=True)
class Size:
    anchors: tuple[str, ...]
    side: int
    granularity: str
    profiled: int
    candidates: int  # at least so many


FULL = ("resnet50", "convnext_tiny", "swin_tiny_patch4_window7_224", "davit_tiny")
SIZES = {
    "full": Size(FULL, 224, "all", 50, 10_000),
    "small": Size(FULL, 224, "block", 10, 100),
    "tiny": Size(("resnet10t", "cifar_resnet8", "cifar_resnet20"), 32, "block", 5, 10),
}
RATIO = 1000.0


def run(size: str) -> Finding:
    import timm
    import torch

    import restnet_search.anchors.loading.cifar_resnet  # noqa: F401  (registers them)
    from restnet_search.costs.cost_table import profile_anchor
    from restnet_search.graph.anchor_graph import cut_model

    given = SIZES[size]
    graphs = {
        name: cut_model(timm.create_model(name).eval(), (3, given.side, given.side), given.granularity)
        for name in given.anchors
    }
    for name in given.anchors[:1]:
        profile_anchor(graphs[name])  # warm-up: the lazy imports of both ways
    profiled = {name: timed(partial(profile_anchor, graph)) for name, graph in graphs.items()}
    costs = {name: cost for name, (_, cost) in profiled.items()}
    table_seconds, candidates = timed(partial(_enumerate, graphs, costs))
    ours = sum(seconds for seconds, _ in profiled.values()) + table_seconds

    from restnet_search.costs.count import count_costs
    from restnet_search.search.prepare.hybrids import assemble
    from restnet_search.stitching.layer import StitchLayer

    chosen = np.random.default_rng(0).choice(len(candidates), size=min(given.profiled, len(candidates)), replace=False)
    each: list[float] = []
    equal = 0
    for index in map(int, chosen):
        candidate = candidates[index]
        front = (candidate.direction.front, candidate.front_cut)
        back = (candidate.direction.back, candidate.back_cut)
        with torch.no_grad():
            hybrid = assemble(graphs, front, StitchLayer(candidate.plan), back)
            # the assembled hybrid is given: building it is not in the time of the other way
            seconds, counted = timed(partial(count_costs, hybrid, graphs[front[0]].traced.example(1)))
        each.append(seconds)
        equal += (counted.macs, counted.params) == (candidate.cost.macs, candidate.cost.params)
    other = sum(each) / len(each) * len(candidates)
    return Finding(
        f"Costs of {len(candidates):,} candidates of {len(given.anchors)} anchors in all ordered pairs: profiles of "
        f"the anchors' segments and their sums, against fvcore on each assembled hybrid (from {len(each)} drawn ones).",
        other / ours,
        RATIO,
        ours,
        other,
        "s",
        (
            Condition(f"of {len(each)} candidates, equal counts both ways", equal, equal == len(each)),
            Condition(
                f"candidates (to reach: {given.candidates:,})", len(candidates), len(candidates) >= given.candidates
            ),
        ),
        note="" if other / ours >= RATIO else _what_limits(ours, table_seconds),
        details={
            "anchors": {name: len(graph.cut_points) for name, graph in graphs.items()},
            "profile_seconds": {name: seconds for name, (seconds, _) in profiled.items()},
            "table_seconds": table_seconds,
            "fvcore_seconds": {"mean": other / len(candidates), "median": median(each), "of": len(each)},
            "growth": _growth(graphs, costs, {name: seconds for name, (seconds, _) in profiled.items()}),
        },
    )


def _what_limits(ours: float, table_seconds: float) -> str:
    profiling = ours - table_seconds
    return f"of the {ours:.1f} s, {profiling:.1f} s profile each anchor's segments once; the sums take the rest."


def _enumerate(graphs: Mapping[str, AnchorGraph], costs: Mapping[str, AnchorCosts]) -> Sequence[Candidate]:
    """All candidates with their costs, as a search lists them; the ranker keeps all and gives no order."""
    from restnet_search.search.points.candidates import enumerate_candidates
    from restnet_search.space import parse_space
    from restnet_search.units import UNLIMITED

    names = list(graphs)
    space = parse_space(
        {
            "anchors": [{"name": name, "model": name} for name in names],
            "cut_points": {"granularity": "all"},
            "top_k": 1_000_000,
            "data": {"dataset": "digits"},
        },
        source="the benchmark",
    )
    points = {name: graph.cut_points for name, graph in graphs.items()}
    scores = {(a, b): np.zeros((len(points[a]), len(points[b]))) for a in names for b in names if a != b}
    return enumerate_candidates(space, (UNLIMITED,), points, costs, {space.ranker.kind: scores}).candidates


def _growth(
    graphs: Mapping[str, AnchorGraph], costs: Mapping[str, AnchorCosts], profile_seconds: Mapping[str, float]
) -> list[dict]:
    """Time of the sums against candidates (over pairs of anchors and all), of the whole table against anchors."""
    names = list(graphs)
    groups = [list(pair) for pair in combinations(names, 2)] + [names]
    by_candidates: list[tuple[float, float]] = []
    for group in groups:
        seconds, found = timed(partial(_enumerate, *({name: of[name] for name in group} for of in (graphs, costs))))
        by_candidates.append((len(found), seconds))
    by_anchors: list[tuple[float, float]] = []
    for count in range(2, len(names) + 1):
        group = names[:count]
        seconds, _ = timed(partial(_enumerate, *({name: of[name] for name in group} for of in (graphs, costs))))
        by_anchors.append((count, seconds + sum(profile_seconds[name] for name in group)))
    series = {"candidates (sums)": sorted(by_candidates), "anchors (whole table)": by_anchors}
    return [
        {"of": of, "points": points, "exponent": growth_exponent(*zip(*points, strict=True))}
        for of, points in series.items()
    ]
