"""Latency: interleaved timing by an injected clock, tables that survive the disk, sums of parts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from restnet_search.costs.cost_table import profile_anchor
from restnet_search.costs.latency_table import (
    OVERHEAD,
    LatencyTable,
    MeasuredOn,
    Timing,
    WholeTiming,
    measure_interleaved,
    read_table,
    write_table,
)
from restnet_search.errors import BudgetError
from restnet_search.graph.anchor_graph import cut_model
from restnet_search.progress import SilentProgress
from restnet_search.search.points.latency_measurement import SummedLatency, anchor_digest, measure_table
from restnet_search.search.points.stitch_points import stitch_points
from restnet_search.space.schema import LatencySpec, SearchSpace
from tests.models import IMAGE, build


class Clock:
    """A clock that only the calls move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _timing(seconds: float) -> Timing:
    return Timing(seconds, seconds, 3)


TABLE = LatencyTable(
    on=MeasuredOn("pytorch", threads=1, batch=1, machine="a machine"),
    warmup=1,
    anchors={"a": "1", "b": "2"},
    parts={OVERHEAD: _timing(0.1), "front/a/0": _timing(2.0), "stitch/x": _timing(0.5), "back/b/1": _timing(3.0)},
    wholes=(WholeTiming("front/a/0", "stitch/x", "back/b/1", _timing(5.0)),),
)


def test_median_and_95th_percentile() -> None:
    assert Timing.of([float(n) for n in range(100, 0, -1)]) == Timing(50.5, 95.0, 100)
    assert Timing.of([3.0]) == Timing(3.0, 3.0, 1)


def test_calls_are_interleaved_and_warmed_up() -> None:
    clock, ran = Clock(), []

    def call(name: str, seconds: float):
        def run() -> None:
            ran.append(name)
            clock.now += seconds + (100 if len(ran) <= 6 else 0)  # the first two rounds are slow

        return run

    calls = {name: call(name, seconds) for name, seconds in (("a", 1.0), ("b", 2.0), ("c", 4.0))}
    timings = measure_interleaved(calls, warmup=2, runs=10, clock=clock)
    assert {name: timing.median for name, timing in timings.items()} == {"a": 1.0, "b": 2.0, "c": 4.0}
    assert all(timing == Timing(timing.median, timing.median, 10) for timing in timings.values())
    rounds = [ran[i : i + 3] for i in range(0, len(ran), 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds) and len(rounds) == 12
    assert len({tuple(each) for each in rounds}) > 1


def test_a_drift_hits_all_alike() -> None:
    clock, calls = Clock(), 0

    def run() -> None:
        nonlocal calls
        calls += 1
        clock.now += 1.0 + calls / 100

    timings = measure_interleaved(dict.fromkeys("abcd", run), warmup=0, runs=50, clock=clock)
    medians = [timing.median for timing in timings.values()]
    assert max(medians) - min(medians) < 0.04 < max(t.p95 - t.median for t in timings.values())


def test_a_hybrid_is_the_sum_of_its_parts_without_the_calls_it_saves() -> None:
    assert TABLE.seconds("front/a/0", "stitch/x", "back/b/1") == pytest.approx(2.0 + 0.5 + 3.0 - 2 * 0.1)
    assert TABLE.errors == pytest.approx((0.06,))
    with pytest.raises(BudgetError, match="has no back/b/7"):
        TABLE.seconds("front/a/0", "back/b/7")


def test_a_table_survives_the_disk(tmp_path: Path) -> None:
    path = write_table(TABLE, tmp_path / "t.json")
    assert read_table(path) == TABLE
    raw = json.loads(path.read_text())
    assert list(raw) == [
        "format",
        "version",
        "runtime",
        "threads",
        "batch",
        "warmup",
        "machine",
        "anchors",
        "parts",
        "wholes",
        "digest",
    ]
    assert (raw["runtime"], raw["threads"], raw["batch"], raw["machine"]) == ("pytorch", 1, 1, "a machine")


@pytest.mark.parametrize("damage", ["format", "version", "parts", "anchors", "nan", "text", "overhead", "missing"])
def test_what_is_no_table_is_refused(tmp_path: Path, damage: str) -> None:
    path = write_table(TABLE, tmp_path / "t.json")
    raw = json.loads(path.read_text())
    if damage == "nan":
        raw["parts"]["stitch/x"]["median"] = float("nan")
    elif damage == "overhead":
        del raw["parts"]["overhead"]
    else:
        raw.pop(damage, None)
    path.write_text("{" if damage == "text" else json.dumps(raw))
    if damage == "missing":
        path.unlink()
    with pytest.raises(BudgetError):
        read_table(path)


def test_a_table_is_good_for_its_own_anchors_alone() -> None:
    TABLE.require({"a": "1"})
    with pytest.raises(BudgetError, match="another 'b'"):
        TABLE.require({"a": "1", "b": "3"})
    with pytest.raises(BudgetError, match="not measured for the anchor 'c'"):
        TABLE.require({"c": "1"})


@pytest.mark.parametrize("runtime", ["pytorch", "onnxruntime"])
def test_parts_of_a_space_are_measured_for_real(runtime: str) -> None:
    names = ("cifar_resnet8", "vit")
    space = SearchSpace.model_validate(
        {"anchors": [{"model": name} for name in names], "data": {"dataset": "digits"}, "pairs": [list(names)]}
    )
    graphs = {name: cut_model(build(name), IMAGE) for name in names}
    costs = {name: profile_anchor(graph) for name, graph in graphs.items()}
    spec = LatencySpec(runtime=runtime, runs=3, warmup=1, checked=2)  # pyright: ignore[reportArgumentType]
    table = measure_table(space, graphs, costs, spec, SilentProgress())
    assert (table.on.runtime, table.on.threads, len(table.wholes)) == (runtime, 1, 2)
    assert all(0 < timing.median <= timing.p95 for timing in table.parts.values())
    summed = SummedLatency(table)
    for point in stitch_points(space, {name: graph.cut_points for name, graph in graphs.items()}, costs):
        assert summed.hybrid(point) > 0
    assert all(summed.anchor(name) > 0 for name in names)
    table.require({name: anchor_digest(graph, costs[name]) for name, graph in graphs.items()})
    other = cut_model(build("cifar_resnet8", num_classes=7), IMAGE)
    with pytest.raises(BudgetError, match="classes differ"):
        replace(table, parts={}).require({"cifar_resnet8": anchor_digest(other, profile_anchor(other))})
