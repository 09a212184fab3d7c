"""Own networks from a file and from an installed package, the whole way: inspect, search, export, read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from restnet_search import load_hybrid
from restnet_search.data import Preprocessing, load_data
from restnet_search.space.schema import DataSpec
from tests.command_line import run as run_here

# Functions, a residual path, buffers that a state dict keeps and one that it leaves out, a plain tensor, and running
# statistics; the package's module is the wider one.
CODE = """
import torch
from torch import nn
from torch.nn import functional as F


def scaled(x, by):
    return x * by


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.register_buffer("gain", torch.full((1, width, 1, 1), 0.5))
        self.register_buffer("offset", torch.linspace(-0.1, 0.1, width).view(1, -1, 1, 1), persistent=False)

    def forward(self, x):
        shortcut = x
        x = self.norm(self.conv(x)) + self.offset
        x += scaled(shortcut, self.gain)
        return F.relu(x)


class Own(nn.Module):
    input_size = (3, 32, 32)

    def __init__(self, width=8, depth=3):
        super().__init__()
        self.table = torch.tensor([1.0, 0.9, 1.1]).view(1, 3, 1, 1)
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList([Block(width) for _ in range(depth)])
        self.dropout = 0.1
        self.fc = nn.Linear(2 * width, 10)

    def forward(self, x):
        x = F.relu(self.stem(x * self.table))
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index == 0:
                x = F.max_pool2d(x, 2)
        x = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)
        return self.fc(F.dropout(x, self.dropout, self.training))


def build(width=8, depth=3):
    return Own(width, depth)
"""

SPACE = """
name: own
anchors:
  - {name: mine, factory: "my_models.py:build", pretrained: false, license: cc-by-nc-4.0}
  - {name: theirs, factory: "own_package.models:build", pretrained: false, kwargs: {width: 12, depth: 4}}
top_k: 1
stitch: {kind: linear, images: 200}
training: {epochs: 1, lr: 3e-3, images: 200, batch_size: 50}
fit: {tune: full, epochs: 1, lr: 5e-3, batch_size: 50}
search: {trials: 4}
budgets: [3MFLOPs]
data: {dataset: digits, subset: {train: 400, val: 100, test: 100}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the space and the file in it; the package is installed."""
    folder, site = tmp_path / "work", tmp_path / "site"
    (site / "own_package").mkdir(parents=True)
    (site / "own_package" / "__init__.py").write_text("")
    (site / "own_package" / "models.py").write_text(CODE)
    folder.mkdir()
    (folder / "my_models.py").write_text(CODE)
    (folder / "own.yaml").write_text(SPACE)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("RESTNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(folder)
    return folder


def test_the_whole_way(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str, code: int = 0) -> str:
        came = run_here(*arguments)
        told = capsys.readouterr()
        assert came == code, told.err
        return told.err if code else told.out

    for name, blocks in (("mine", 3), ("theirs", 4)):
        inspected = json.loads(run("anchors", "inspect", name, "--space", "own.yaml", "--trust-code", "--json"))
        paths = [row["path"] for row in inspected["cut_points"]]
        assert sum(path.startswith("blocks.") for path in paths) >= blocks
        assert {row["layout"] for row in inspected["cut_points"] if row["path"].startswith("blocks.")} == {"NCHW"}
    assert "--trust-code" in run("--space", "own.yaml", code=2)

    told = run("--space", "own.yaml", "--trust-code", "--run", "own")
    results = json.loads((folder / "reports" / "own" / "results.json").read_text())
    assert results["trials"]["finished"] == 4
    assert [anchor["license"] for anchor in results["anchors"]] == ["cc-by-nc-4.0", None]
    assert "Weights of mine: cc-by-nc-4.0 (non-commercial)" in told and "Weights of theirs: license unknown" in told
    count = len(results["hybrids"])  # with random controls
    assert count >= 4 and f"NOT FOR COMMERCIAL USE: {count} of {count} hybrids hold the weights of mine." in told
    assert all(results["non_commercial"][hybrid["id"]] == ["mine"] for hybrid in results["hybrids"])

    hybrid = results["hybrids"][0]["id"]
    run("export", "own", hybrid, "--trust-code")
    export = folder / "reports" / "own" / "export" / hybrid
    card = (export / "README.md").read_text()
    assert "mine: cc-by-nc-4.0 (non-commercial)" in card and "NOT FOR COMMERCIAL USE" in card
    manifest = json.loads((export / f"{hybrid}.json").read_text())
    sides = [manifest["architecture"][side]["anchor"] for side in ("front", "back")]
    assert {side["name"]: side["licence"] for side in sides} == {"mine": "cc-by-nc-4.0", "theirs": None}
    said = saved_metadata(export / f"{hybrid}.safetensors")
    assert json.loads(said["licences"]) == {"mine": "cc-by-nc-4.0", "theirs": None}
    assert "mine (cc-by-nc-4.0)" in said["licence_warning"]

    preprocessing = Preprocessing(
        (3, 32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear", 0.875, "center"
    )
    images = load_data(DataSpec(dataset="digits")).val.images(preprocessing, torch.arange(5))
    monkeypatch.chdir(tmp_path)
    with torch.no_grad():
        expected = load_hybrid(folder / "reports" / "own", hybrid, trust_code=True)(images)
        again = load_hybrid(export, base=folder, trust_code=True)(images)
    assert expected.shape == (5, 10) and torch.equal(again, expected)


def saved_metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())
