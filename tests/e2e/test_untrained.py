"""A factory with random weights and the right number of classes: refused before anything is trained, or marked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command_line import run

CODE = """
from torch import nn

def build(width=8):
    layers = [nn.Conv2d(3, width, 3, stride=2), nn.ReLU(), nn.Conv2d(width, width, 3, stride=2), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
    model.input_size = (3, 20, 20)
    return model
"""
SPACE = """
name: drawn
anchors:
  - {name: small, factory: "own.py:build"}
  - {name: large, factory: "own.py:build", kwargs: {width: 12}}
top_k: 1
stitch: {kind: linear, images: 60}
training: {epochs: 1, lr: 1e-3, images: 60, batch_size: 30}
search: {trials: 1}
controls: {self: 0, random: 0}
ranker: {kind: random}
budgets: [3MFLOPs]
data: {dataset: digits, subset: {train: 100, val: 60, test: 40}}
"""


def test_random_factories_are_refused_and_with_permission_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.py").write_text(CODE)
    (tmp_path / "drawn.yaml").write_text(SPACE)
    monkeypatch.setenv("RESTNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    command = ("--space", "drawn.yaml", "--trust-code", "--run", "one")

    code = run(*command)
    told = capsys.readouterr().err
    assert code == 2 and "small has random weights: " in told and "--allow-untrained" in told
    assert not (tmp_path / "reports" / "one").exists() and "Traceback" not in told

    assert run(*command, "--allow-untrained") == 0
    report = capsys.readouterr().out
    anchors = json.loads((tmp_path / "reports" / "one" / "results.json").read_text())["anchors"]
    assert [anchor["weights"] for anchor in anchors] == ["random", "random"]
    assert "small (untrained)" in report and "UNTRAINED: large: its weights are random" in report
    assert "small random, large random" in report  # where weights are from

    hybrid = json.loads((tmp_path / "reports" / "one" / "results.json").read_text())["hybrids"][0]["id"]
    assert run("export", "one", hybrid, "--format", "safetensors", "--trust-code") == 0
    folder = tmp_path / "reports" / "one" / "export" / hybrid
    assert json.loads((folder / "export.json").read_text())["weights"] == {"small": "random", "large": "random"}
    assert "the weights are random" in (folder / "README.md").read_text()
