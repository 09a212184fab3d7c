"""A search on folders that torchvision reads, as a user with two checkpoints of torchvision would run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command_line import run as run_here
from tests.e2e.greys import CODE, write_greys

SPACE = """
name: folders
anchors:
  - {name: large, factory: "nets.py:build", kwargs: {width: 8}}
  - {name: small, factory: "nets.py:build", kwargs: {width: 4, natural: NATURAL}}
top_k: 1
stitch: {kind: linear, images: 48}
training: {epochs: 1, lr: 1e-3, images: 48, batch_size: 24}
ranker: {kind: cka, images: 48, batch_size: 24}
search: {trials: 1}
data: {root: data, max_unreadable: 0.1}
"""

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    write_greys(tmp_path / "data", {"train": 6, "val": 8})
    (tmp_path / "nets.py").write_text(CODE)
    (tmp_path / "space.yaml").write_text(SPACE.replace("NATURAL", "false"))
    (tmp_path / "mixed.yaml").write_text(SPACE.replace("NATURAL", "true"))
    monkeypatch.setenv("RESTNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str, code: int = 0) -> str:
        came = run_here(*arguments)
        output = capsys.readouterr()
        assert came == code, output.err
        return output.out + output.err

    return command


def report(tmp_path: Path, name: str) -> dict:
    return json.loads((tmp_path / "reports" / name / "results.json").read_text())


@pytest.mark.parametrize("space", ["space", "mixed"])
def test_anchors_of_torchvision_reach_what_they_reach_there_and_exports_name_their_classes(
    run: Run, tmp_path: Path, space: str
) -> None:
    run("--space", f"{space}.yaml", "--run", "one", "--trust-code")
    results = report(tmp_path, "one")
    assert [(anchor["val"]["top1"], anchor["test"]["top1"]) for anchor in results["anchors"]] == [(1.0, 1.0)] * 2
    mixed = space == "mixed"  # as many of either order: the folders' own stays
    order = [str(k) for k in range(12)] if mixed else sorted(str(k) for k in range(12))
    name = "natural" if mixed else "lexicographic"
    data = results["search"]["data"]
    assert data["classes"] == order and data["class_order"] == name
    assert data["order_accuracy"]["large"] == {"natural": pytest.approx(2 / 12), "lexicographic": 1.0}
    assert data["reordered_anchors"] == (["large"] if mixed else [])
    assert any(f"{name} order (index 2 is {order[2]})" in note for note in results["search"]["data_notes"])
    assert f"{name} order (index 2 is" in " ".join(run("report", "one").split())
    for network in ("small", "large", results["hybrids"][0]["id"]):
        run("export", "one", network, "--format", "safetensors", "--trust-code", "--out", str(tmp_path / network))
        manifest = json.loads((tmp_path / network / "export.json").read_text())
        assert manifest["classes"] == order


def test_a_run_is_not_gone_on_with_on_other_images(run: Run, tmp_path: Path) -> None:
    run("--space", "space.yaml", "--run", "one", "--trust-code")
    run("--resume", "one", "--trust-code")
    victim = tmp_path / "data" / "val" / "7" / "day1" / "3.webp"
    kept = victim.read_bytes()
    Image.fromarray(np.full((16, 16, 3), 3, np.uint8)).save(victim, lossless=True)
    before = (tmp_path / "reports" / "one" / "results.json").read_bytes()
    message = run("--resume", "one", "--trust-code", code=2)
    changed = [name for name in ("train", "val", "test") if f"{name} has other images" in " ".join(message.split())]
    assert changed in (["val"], ["test"]) and "put the images back" in message
    assert (tmp_path / "reports" / "one" / "results.json").read_bytes() == before
    victim.write_bytes(kept)
    run("--resume", "one", "--trust-code")
    (tmp_path / "data" / "train" / "3" / "0.webp").unlink()
    assert "train had 72 images and has 71" in " ".join(run("--resume", "one", "--trust-code", code=2).split())
