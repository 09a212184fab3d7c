"""Rivals of a whole job: a finished run that is asked for a distilled control trains that alone; its weights export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import restnet_search
from restnet_search.data import Preprocessing, load_data
from restnet_search.space.schema import DataSpec

from .conftest import Cli

VIEW = Preprocessing((3, 32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.95, "center")


@pytest.fixture(scope="module")
def run(cli: Cli, finished: Path) -> Path:
    folder = finished.parent / "rivals"
    shutil.copytree(finished, folder)
    space = folder / "space.yaml"
    text = space.read_text(encoding="utf-8")
    assert "distilled: false" in text
    space.write_text(text.replace("distilled: false", "distilled: true"), encoding="utf-8")
    cli("--resume", str(folder))
    return folder


@pytest.fixture(scope="module")
def results(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text(encoding="utf-8"))


def test_the_search_itself_stays_as_it_was(results: dict[str, Any], finished: Path) -> None:
    before = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    assert before["rivals"]["distilled"] is None
    for key in ("hybrids", "anchors", "controls", "trials"):
        assert results[key] == before[key]
    assert results["rivals"]["cascades"] == before["rivals"]["cascades"] != []


def test_the_distilled_anchor_saw_as_many_images_and_its_scores_are_those_of_its_weights(
    run: Path, results: dict[str, Any]
) -> None:
    control = results["rivals"]["distilled"]
    plan = control["plan"]
    assert (plan["small"], plan["large"]) == ("small", "large")
    seen = results["search"]["training_images_seen"]
    assert plan["wanted"] == seen
    assert 0 <= seen - plan["images"] * plan["epochs"] < plan["epochs"]
    assert results["search"]["seconds"]["distilled"] > 0
    assert not list(run.glob("distilled-*"))  # nothing is left of the training
    network = restnet_search.load_hybrid(run, control["network"]["name"])
    small = restnet_search.load_hybrid(run, "small")
    assert any(not torch.equal(a, b) for a, b in zip(network.parameters(), small.parameters(), strict=True))
    test = load_data(DataSpec(dataset="digits")).test
    before = restnet_search.load_run(run).entry("small")
    assert before.macs == control["network"]["cost"]["macs"]
    correct = _correct(network, test)
    assert control["network"]["test"]["top1"] == pytest.approx(correct.mean())


def test_a_cascade_scores_what_its_rule_gives_on_the_anchors_logits(run: Path, results: dict[str, Any]) -> None:
    test = load_data(DataSpec(dataset="digits")).test
    sure = _confidence(restnet_search.load_hybrid(run, "small"), test)
    right = {name: _correct(restnet_search.load_hybrid(run, name), test) for name in ("small", "large")}
    for cascade in results["rivals"]["cascades"]:
        left = sure < cascade["threshold"]
        assert cascade["deferred"]["test"] == pytest.approx(left.mean())
        top1 = np.where(left, right[cascade["large"]], right[cascade["small"]]).mean()
        assert cascade["test"]["top1"] == pytest.approx(top1)


def test_the_report_shows_them_and_both_can_be_exported(cli: Cli, run: Path, tmp_path: Path) -> None:
    text = " ".join(cli("report", str(run)).stdout.split())
    assert "Would distilling have done? d000 is small, trained whole to follow large" in text
    assert "Cascade, at the budget's MACs: small answers where it is surer than" in text
    cli("export", str(run), "d000", "--format", "safetensors", "--out", str(tmp_path / "d000"))
    alone = restnet_search.load_hybrid(tmp_path / "d000")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(alone(images), restnet_search.load_hybrid(run, "d000")(images))
    done = cli("export", str(run), "--adaptive", "--cascade", "--format", "safetensors", "--out", str(tmp_path / "all"))
    assert "cascade: small, and large where that is less sure than" in done.stdout
    model = restnet_search.AdaptiveModel.load(tmp_path / "all")
    assert {"small", "large"} <= {route.name for route in model.routes}
    policy = model.cascade()
    assert (policy.small.name, policy.large.name) == ("small", "large")
    assert model(images).shape == (2, 10)


def test_a_second_resume_trains_nothing_anew(cli: Cli, run: Path) -> None:
    weights = run / "rivals" / "d000.safetensors"
    before = (weights.stat().st_mtime_ns, weights.read_bytes())
    cli("--resume", str(run))
    assert (weights.stat().st_mtime_ns, weights.read_bytes()) == before


def test_changed_weights_are_refused(cli: Cli, run: Path) -> None:
    weights = run / "rivals" / "d000.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = cli("export", str(run), "d000", check=False)
    assert done.returncode == 2 and "it was changed after it was written" in done.stderr
    weights.write_bytes(content)


def _logits(network: torch.nn.Module, split: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([network(batch) for batch in split.batches(VIEW, 250)])


def _correct(network: torch.nn.Module, split: Any) -> np.ndarray:
    return (_logits(network, split).argmax(1) == split.labels).numpy()


def _confidence(network: torch.nn.Module, split: Any) -> np.ndarray:
    powers = np.exp(_logits(network, split).double().numpy())
    return (powers / powers.sum(1, keepdims=True)).max(1)
