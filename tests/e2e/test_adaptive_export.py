"""``export --adaptive`` as a user runs it: from a finished run to a model that switches, without the run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from restnet_search import AdaptiveModel, load_hybrid, load_run
from restnet_search.data import load_data
from restnet_search.errors import BudgetError
from restnet_search.space.schema import DataSpec
from tests.e2e.conftest import Cli


@pytest.fixture(scope="module")
def exported(cli: Cli, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The artefact, moved away from its run, and what the command said."""
    said = json.loads(cli("export", "whole", "--adaptive", "--json").stdout)
    folder = tmp_path_factory.mktemp("elsewhere") / "device"
    shutil.move(finished / "export" / "adaptive", folder)
    return folder, said


def test_every_network_of_the_pareto_sets_is_a_route(exported: tuple[Path, dict[str, Any]], finished: Path) -> None:
    folder, said = exported
    report = load_run(finished)
    members = {name for budget in report.budgets for name in budget.pareto}
    model = AdaptiveModel.load(folder)
    assert {route.name for route in model.routes} == members == {route["name"] for route in said["routes"]}
    macs = [route.costs.macs for route in model.routes]
    assert macs == sorted(macs)
    for route in model.routes:
        entry = report.entry(route.name)
        assert (route.costs.macs, route.costs.params) == (entry.macs, entry.params)
        assert route.val.top1 == entry.val.top1
        assert entry.test is not None and route.test is not None and route.test.ci95 == entry.test.ci95


def test_routes_equal_the_networks_of_the_run_and_budgets_choose_its_picks(
    exported: tuple[Path, dict[str, Any]], finished: Path
) -> None:
    folder, _ = exported
    model = AdaptiveModel.load(folder)
    val = load_data(DataSpec(dataset="digits")).val
    images = val.images(model.preprocessing, torch.arange(20))
    for route in model.routes:
        model.use(route)
        with torch.no_grad():
            assert torch.equal(model(images), load_hybrid(finished, route.name)(images))
    report = load_run(finished)
    for budget in report.budgets:
        pick = report.entry(str(budget.pick))
        assert model.set_budget(budget.name).val.top1 == pick.val.top1


def test_memory_is_what_the_search_priced_and_limits_hold(
    exported: tuple[Path, dict[str, Any]], finished: Path
) -> None:
    folder, _ = exported
    model, report = AdaptiveModel.load(folder), load_run(finished)
    for route in model.routes:
        said = route.running.memory
        assert said["float32"] == route.running.memory_at() == report.entry(route.name).memory
        assert said["int8"] < said["float16"] == said["bfloat16"] < said["float32"]
        for budget in (f"{said['float32']}B", f"{said['int8']}B@int8"):
            assert model.set_budget(budget).val.top1 >= route.val.top1
    with pytest.raises(BudgetError, match="did not measure it"):
        model.set_budget("30ms")


def test_the_command_says_what_it_measured(exported: tuple[Path, dict[str, Any]], cli: Cli, tmp_path: Path) -> None:
    folder, said = exported
    sizes = said["bytes"]
    on_disk = sum((folder / name).stat().st_size for name in ("adaptive.json", "adaptive.safetensors"))
    assert sizes["artefact"] == on_disk < sizes["separate"]
    manifest = json.loads((folder / "adaptive.json").read_text())
    assert manifest["measured"]["sizes"] == sizes and manifest["measured"]["images"] == said["images"] == 64
    assert said["switch"]["median_us"] < 1000
    assert all(route["identical"] and route["onnx_max_difference"] <= 1e-4 for route in said["routes"])
    shown = cli("export", "whole", "--adaptive", "--format", "safetensors", "--out", str(tmp_path / "plain")).stdout
    assert "bit for bit" in shown and "a switch takes 0.0" in shown and "onnx" not in shown
    assert not (tmp_path / "plain" / "onnx").exists()


def test_the_snippets_of_its_readme_run_as_they_stand(exported: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = exported
    snippets = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    in_python, in_onnxruntime = snippets
    shows = "import sys\nassert logits.shape == (1, 10)\n"
    without_torch = "assert not {'torch', 'restnet_search'} & sys.modules.keys()\n"
    for code in (in_python + shows, in_onnxruntime + shows + without_torch):
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_one_budget_alone(cli: Cli, finished: Path, tmp_path: Path) -> None:
    arguments = ("--adaptive", "--budget", "400k", "--format", "safetensors", "--out", str(tmp_path / "one"), "--json")
    said = json.loads(cli("export", "whole", *arguments).stdout)
    assert {route["name"] for route in said["routes"]} == set(load_run(finished).budget("400kFLOPs").pareto)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("h000", "--adaptive"), "HYBRID and --adaptive both say what to export"),
        (("--adaptive", "--budget", "1GFLOPs"), "no budget '1GFLOPs'"),
        (("--budget", "400kFLOPs", "--budget", "600kFLOPs,60kparams"), "--adaptive for a model that holds several"),
    ],
)
def test_what_contradicts_itself_is_refused(arguments: tuple[str, ...], said: str, cli: Cli, finished: Path) -> None:
    done = cli("export", "whole", *arguments, check=False)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
