"""Every benchmark at a tiny size: its JSON, and that both ways compute the same thing. Never how long it took."""

from __future__ import annotations

import importlib
import importlib.util
import json
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.benchmarks.__main__ import NAMES, main
from tests.benchmarks.anytime import CHANCE, Event, curve, hypervolume, seconds_until, value_at
from tests.benchmarks.measure import alternate, growth_exponent, run_fresh
from tests.benchmarks.plain import Reached, explore

KEYS = {"name", "ratio", "target", "met", "ours", "other", "machine", "command"}
FAST = ("startup", "lstsq", "cost_table", "gpu")


def written(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bench")
    main([*FAST, "--size", "tiny", "--out", str(out)])
    return out


@pytest.mark.parametrize("name", FAST)
def test_results_have_the_agreed_form(folder: Path, name: str) -> None:
    result = written(folder, name)
    assert result.keys() >= KEYS
    assert result["name"] == name and result["size"] == "tiny" and result["machine"]["cores"] >= 1
    assert name in result["command"]
    if result["ratio"] is not None:
        assert result["ratio"] == pytest.approx(result["other"] / result["ours"])
        held = all(condition["met"] is not False for condition in result["conditions"])
        assert result["met"] == (result["ratio"] >= result["target"] and held)
    assert f"[{name}]({name}.json)" in (folder / "README.md").read_text()


def test_both_least_squares_agree(folder: Path) -> None:
    (unexplained,) = (c for c in written(folder, "lstsq")["conditions"] if "unexplained" in c["what"])
    assert unexplained["met"] and 0 < unexplained["value"] < 1
    assert written(folder, "lstsq")["details"]["difference_of_outputs"] < 1e-3


def test_both_cost_tables_agree(folder: Path) -> None:
    (equal,) = (c for c in written(folder, "cost_table")["conditions"] if "equal counts" in c["what"])
    assert equal["met"] and equal["value"] == 5


def test_both_ways_of_training_on_a_device_agree() -> None:
    finding = importlib.import_module("tests.benchmarks.gpu").run("tiny", "cpu")
    assert finding.ratio is not None and finding.conditions[0].value < 1e-3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_row_says_so(folder: Path) -> None:
    result = written(folder, "gpu")
    assert result["met"] is None and result["ratio"] is None and "no GPU" in result["note"]


@pytest.mark.skipif(importlib.util.find_spec("torch_cka") is None, reason="torch-cka is in the extra `bench`")
def test_cka_is_that_of_the_plain_formula_in_float64() -> None:
    finding = importlib.import_module("tests.benchmarks.cka").run("tiny")
    (agreement,) = (c for c in finding.conditions if "difference" in c.what)
    assert agreement.met, finding


def test_the_plain_script_and_the_search_have_the_same_stitch_points_and_costs(shared: Path) -> None:
    """Costs by fvcore of the plain script's own hybrids, against the package's table, for every stitch point."""
    from restnet_search.anchors.loading.cifar_resnet import CifarResNet
    from restnet_search.costs.cost_table import hybrid_cost, profile_anchor
    from restnet_search.graph.anchor_graph import cut_model
    from restnet_search.search.prepare.hybrids import plan_between
    from tests.benchmarks.cifar import block_paths
    from tests.benchmarks.plain import _points, count_macs, hybrid_of

    models = {56: CifarResNet(9).eval(), 20: CifarResNet(3).eval()}
    graphs = {depth: cut_model(model, (3, 32, 32)) for depth, model in models.items()}
    costs = {depth: profile_anchor(graph) for depth, graph in graphs.items()}
    places = {depth: {cut.path: cut.index for cut in graph.cut_points} for depth, graph in graphs.items()}
    points = _points({"56": block_paths(56, 9), "20": block_paths(20, 4)})
    assert len(points) == 8
    for order, front_path, back_path in points:
        first, second = (56, 20) if order == "large_to_small" else (20, 56)
        front, back = (first, places[first][front_path]), (second, places[second][back_path])
        plan = plan_between(graphs, "linear", front, back)  # pyright: ignore[reportArgumentType]
        ours = hybrid_cost(costs[first], front[1], plan.cost, costs[second], back[1])
        network, _ = hybrid_of(models, (order, front_path, back_path), seed=0)
        assert ours.macs == count_macs(network)


def test_exploring_ends_with_every_point_once() -> None:
    points = [(order, front, back) for order in ("x", "y") for front in "abc" for back in "de"][:-2]
    seen = explore(points, lambda point: Reached(len(point[1]) / 2, ord(point[2]), 1.0), seed=3)
    assert sorted(point for point, _ in seen) == sorted(points)


def test_hypervolume_is_the_area_below_the_best_so_far() -> None:
    draw = random.Random(0)
    ceiling = 50.0
    points = [(draw.random(), draw.uniform(1, 70)) for _ in range(30)]
    # second way: the integral over MACs of the best accuracy that is affordable, between all places where it may step
    steps = sorted({0.0, ceiling, *(macs for _, macs in points if macs < ceiling)})
    area = 0.0
    for low, high in pairwise(steps):
        best = max((accuracy for accuracy, macs in points if macs <= low), default=CHANCE)
        area += (max(best, CHANCE) - CHANCE) * (high - low)
    assert hypervolume(points, ceiling) == pytest.approx(area / ((1 - CHANCE) * ceiling))
    assert hypervolume([(1.0, 0.0)], ceiling) == 1.0
    assert hypervolume([], ceiling) == 0.0


def test_curves_rise_and_are_read_at_their_times() -> None:
    rising = curve([Event(3, 0.9, 10), Event(1, 0.5, 10), Event(2, 0.4, 20)], ceiling=100)
    assert [seconds for seconds, _ in rising] == [1, 3]
    assert seconds_until(rising, rising[1][1]) == 3 and seconds_until(rising, 1.0) is None
    assert value_at(rising, 0.5) == 0 and value_at(rising, 2) == rising[0][1] and value_at(rising, 9) == rising[1][1]


def test_the_best_hybrid_of_a_way_is_chosen_on_val_and_judged_on_test() -> None:
    from tests.benchmarks.transformers import SIZES, judge

    anchors = {"cifar_resnet8": [0.7, 1e7], "cifar_vit_s": [0.8, 1e8]}
    shared = {"front_cut": "a", "back_cut": "b", "anchors": anchors, "macs": 1e7}
    to_vit, to_cnn = ({"front": a, "back": b, **shared} for a, b in (list(anchors), list(anchors)[::-1]))
    rows = [
        {**to_vit, "recipe": "best", "val": 0.8, "accuracy": 0.72, "height": 0.02},
        {**to_vit, "recipe": "best", "val": 0.7, "accuracy": 0.9, "height": 0.2},
        {**to_cnn, "recipe": "best", "val": 0.8, "accuracy": 0.65, "height": -0.05},
    ]
    finding = judge("?", rows, SIZES["tiny"])
    assert (finding.ours, finding.other) == (1, 2)
    found = {
        condition.what.partition(":")[0]: condition for condition in finding.conditions if "on val" in condition.what
    }
    assert found["CNN -> Transformer"].met and found["CNN -> Transformer"].value.startswith("+2.0 points")
    assert found["Transformer -> CNN"].met is False and found["Transformer -> Transformer"].met is None


def test_growth_is_the_exponent_of_a_power() -> None:
    sizes = [1.0, 2.0, 5.0, 9.0]
    assert growth_exponent(sizes, [3 * size**1.7 for size in sizes]) == pytest.approx(1.7)


def test_ways_take_turns_and_the_median_counts() -> None:
    calls: list[str] = []
    ours, other = iter([100.0, 1.0, 3.0, 2.0]), iter([100.0, 7.0, 5.0, 6.0])

    def way(name: str, seconds: Iterator[float]) -> float:
        calls.append(name)
        return next(seconds)

    assert alternate(lambda: way("a", ours), lambda: way("b", other), repeats=3) == (2.0, 6.0)
    assert "".join(calls) == "abababab"


def test_a_fresh_process_sees_the_peak_of_the_work_alone() -> None:
    small = run_fresh("lstsq", "other", rows=2_000, inputs=64, outputs=8, batch=500)
    large = run_fresh("lstsq", "other", rows=100_000, inputs=64, outputs=8, batch=500)
    matrix = 100_000 * 64 * 4
    assert large.extra_bytes - small.extra_bytes > matrix


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unfinished = {"chosen": ["startup", "gpu"], "size": "tiny", "done": ["startup"]}
    (tmp_path / ".unfinished.json").write_text(json.dumps(unfinished))
    main(["gpu", "startup", "--size", "tiny", "--out", str(tmp_path)])
    assert not (tmp_path / "startup.json").exists() and (tmp_path / "gpu.json").exists()
    assert "startup: done before" in capsys.readouterr().err
    assert not (tmp_path / ".unfinished.json").exists()


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serch"])
    said = capsys.readouterr().err
    assert all(name in said for name in NAMES)
