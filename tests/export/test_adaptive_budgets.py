"""Budgets of memory and latency choose routes as they choose hybrids on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from restnet_search.costs.latency_table import MeasuredOn
from restnet_search.errors import BudgetError
from restnet_search.export import ExportSource
from restnet_search.export.adaptive import AdaptiveModel
from restnet_search.export.adaptive.write_adaptive import AdaptiveSource, export_adaptive
from restnet_search.export.network.runtime_cost import Latency, RuntimeCost
from restnet_search.units import parse_budget
from tests.export.networks import cut
from tests.export.test_adaptive import route

ON = MeasuredOn("onnxruntime", 1, 1, "a machine")
# route: kilobytes in float32 and in int8, milliseconds
NEEDS = {"small_cnn": (400, 110, 2), "cnn_to_cnn": (900, 240, 8), "cnn_to_vit": (700, 300, 5)}
Make = Callable[..., AdaptiveModel]


def needing(name: str, latency: bool = True) -> ExportSource:
    whole, quarter, milliseconds = NEEDS[name]
    memory = {"float32": whole * 1000, "int8": quarter * 1000}
    timed = Latency(milliseconds / 1e3, ON, milliseconds / 1e3 + 0.001, 20) if latency else None
    return replace(route(name), running=RuntimeCost(memory, "float32", timed), data="digits, 10 classes")


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, images: Tensor) -> Make:
    """Write and load an adaptive model; its accuracies are 60, 70 and 68 %."""

    def written(change: Callable[[ExportSource], ExportSource] = lambda source: source) -> AdaptiveModel:
        folder = tmp_path_factory.mktemp("budgets") / "out"
        anchors = {name: cut(name).traced.module for name in ("small_cnn", "cnn", "vit")}
        sources = [change(needing(name)) for name in NEEDS]
        export_adaptive(
            AdaptiveSource("digits", sources, anchors, lambda preprocessing: images), folder, with_onnx=False
        )
        return AdaptiveModel.load(folder)

    return written


@pytest.fixture(scope="module")
def model(make: Make) -> AdaptiveModel:
    return make()


@pytest.mark.parametrize(
    ("budget", "chosen"),
    [
        ("1MB", "cnn_to_cnn"),
        ("800kB", "cnn_to_vit"),
        ("500kB", "small_cnn"),
        ("500kB@float32", "small_cnn"),
        ("260kB@int8", "cnn_to_cnn"),  # the other hybrid needs less in float32 and more in int8
        ("10ms", "cnn_to_cnn"),
        ("6ms", "cnn_to_vit"),
        ("6ms@onnxruntime", "cnn_to_vit"),
        ("4999us", "small_cnn"),
        ("1G,800kB,6ms", "cnn_to_vit"),
        ("1MFLOPs,1MB,10ms", "small_cnn"),
        ("pi=1MB,10ms@onnxruntime", "cnn_to_cnn"),
        ("1MB,4ms", "small_cnn"),
    ],
)
def test_choose_the_most_accurate_that_fits_them_all(model: AdaptiveModel, budget: str, chosen: str) -> None:
    assert model.set_budget(budget).name == chosen == model.current.name
    assert model.set_budget(parse_budget(budget)).name == chosen
    assert model.follow(1000, budget=budget).route == chosen


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("100kB@int8", r"No route fits 100kB@int8(.|\n)*the cheapest is small_cnn with .* 110.0kB of memory"),
        ("1ms", r"No route fits 1ms(.|\n)*small_cnn with .* 2.00ms of latency"),
        ("500kB,1ms", r"No route fits"),
        ("6ms@pytorch", r"measured on onnxruntime, not on pytorch(.|\n)*30ms@onnxruntime(.|\n)*30ms@pytorch"),
        ("6ms@device", r"measured on onnxruntime, not on device"),
        ("6ms,7ms", r"limits one cost twice"),
        ("6ms@tflite", r"names 'tflite' behind the @"),
    ],
)
def test_what_fits_no_route_changes_nothing(model: AdaptiveModel, budget: str, said: str) -> None:
    before = model.use("cnn_to_vit")
    for choose in (model.set_budget, lambda text: model.follow(10, budget=text)):
        with pytest.raises(BudgetError, match=said):
            choose(budget)
        assert model.current is before and model.following is None


def test_a_latency_that_nobody_measured_says_how_to_get_it(make: Make) -> None:
    model = make(lambda source: replace(source, running=replace(source.running, latency=None)))
    with pytest.raises(BudgetError, match=r"did not measure it(.|\n)*--objective latency(.|\n)*follow\(target_ms=30\)"):
        model.set_budget("30ms")
    assert model.set_budget("800kB").name == "cnn_to_vit"


def test_memory_that_nobody_priced_is_no_memory_of_zero(make: Make) -> None:
    model = make(lambda source: replace(source, running=RuntimeCost()))
    with pytest.raises(BudgetError, match="does not say what memory"):
        model.set_budget("64MB")


def test_the_run_decides_what_memory_without_a_type_means(make: Make) -> None:
    model = make(lambda source: replace(source, running=replace(source.running, memory_dtype="int8")))
    assert model.set_budget("260kB").name == "cnn_to_cnn"
    assert model.set_budget("800kB@float32").name == "cnn_to_vit"


def test_the_card_and_the_json_say_what_routes_need(make: Make, tmp_path: Path, images: Tensor) -> None:
    anchors = {name: cut(name).traced.module for name in ("small_cnn", "cnn")}
    sources = [needing("small_cnn"), needing("cnn_to_cnn")]
    result = export_adaptive(
        AdaptiveSource("digits", sources, anchors, lambda preprocessing: images), tmp_path / "out", with_onnx=False
    )
    card = (tmp_path / "out" / "README.md").read_text()
    for said in (
        "| memory float32 | memory int8 | latency (p95) |",
        "| 900.0kB | 240.0kB | 8.00ms (9.00ms) |",
        "measured whole, onnxruntime, 1 thread, a machine.",
        "Data: digits, 10 classes.",
        "restnet-search --budget 2MFLOPs",
    ):
        assert said in card
    (first, _) = json.loads(json.dumps(result.summary()))["routes"]
    assert first["memory"] == {"float32": 400_000, "int8": 110_000}
    assert first["latency"]["median"] == 0.002 and first["latency"]["on"]["runtime"] == "onnxruntime"
