"""Devices from end to end: bench, the script in a bare Python, import, and a search that keeps to its milliseconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from restnet_search import AdaptiveModel, load_run
from restnet_search.anchors.loading.cifar_resnet import cifar_resnet8, cifar_resnet14
from restnet_search.costs.latency_table import OVERHEAD, read_table
from restnet_search.devices.bench_files import content_digest
from restnet_search.devices.device_results import read_results
from restnet_search.errors import BudgetError
from tests.command_line import run

SPACE = """
name: tiny
anchors:
  - {name: large, model: cifar_resnet14, pretrained: false}
  - {name: small, model: cifar_resnet8, pretrained: false}
orders: [small_to_large]
cut_points: {min_depth: 0.3, max_depth: 0.8}
top_k: 1
ranker: {kind: random}
stitch: {images: 32}
training: {epochs: 1, images: 32, batch_size: 16}
fit: {epochs: 1}
search: {trials: 2}
controls: {self: 1, random: 0}
retrain: {hybrids: 0}
latency: {warmup: 1, runs: 4}
data: {dataset: digits, subset: {train: 64, val: 40, test: 40}}
"""
BARE = """
import runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "restnet_search", "onnx", "timm"):
            raise ImportError(name + " is not on the device")
sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
assert not {"torch", "restnet_search", "onnx"} & set(sys.modules)
"""


def script(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script as a device would: in a fresh Python that has neither torch nor restnet_search."""
    command = [sys.executable, "-I", "-c", BARE, str(folder / "measure.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the space, what was written for a device, and what the device measured."""
    folder = tmp_path_factory.mktemp("device")
    (folder / "tiny.yaml").write_text(SPACE)
    before, cwd = os.environ.get("RESTNET_CACHE"), Path.cwd()
    os.environ["RESTNET_CACHE"] = str(folder / "cache")
    os.chdir(folder)
    try:
        assert run("device", "bench", "tiny.yaml", "--out", "bench", "--hybrids", "2") == 0
        done = script(folder / "bench")
        assert done.returncode == 0, done.stderr
    finally:
        os.chdir(cwd)
        os.environ.pop("RESTNET_CACHE")
        if before is not None:
            os.environ["RESTNET_CACHE"] = before
    return folder


@pytest.fixture
def measured_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESTNET_CACHE", str(home / "cache"))
    monkeypatch.chdir(home)
    return home


def test_the_script_measures_every_network_and_writes_one_file(home: Path) -> None:
    bench = json.loads((home / "bench" / "bench.json").read_text())
    raw = json.loads((home / "bench" / "results.json").read_text())
    assert set(raw["seconds"]) == {network["id"] for network in bench["networks"]}
    assert all(len(values) == 4 and min(values) > 0 for values in raw["seconds"].values())
    assert raw["bench"] == bench["digest"] and raw["anchors"] == bench["anchors"]
    assert {path.suffix for path in (home / "bench").iterdir()} == {".onnx", ".bin", ".json", ".py"}
    table = read_results(home / "bench" / "results.json").table
    assert len(table.wholes) == 2 and OVERHEAD in table.parts and not any("hybrid" in part for part in table.parts)
    median = sorted(raw["seconds"]["anchor/large"])
    assert table.parts["anchor/large"].median == pytest.approx((median[1] + median[2]) / 2)


def test_where_memory_is_small_groups_give_as_many_runs(home: Path) -> None:
    done = script(home / "bench", "--at-once", "7", "--runs", "5", "--out", str(home / "grouped.json"))
    assert done.returncode == 0, done.stderr
    assert {timing.runs for timing in read_results(home / "grouped.json").table.parts.values()} == {5}


def test_equal_weights_go_to_the_device_once(home: Path) -> None:
    bench = json.loads((home / "bench" / "bench.json").read_text())
    ids = [network["id"] for network in bench["networks"]]
    assert sum(id.startswith("back/large/") for id in ids) > 1
    anchors = sum(
        4 * sum(p.numel() for p in make(num_classes=10).parameters()) for make in (cifar_resnet8, cifar_resnet14)
    )
    assert (home / "bench" / "weights.bin").stat().st_size < 2 * anchors


def test_a_folder_that_did_not_arrive_whole_measures_nothing(home: Path, tmp_path: Path) -> None:
    for path in (home / "bench").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[: -4 if path.name == "weights.bin" else None])
    (tmp_path / "results.json").unlink()
    done = script(tmp_path)
    assert done.returncode == 1 and "weights.bin is not the file that was written" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "results.json").exists()


def test_a_search_keeps_to_the_milliseconds_of_the_device(
    measured_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = ["device", "import", "bench/results.json", "--name", "box"]
    assert run(*results, "--limit", "10s", "--limit", "1GB", "--out", "box.yaml", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["budget"] == "box=1GB,10s@device" and len(said["error"]["wholes"]) == 2
    assert read_table(measured_home / "box.yaml") == read_results(measured_home / "bench" / "results.json").table
    assert run(*results, "--out", "box.yaml") == 2 and "exists already" in capsys.readouterr().err

    assert run("--space", "tiny.yaml", "--device-profile", "box.yaml", "--run", "fits") == 0
    told = " ".join(capsys.readouterr().out.split())
    found = json.loads((measured_home / "reports" / "fits" / "results.json").read_text())
    table = read_table(measured_home / "box.yaml")
    assert f"Budget box: at most 1.00GB of memory in float32 and 10.0s of latency on {table.on}" in told
    for anchor in found["anchors"]:
        assert anchor["cost"]["latency"] == pytest.approx(table.seconds(f"anchor/{anchor['name']}"))
    assert found["search"]["latency"]["on"]["machine"] == table.on.machine
    assert all(0 < hybrid["cost"]["latency"] < 10 for hybrid in found["hybrids"]) and found["hybrids"]

    assert run("export", "fits", "--adaptive", "--format", "safetensors", "--out", "switching") == 0
    model = AdaptiveModel.load("switching")
    report = load_run(measured_home / "reports" / "fits")
    for route in model.routes:
        assert route.running.latency_at("device") == route.running.latency_at() == report.entry(route.name).latency
        assert route.running.latency is not None and route.running.latency.p95 is None  # a sum
        assert model.set_budget(f"1GB,{route.running.latency.median + 1e-9:.9f}s@device").val.top1 >= route.val.top1
    with pytest.raises(BudgetError, match="measured on device, not on onnxruntime"):
        model.set_budget("10s@onnxruntime")

    # a space names it by a path that starts at its own folder
    (measured_home / "below").mkdir()
    below = SPACE + "objectives: [accuracy, latency]\n"
    below = below.replace("runs: 4", "runs: 4, runtime: device, table: ../box.yaml")
    (measured_home / "below" / "tiny.yaml").write_text(below)
    assert run("--space", "below/tiny.yaml", "--budget", "1us", "--run", "none") == 2
    told = capsys.readouterr().err
    assert "No hybrid of these anchors fits 0.001ms" in told and "of latency" in told


def test_what_a_run_measured_whole_here_goes_with_its_export(measured_home: Path) -> None:
    assert run("--space", "tiny.yaml", "--budget", "10s@pytorch", "--run", "here") == 0
    assert run("export", "here", "--adaptive", "--format", "safetensors", "--out", "timed") == 0
    model, report = AdaptiveModel.load("timed"), load_run(measured_home / "reports" / "here")
    for route in model.routes:
        measured, latency = report.entry(route.name).measured, route.running.latency
        assert measured is not None and latency is not None and latency.on.runtime == "pytorch"
        assert (latency.median, latency.p95, latency.runs) == (measured.median, measured.p95, 4)
        assert model.set_budget(f"{latency.median + 1e-9:.9f}s@pytorch").val.top1 >= route.val.top1


def test_another_space_is_refused_by_one_clear_error(measured_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("device", "import", "bench/results.json", "--name", "there", "--limit", "10s") == 0
    capsys.readouterr()
    (measured_home / "foreign.yaml").write_text(SPACE.replace("cifar_resnet14", "cifar_resnet20"))
    assert run("--space", "foreign.yaml", "--device-profile", "there.yaml", "--run", "foreign") == 2
    told = capsys.readouterr().err
    assert "was measured for another 'large'" in told and "Traceback" not in told
    assert not (measured_home / "reports" / "foreign").exists()


@pytest.mark.parametrize("damage", ["cut", "number", "digest", "runs", "part", "zero", "format", "list", "missing"])
def test_damaged_results_are_refused(home: Path, tmp_path: Path, damage: str) -> None:
    text = (home / "bench" / "results.json").read_text()
    raw = json.loads(text)
    if damage == "number":
        raw["seconds"]["anchor/large"][0] *= 0.5
    elif damage == "digest":
        del raw["digest"]
    elif damage == "format":
        raw["format"] = "another"
    elif damage in ("runs", "part", "zero"):  # by a program that knows the digest
        if damage == "runs":
            raw["seconds"]["anchor/large"].pop()
        elif damage == "zero":
            raw["seconds"]["anchor/large"][0] = 0.0
        else:
            del raw["seconds"][raw["wholes"][0]["stitch"]]
        raw["digest"] = content_digest(raw)
    path = tmp_path / "results.json"
    if damage != "missing":
        path.write_text(text[: len(text) // 2] if damage == "cut" else "[1]" if damage == "list" else json.dumps(raw))
    with pytest.raises(BudgetError, match=r"results\.json"):
        read_results(path)


def test_how_far_sums_are_off_here(measured_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["device", "check", "tiny.yaml", "--hybrids", "2", "--runs", "3", "--json"]
    assert run(*arguments) == 0
    said = json.loads(capsys.readouterr().out)
    errors = sorted(abs(one["summed"] / one["measured"] - 1) for one in said["wholes"])
    assert (said["runtime"], said["runs"], len(errors)) == ("pytorch", 3, 2)
    assert (said["median"], said["max"]) == pytest.approx((sum(errors) / 2, errors[1]))
