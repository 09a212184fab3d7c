"""Candidates: hard budgets, directions, the ranker's first partners, and what became of the rest."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from restnet_search.costs.budget_terms import asked_for, stated_at
from restnet_search.costs.cost_table import AnchorCosts, profile_anchor
from restnet_search.costs.peak_memory import profile_memory
from restnet_search.errors import BudgetError
from restnet_search.graph.anchor_graph import AnchorGraph, cut_model
from restnet_search.search.points.candidates import enumerate_candidates
from restnet_search.search.points.device_costs import DeviceCosts
from restnet_search.search.points.stitch_points import directions_of, offered_cuts
from restnet_search.search.run.records import Direction
from restnet_search.space.schema import CutPointSpec, SearchSpace
from restnet_search.units import UNLIMITED, DeviceBudget, parse_budget
from tests.models import IMAGE, build

NAMES = ("cifar_resnet20", "cifar_resnet8")


@cache
def _anchors() -> tuple[dict[str, AnchorGraph], dict[str, AnchorCosts]]:
    graphs = {name: cut_model(build(name), IMAGE) for name in NAMES}
    return graphs, {name: profile_anchor(graph) for name, graph in graphs.items()}


def _space(**changes: object) -> SearchSpace:
    plain = {"anchors": [{"model": name} for name in NAMES], "data": {"dataset": "digits"}, "top_k": 100}
    return SearchSpace.model_validate(plain | changes)


def _enumerate(space: SearchSpace, *budgets: DeviceBudget, device: DeviceCosts | None = None):
    graphs, costs = _anchors()
    generator = np.random.default_rng(0)
    scores = {
        (a, b): generator.random((len(graphs[a].cut_points), len(graphs[b].cut_points))) for a in NAMES for b in NAMES
    }
    points = {name: graph.cut_points for name, graph in graphs.items()}
    return enumerate_candidates(
        space, budgets or (UNLIMITED,), points, costs, {space.ranker.kind: scores}, device
    ), scores


def test_the_larger_anchor_is_the_one_with_more_macs() -> None:
    directions = directions_of(_space(), _anchors()[1])
    assert [(d.front, d.back, d.order) for d in directions] == [
        ("cifar_resnet20", "cifar_resnet8", "large_to_small"),
        ("cifar_resnet8", "cifar_resnet20", "small_to_large"),
    ]
    only = directions_of(_space(orders=["small_to_large"], pairs=[list(NAMES)]), _anchors()[1])
    assert [str(direction) for direction in only] == ["cifar_resnet8 > cifar_resnet20"]


def test_no_candidate_is_over_every_budget_and_none_within_one_is_lost() -> None:
    everything, _ = _enumerate(_space())
    tight, roomy = parse_budget("20MFLOPs,0.2Mparams"), parse_budget("30MFLOPs")
    some, _ = _enumerate(_space(), tight, roomy)

    def fits(candidate) -> bool:
        macs, params = candidate.cost.macs, candidate.cost.params
        return macs <= 30e6 or (macs <= 20e6 and params <= 0.2e6)

    assert {c.key for c in some.candidates} == {c.key for c in everything.candidates if fits(c)}
    assert some.over_budget > 0


def test_memory_limits_are_hard_and_no_hybrid_within_one_is_lost() -> None:
    graphs, _ = _anchors()
    device = DeviceCosts(graphs, {name: profile_memory(graph, "int8") for name, graph in graphs.items()}, "int8")
    everything, _ = _enumerate(_space(), device=device)
    needed = sorted(candidate.cost.memory or 0 for candidate in everything.candidates)
    assert everything.least_memory is not None and 0 < everything.least_memory <= needed[0] < needed[-1]
    limit = needed[len(needed) // 3]
    some, _ = _enumerate(_space(), parse_budget(f"{limit}B@int8"), device=device)
    assert {c.key for c in some.candidates} == {c.key for c in everything.candidates if c.cost.memory <= limit}  # pyright: ignore[reportOptionalOperand]
    none, _ = _enumerate(_space(), parse_budget("30ms"), device=device)
    assert not none.candidates, "a latency that nobody measured is within no limit"


def test_budgets_of_one_search_agree_on_how_they_count() -> None:
    budgets = [parse_budget("64MB@int8"), parse_budget("2G,30ms"), parse_budget("1GB")]
    assert (stated_at("memory", budgets, "float32"), stated_at("latency", budgets, "pytorch")) == ("int8", "pytorch")
    assert asked_for("latency", ("accuracy", "macs"), budgets) and not asked_for("latency", ("accuracy",), [UNLIMITED])
    with pytest.raises(BudgetError, match="in different ways: int8, float16"):
        stated_at("memory", [*budgets, parse_budget("1MB@float16")], "float32")


def test_every_stitch_point_is_accounted_for() -> None:
    found, _ = _enumerate(_space(top_k=2), parse_budget("30MFLOPs"))
    graphs, _ = _anchors()
    assert found.stitch_points == 2 * len(graphs[NAMES[0]].cut_points) * len(graphs[NAMES[1]].cut_points)
    dropped = found.unstitchable + found.over_budget + found.costlier_than_anchors + found.ranked_out
    assert found.stitch_points == dropped + len(found.candidates)


def test_each_kind_of_stitch_layer_is_a_candidate_of_its_own_and_top_k_counts_stitch_points() -> None:
    kinds = ["lowrank", "linear", "conv3x3"]
    # with shallow fronts, no kind makes a hybrid as dear as the larger anchor
    shallow = {"cut_points": {"max_depth": 0.5}, "orders": ["large_to_small"], "top_k": 2}
    alone = {kind: _enumerate(_space(stitch=kind, **shallow))[0] for kind in kinds}
    together, _ = _enumerate(_space(stitch={"kind": kinds}, **shallow))
    of_each = {kind: {c.key: c.cost for c in found.candidates} for kind, found in alone.items()}
    assert {c.key: c.cost for c in together.candidates} == of_each["lowrank"] | of_each["linear"] | of_each["conv3x3"]
    assert len(together.candidates) == 3 * len(alone["linear"].candidates)
    assert (together.stitch_points, together.ranked_out) == (alone["linear"].stitch_points, alone["linear"].ranked_out)


def test_a_budget_may_leave_only_the_cheaper_kinds_of_a_stitch_point() -> None:
    everything, _ = _enumerate(_space(stitch="linear"))
    middle = sorted(candidate.cost.macs for candidate in everything.candidates)[len(everything.candidates) // 2]
    limit = parse_budget(f"{middle}FLOPs")
    together, _ = _enumerate(_space(stitch={"kind": ["linear", "conv3x3"]}), limit)
    found: dict[tuple[object, ...], set[str]] = {}
    for candidate in together.candidates:
        found.setdefault(candidate.key[:-1], set()).add(candidate.plan.kind)
    assert {"linear"} in found.values() and {"linear", "conv3x3"} in found.values()
    assert {"conv3x3"} not in found.values()
    alone, _ = _enumerate(_space(stitch="linear"), limit)
    assert set(found) == {c.key[:-1] for c in alone.candidates} and together.over_budget == alone.over_budget


def test_top_k_keeps_the_rankers_first_partners_of_every_front() -> None:
    everything, scores = _enumerate(_space())
    best, _ = _enumerate(_space(top_k=2))
    rows: dict[tuple[Direction, int], list[float]] = {}
    for candidate in everything.candidates:
        rows.setdefault((candidate.direction, candidate.front_cut), []).append(candidate.score)
    for (direction, cut), values in rows.items():
        kept = [c for c in best.candidates if (c.direction, c.front_cut) == (direction, cut)]
        assert [c.score for c in kept] == sorted(values, reverse=True)[:2]
        assert [c.rank for c in kept] == list(range(len(kept)))
        assert all(c.score == scores[direction.front, direction.back][cut, c.back_cut] for c in kept)


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({}, list(range(10))),
        ({"min_depth": 0.5}, [5, 6, 7, 8, 9]),
        ({"anchors": {"cifar_resnet20": {"include": [1, "layer3.0"]}}}, [1, 7]),
        ({"anchors": {"cifar_resnet20": {"exclude": ["bn1", 9]}}}, list(range(1, 9))),
    ],
)
def test_cut_points_can_be_bounded_included_and_excluded(spec: dict[str, object], wanted: list[int]) -> None:
    graphs, costs = _anchors()
    name = "cifar_resnet20"
    assert offered_cuts(CutPointSpec.model_validate(spec), name, graphs[name].cut_points, costs[name]) == wanted


def test_work_counts_the_front_once_and_the_rest_for_every_epoch_forwards_and_back() -> None:
    found, _ = _enumerate(_space())
    costs = _anchors()[1]
    for candidate in found.candidates:
        front = costs[candidate.direction.front].fronts[candidate.front_cut].macs
        rest = candidate.plan.cost.macs + costs[candidate.direction.back].backs[candidate.back_cut].macs
        assert candidate.work(2) == front + 6 * rest
        assert candidate.work(0) == front + rest  # a closed form is scored
